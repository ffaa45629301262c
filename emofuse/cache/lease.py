"""One build at a time on a store, which has no locks: an object beside the cache says who builds and that it lives.

The holder writes the object anew every `BEAT_S` seconds. Whoever finds one watches it: if it changes, its holder lives
and the newcomer is refused. If it does not for `PATIENCE_S`, or its process is known to be gone from this very machine,
it is taken over. Every step is a conditional write, so of two newcomers one succeeds, and no two clocks are compared.

What the lease is for is the making and dropping of streams. A holder that was asleep for longer than `PATIENCE_S` may
find that another build has taken over: both then write the same bytes into the same blocks, and no harm is done.
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
    """Holds a cache on a store for one build at a time.

    Raises:
        CacheError: another build holds it, with its machine, process and beginning.
        StoreError: the store does not answer, or knows no conditional writes.
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
    """This process's claim on one cache."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._own = {
            "id": uuid.uuid4().hex,
            **claim(),
        }
        self._beat = 0
        self._tag: str | None = None
        self._ended = threading.Event()

    def take(self, cache: Path) -> None:
        """Becomes the holder, in place of nobody or of one that is dead.

        Raises:
            CacheError: another one lives.
        """
        while True:
            found = self._path.tag()
            if found is not None and not self._is_dead(found):
                holder = self._read()
                if not holder:
                    continue  # it has just ended
                raise CacheError(refusal(cache, holder))
            try:
                self._write(found)
            except FileExistsError:
                continue  # another newcomer was faster: watch that one
            return

    def keep(self) -> None:
        """Says every few seconds that the holder lives, until it ends or another one has taken over."""
        while not self._ended.wait(BEAT_S):
            try:
                self._write(self._tag)
            except FileExistsError:
                return
            except StoreError:
                continue  # the next one may come through; the build itself will say so if the store is gone

    def end(self) -> None:
        """Gives the lease back, if it is still this process's."""
        self._ended.set()
        with contextlib.suppress(StoreError, FileNotFoundError):
            if self._read().get("id") == self._own["id"]:
                self._path.unlink(missing_ok=True)

    def _write(self, tag: str | None) -> None:
        self._beat += 1
        self._tag = self._path.write_if(json.dumps({**self._own, "beat": self._beat}).encode(), tag)

    def _read(self) -> dict[str, Any]:
        """What the holder says of itself; {} if there is none or it cannot be read."""
        try:
            found = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _is_dead(self, tag: str) -> bool:
        """Whether the holder of the lease with this tag has stopped renewing it."""
        holder = self._read()
        if holder.get("host") == platform.node() and not psutil.pid_exists(int(holder.get("pid", -1))):
            return True
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            time.sleep(_LOOK_S)
            if self._path.tag() != tag:
                return False
        return True
