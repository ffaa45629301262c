"""Sections of an analysis: each turns the numbers of one question into sentences, tables and figures."""
