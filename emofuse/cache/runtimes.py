"""The record of what has computed the networks of a stream: PyTorch, or OpenVINO with its version.

It stands in the attributes of the stream, which only the process that builds may change. A worker therefore notes a
runtime beside the stream before it writes the first block that the runtime has computed: an empty file of its name in
the folder `.runtimes`. The process that builds moves notes into the attributes. Between the two the record is read from
both, so that a build that is killed at any moment has recorded what computed its blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from emofuse.cache.attempts import write_persistently
from emofuse.cache.layout import StreamLayout, streams_dir
from emofuse.cache.metadata import RUNTIME_NOTES, noted_runtimes, read_stream_layout
from emofuse.cache.zarr_store import update_group
from emofuse.stores import is_remote


def note_runtimes(path: Path, layout: StreamLayout, runtimes: Iterable[str], build: str) -> None:
    """Note what is about to write rows of a stream, unless its attributes or an earlier call of this build did.

    Args:
        path: the path of the cache.
        layout: the layout of the stream, as it was read during this build.
        runtimes: what has computed the networks of the rows.
        build: the id of the build.

    Raises:
        CacheError: the file system refuses.
    """
    for runtime in set(runtimes) - set(layout.runtimes):
        _note_once(path, layout.name, runtime, build)


def record_runtimes(path: Path, name: str, runtimes: Iterable[str] = ()) -> None:
    """Add what computed the networks of a stream, and what was noted, to the record. Call it under `lock_cache`.

    Nothing is written if nothing is new, or if there is no such stream.
    """
    cached = read_stream_layout(path, name, check_arrays=False)
    if cached is None:
        return
    folder = streams_dir(path) / name
    noted = noted_runtimes(folder)
    together = tuple(sorted({*cached.runtimes, *runtimes, *noted}))
    if together != cached.runtimes:
        update_group(folder, replace(cached, runtimes=together).to_attributes())
    with suppress(OSError):  # they are recorded, so that they harm nobody
        for runtime in noted:
            (folder / RUNTIME_NOTES / runtime).unlink(missing_ok=True)
        if noted and not is_remote(folder):
            (folder / RUNTIME_NOTES).rmdir()


@lru_cache(maxsize=256)
def _note_once(path: Path, name: str, runtime: str, _build: str) -> None:
    folder = streams_dir(path) / name / RUNTIME_NOTES

    def write() -> None:
        folder.mkdir(exist_ok=True)
        (folder / runtime).write_bytes(b"")

    write_persistently(write, f"{path}: {name!r}")
