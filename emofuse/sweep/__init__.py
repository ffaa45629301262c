"""Hundreds of runs of one question: configurations -> search -> rows of results -> choice -> final runs."""
