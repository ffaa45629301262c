"""A process of its own: what it gives, what it says when it cannot, and that its memory is its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from emofuse.cache.reader import open_cache
from emofuse.errors import ProfileError
from emofuse.profile.fresh_process import in_fresh_process, peak_memory

CPU = torch.device("cpu")


def test_it_gives_what_the_function_gives():
    assert in_fresh_process(max, 3, 7, threads=1, what="test") == 7


def test_its_memory_is_not_its_parent_s():
    """With `ru_maxrss` it would be: a process inherits that mark from whoever starts it."""
    large = np.ones(2 * 2**30 // 8)
    assert peak_memory(CPU).rss_bytes > large.nbytes
    assert in_fresh_process(peak_memory, CPU, threads=1, what="test").rss_bytes < large.nbytes // 2


def test_its_libraries_have_the_threads_asked_for_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert in_fresh_process(torch.get_num_threads, threads=2, what="test") == 2
    assert in_fresh_process(os.getenv, "MKL_NUM_THREADS", threads=2, what="test") == "2"
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert "MKL_NUM_THREADS" not in os.environ


def test_an_error_of_emofuse_is_told_with_what_was_measured():
    with pytest.raises(ProfileError, match=r"^LBP: nowhere\.zarr: .*no"):
        in_fresh_process(open_cache, Path("nowhere.zarr"), threads=1, what="LBP")


def test_any_other_error_is_told_with_its_kind(capfd):
    with pytest.raises(ProfileError, match=r"^LBP: ValueError: invalid literal for int"):
        in_fresh_process(int, "x", threads=1, what="LBP")
    assert "Traceback" in capfd.readouterr().err


def test_a_process_that_is_killed_is_told():
    with pytest.raises(ProfileError, match=r"^LBP: the measuring process was killed, most likely because memory ran"):
        in_fresh_process(signal.raise_signal, signal.SIGKILL, threads=1, what="LBP")


def test_a_process_that_dies_is_told():
    with pytest.raises(ProfileError, match=r"^LBP: the measuring process died with exit status 3; what it wrote is"):
        in_fresh_process(os._exit, 3, threads=1, what="LBP")


def test_it_does_not_hear_ctrl_c_and_its_parent_still_does():
    before = signal.getsignal(signal.SIGINT)
    assert in_fresh_process(signal.getsignal, signal.SIGINT, threads=1, what="test") == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == before
