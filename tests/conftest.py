"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real files (faces, weights, broken images); tests that need it skip where it is absent."""
    given = os.environ.get("EMOFUSE_TEST_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real test data at {folder} (set EMOFUSE_TEST_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _own_weights_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's weights; those that need some import them into a folder of their own."""
    monkeypatch.setenv("EMOFUSE_WEIGHTS_DIR", str(tmp_path_factory.mktemp("weights")))
