"""Users without a home folder (containers, batch systems): said in words, with what to set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emofuse.errors import WeightsError
from emofuse.machine.home import NoHomeError, user_folder
from emofuse.specs import FileWeights
from emofuse.specs.plugins import is_trusted
from emofuse.weights.resolve import resolve_weights
from emofuse.weights.store import weights_dir


@pytest.fixture(autouse=True)
def _no_home(monkeypatch):
    """As pathlib has it without HOME and without an entry for the user."""

    def refuse(*_):
        raise RuntimeError("Could not determine home directory.")

    for name in ("EMOFUSE_WEIGHTS_DIR", "XDG_CACHE_HOME", "EMOFUSE_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", refuse)
    monkeypatch.setattr(Path, "expanduser", lambda path: refuse() if str(path).startswith("~") else path)


def test_without_a_home_the_folder_of_weights_must_be_named():
    with pytest.raises(WeightsError, match=r"no home folder; set EMOFUSE_WEIGHTS_DIR \(or XDG_CACHE_HOME\)"):
        weights_dir()


def test_folders_that_are_named_need_no_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_dir() == tmp_path / "emofuse/weights"
    monkeypatch.setenv("EMOFUSE_WEIGHTS_DIR", str(tmp_path / "own"))
    assert weights_dir() == tmp_path / "own"
    monkeypatch.setenv("EMOFUSE_WEIGHTS_DIR", "~/own")
    with pytest.raises(NoHomeError, match="no home folder"):
        user_folder("EMOFUSE_WEIGHTS_DIR", "XDG_CACHE_HOME", ".cache")


def test_a_tilde_in_a_spec_is_said():
    with pytest.raises(WeightsError, match=re.escape("~/own.pth: this user has no home folder; write the whole path")):
        resolve_weights(FileWeights(path=Path("~/own.pth")))


def test_no_plugin_file_is_trusted_without_a_place_that_says_so():
    assert not is_trusted("0" * 64)
