"""Allow one build at a time on a disk: a locked file beside the cache names the process that holds it.

The operating system releases the lock when the process ends, even if it is killed. Where there are no locks (Windows,
some network file systems) the content of the file decides: a process that is gone from this machine has no claim.
"""
# filelock 4.3 was tried in its place. It leaves the file beside the cache, falls back without `flock` only for ENOSYS,
# and neither names the holder nor waits for one that is dying: a quarter of this module would go for a dependency.

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from emofuse.cache.attempts import writing
from emofuse.errors import CacheError

_DYING_S = 10.0
_LOOK_S = 0.05
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def lock_path(cache: Path) -> Path:
    """Return the file that exists beside a cache while it is held: `features.zarr` -> `features.lock`."""
    return cache.with_name(cache.name.removesuffix(".zarr") + ".lock")


@contextlib.contextmanager
def hold_lock(cache: Path) -> Iterator[None]:
    """Hold a cache on a disk for one build at a time.

    Raises:
        CacheError: another build holds it, with its machine, process and beginning.
        UnwritableCacheError: its folder cannot be written.
    """
    beside = lock_path(cache)
    file = _take(cache, beside)
    try:
        yield
    finally:
        # The file is removed while it is locked: a process that has opened it then finds another file at its path.
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        os.close(file)


def _take(cache: Path, beside: Path) -> int:
    """Return the descriptor of the locked file."""
    end = time.monotonic() + _DYING_S
    while True:
        with writing(f"{cache}: the folder of this cache"):
            beside.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(beside, os.O_RDWR | os.O_CREAT, 0o644)
        if _is_held(file):
            holder = _read(beside)
            os.close(file)
            if _is_dying(holder) and time.monotonic() < end:
                time.sleep(_LOOK_S)  # it was killed, and the system has not yet released its lock
                continue
            raise CacheError(refusal(cache, holder))
        if _is_under_its_name(file, beside):
            os.truncate(file, 0)
            os.write(file, json.dumps(claim()).encode())
            return file
        os.close(file)  # the holder removed it while it was being opened


def _is_dying(holder: dict[str, Any]) -> bool:
    """Return whether the holder was a process of this machine that has ended."""
    if holder.get("host") != platform.node():
        return False
    try:
        return bool(psutil.Process(int(holder["pid"])).status() == psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True


def claim() -> dict[str, Any]:
    """Return the plain data that identifies this process as the holder of a cache."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def refusal(cache: Path, holder: dict[str, Any]) -> str:
    """Return the error message for the second of two builds."""
    who = (
        f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
        if holder
        else "it has just begun"
    )
    return f"{cache}: another build is writing this cache ({who}). Wait for it, or stop it first."


def _is_held(file: int) -> bool:
    """Return whether another process holds the file, and lock it otherwise."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        else:
            return False
    holder = _parse(os.read(file, 4096))
    os.lseek(file, 0, os.SEEK_SET)
    is_elsewhere = holder.get("host") not in {None, platform.node()}
    return bool(holder) and (is_elsewhere or psutil.pid_exists(int(holder.get("pid", -1))))


def _is_under_its_name(file: int, beside: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), beside.stat())
    except FileNotFoundError:
        return False


def _read(beside: Path) -> dict[str, Any]:
    try:
        return _parse(beside.read_bytes())
    except OSError:
        return {}


def _parse(data: bytes) -> dict[str, Any]:
    """Return the claim of the holder, {} if it has written none yet."""
    try:
        holder = json.loads(data)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}
