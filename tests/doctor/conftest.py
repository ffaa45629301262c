"""Packages that are broken, each in its own way, in front of the real ones."""

from __future__ import annotations

import os
import sys

import pytest


@pytest.fixture
def break_package(tmp_path, monkeypatch):
    """Makes other processes find this code in place of a package."""
    folder = tmp_path / "broken"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])  # which other processes are given
    found = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([found] if found else [])]))

    def do(name, code):
        (folder / f"{name}.py").write_text(code)

    return do
