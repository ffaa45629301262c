"""Allow one build at a time on a store, which has no locks: an object beside the cache, a lease, names the holder.

The holder rewrites the object every `BEAT_S` seconds. Another build that finds the object watches it. If it changes,
the holder is alive and the other build is refused. If it does not change for `PATIENCE_S`, or its process is gone from
this machine, the other build takes it over. Every step is a conditional write, so of two new builds one succeeds, and
clocks of different machines are never compared.

The lease protects the creation and removal of streams. A holder that slept for longer than `PATIENCE_S` may find that
another build has taken over. Both then write the same bytes into the same blocks, which does no harm.
"""

from __future__ import annotations

import contextlib
import json
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psutil

from emofuse.cache.lock import claim, refusal
from emofuse.errors import CacheError, StoreError
from emofuse.stores import RemotePath

BEAT_S = 5.0
PATIENCE_S = 30.0
_LOOK_S = 1.0


@contextlib.contextmanager
def hold_lease(cache: Path) -> Iterator[None]:
    """Hold a cache on a store for one build at a time.

    Raises:
        CacheError: another build holds it, with its machine, process and beginning.
        StoreError: the store does not answer, or has no conditional writes.
    """
    beside = cache.with_name(cache.name.removesuffix(".zarr") + ".lease.json")
    lease = _Lease(cast("RemotePath", beside))
    lease.take(cache)
    beating = threading.Thread(target=lease.keep, name="lease", daemon=True)
    beating.start()
    try:
        yield
    finally:
        lease.end()
        beating.join()


class _Lease:
    """The claim of this process on one cache."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._claim = {
            "id": uuid.uuid4().hex,
            **claim(),
        }
        self._beat = 0
        self._tag: str | None = None
        self._ended = threading.Event()

    def take(self, cache: Path) -> None:
        """Become the holder if there is none, or if it is dead.

        Raises:
            CacheError: another holder is alive.
        """
        while True:
            tag = self._path.tag()
            if tag is not None and not self._is_dead(tag):
                holder = self._read()
                if not holder:
                    continue  # it has just ended
                raise CacheError(refusal(cache, holder))
            try:
                self._write(tag)
            except FileExistsError:
                continue  # another build was faster: watch that one
            return

    def keep(self) -> None:
        """Renew the lease every few seconds, until it ends or another build has taken over."""
        while not self._ended.wait(BEAT_S):
            try:
                self._write(self._tag)
            except FileExistsError:
                return
            except StoreError:
                continue  # the next renewal may succeed; the build itself reports a store that is gone

    def end(self) -> None:
        """Delete the lease if it still belongs to this process."""
        self._ended.set()
        with contextlib.suppress(StoreError, FileNotFoundError):
            if self._read().get("id") == self._claim["id"]:
                self._path.unlink(missing_ok=True)

    def _write(self, tag: str | None) -> None:
        self._beat += 1
        self._tag = self._path.write_if(json.dumps({**self._claim, "beat": self._beat}).encode(), tag)

    def _read(self) -> dict[str, Any]:
        """Return the claim of the holder; {} if there is none or it cannot be read."""
        try:
            holder = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return holder if isinstance(holder, dict) else {}

    def _is_dead(self, tag: str) -> bool:
        """Return whether the holder of the lease with this tag has stopped renewing it."""
        holder = self._read()
        if holder.get("host") == platform.node() and not psutil.pid_exists(int(holder.get("pid", -1))):
            return True
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            time.sleep(_LOOK_S)
            if self._path.tag() != tag:
                return False
        return True
