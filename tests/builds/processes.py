"""What tests of real processes share: look at them, wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

_TEMPLATE = "emofuse.extraction.template"


def children_of(process: psutil.Process) -> list[psutil.Process]:
    return process.children(recursive=True) if process.is_running() else []


def wait_until(condition: Callable[[], bool], timeout_s: float = 600) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def done_blocks(cache: Path) -> int:
    return len(list(cache.glob("streams/thumbnail/status/c.*")))  # the last stream of the script


def is_worker(process: psutil.Process) -> bool:
    """Whether it is an extraction process; one that a template has forked has the command line of the template."""
    if "emofuse.extraction.child" in process.cmdline():
        return True
    parent = process.parent()
    return parent is not None and all(_TEMPLATE in each.cmdline() for each in (process, parent))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
