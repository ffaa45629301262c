"""Compiled networks that are kept on this machine, so that a network is converted once and not in every process.

A file holds facts as JSON and the network as OpenVINO exports it for this CPU. Its name is the digest of everything
that decides the values which the network computes and the form in which it is stored: weights, architecture, outputs,
input, the releases of the libraries, the CPU, and the source of the modules here that make networks. A file is used
only if its content has the SHA-256 of its first line: one that is cut off or damaged is deleted, and the network is
converted again. A file gets its name when it is complete, so that several builds may write and read at once.

The folder is `EMOFUSE_COMPILED_DIR`, or `emofuse/compiled` in the user's cache folder; `off` keeps nothing. The files
that were not used for longest are deleted when all take more than 4 GB. A file or folder that other users could write
is not used.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import platform
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from emofuse.machine.home import NoHomeError, user_folder

VARIABLE = "EMOFUSE_COMPILED_DIR"
"""The environment variable that names the folder of compiled networks; `off` keeps none."""

LIMIT_BYTES = 4_000_000_000
"""The largest size of all kept files together."""

_OFF = "off"
_SUFFIX = ".network"
_FORMAT = 1
_PAGE = 4096  # the exported network begins at a multiple of it
_LIBRARIES = ("openvino", "torch", "torchvision", "timm", "open_clip_torch", "ultralytics")
_UNFINISHED_S = 3600.0
_CPU = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class KeptFile:
    """The content of a kept file, whose digest was checked.

    Attributes:
        facts: what was written with it.
        data: the exported network, mapped into memory and shared by processes; empty if the file has facts alone.
    """

    facts: Mapping[str, Any]
    data: memoryview


def network_key(**parts: Any) -> str:
    """Return the name of a kept file: the digest of parts that JSON can hold, and of this machine and its libraries."""
    named = {"format": _FORMAT, "machine": _machine(), "parts": parts}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def read_kept(key: str) -> KeptFile | None:
    """Return a kept file; None if there is none, or if it is damaged or could be written by other users."""
    folder = _folder()
    if folder is None:
        return None
    path = folder / f"{key}{_SUFFIX}"
    try:
        if not _is_own(folder) or not _is_own(path):
            return None
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        kept = _parsed(mapped)
    except (OSError, ValueError):  # there is none, or it is empty
        return None
    with suppress(OSError):
        if kept is None:
            path.unlink()
        else:
            os.utime(path)  # the files that were not used for longest go first
    return kept


def is_kept(key: str) -> bool:
    """Return whether there is a kept file of this name, which may still turn out to be damaged."""
    folder = _folder()
    return folder is not None and (folder / f"{key}{_SUFFIX}").is_file()


def keep(key: str, facts: Mapping[str, Any], data: bytes = b"") -> None:
    """Keep facts and an exported network. A failure is ignored: the network is then converted again next time."""
    folder = _folder()
    if folder is None:
        return
    head = json.dumps({"sha256": _digest(facts, memoryview(data)), "facts": facts}, sort_keys=True).encode()
    head += b" " * (-(len(head) + 1) % _PAGE) + b"\n"
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_own(folder):
            return
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(head)
                file.write(data)
            Path(name).replace(folder / f"{key}{_SUFFIX}")
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _delete_oldest(folder)


class IsConvertedElsewhereError(Exception):
    """Another process converts the network now, and `not_waiting` says that something else can be done meanwhile."""


_WAITS: ContextVar[bool] = ContextVar("emofuse_waits_for_conversions", default=True)


@contextmanager
def not_waiting() -> Iterator[None]:
    """Let `converting` raise within the context where it would wait."""
    token = _WAITS.set(False)
    try:
        yield
    finally:
        _WAITS.reset(token)


@contextmanager
def converting(key: str) -> Iterator[None]:
    """Wait until no other process converts the network of this key, so that it can be taken from the one that did.

    Nothing is waited for where files cannot be locked.

    Raises:
        IsConvertedElsewhereError: another process converts it, within `not_waiting`.
    """
    folder = _folder()
    if folder is None:
        yield
        return
    lock = folder / f".{key}.lock"
    try:
        import fcntl

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system releases it if its process ends
        except BlockingIOError:
            if not _WAITS.get():
                raise IsConvertedElsewhereError(key) from None
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        with suppress(OSError):
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _parsed(mapped: memoryview) -> KeptFile | None:
    """Return the content of a file, or None if it does not have its digest."""
    end = bytes(mapped[: 64 * _PAGE]).find(b"\n")
    if end < 0:
        return None
    try:
        head = json.loads(bytes(mapped[:end]))
        facts, expected = head["facts"], head["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    data = mapped[end + 1 :]
    return KeptFile(facts, data) if _digest(facts, data) == expected else None


def _digest(facts: Mapping[str, Any], data: memoryview) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()


def _folder() -> Path | None:
    if os.environ.get(VARIABLE, "").lower() == _OFF:
        return None
    try:
        return user_folder(VARIABLE, "XDG_CACHE_HOME", ".cache", "compiled")
    except NoHomeError:
        return None


def _is_own(path: Path) -> bool:
    """Return whether a path belongs to this user, and no other may write it."""
    status = path.stat()
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _delete_oldest(folder: Path) -> None:
    """Delete the files that were not used for longest, until the others are within the limit."""
    files = []
    for path in folder.glob(".new-*"):
        with suppress(OSError):  # its process was killed
            if time.time() - path.stat().st_mtime > _UNFINISHED_S:
                path.unlink()
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # another process has deleted it
            status = path.stat()
            files.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= LIMIT_BYTES:
            return
        with suppress(OSError):
            path.unlink()
        total -= size


@lru_cache(maxsize=1)
def _machine() -> Mapping[str, str]:
    """Return what decides a compiled network besides the network: the CPU, the libraries, and the code here."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"cpu": _cpu(), "code": sources.hexdigest(), **found}


def _cpu() -> str:
    """Return the machine, and the name and features of its CPU where the system tells them."""
    try:
        lines = _CPU.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
