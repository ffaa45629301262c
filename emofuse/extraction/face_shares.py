"""The share of rows with a face, of the streams of a cache that look at faces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.reader import Cache
from emofuse.specs import CacheSpec, ImportedSpec
from emofuse.specs.streams import looks_at_faces
from emofuse.status import Status

_WHOLE = "whole_image"
_SPLITS = ("train", "val", "test")


def describe_face_shares(cache: Cache, spec: CacheSpec) -> list[str]:
    """Return a line for each share of rows with a face, over all splits and in each, with the streams that have it.

    A row that could not be read is not counted.

    Args:
        cache: the cache.
        spec: the spec that it was built from.
    """
    streams: dict[str, list[str]] = {}
    for stream in spec.streams:
        if not isinstance(stream, ImportedSpec) and looks_at_faces(stream.needs) and stream.name in cache.streams:
            status = _face_status(cache.streams[stream.name])
            line = ", ".join(_shares(status, cache.manifest.table["split"].to_list()))
            if line:
                streams.setdefault(line, []).append(stream.name)
    return [f"{line} ({', '.join(names)})" for line, names in streams.items()]


def _face_status(stream: CachedStream) -> npt.NDArray[np.uint8]:
    """Return the status of every row; NO_DETECTION where the whole picture stands in for the face."""
    status = stream.status[:, 0].copy()
    if _WHOLE in stream.flag_names:
        is_whole = stream.flags[:, 0] >> stream.flag_names.index(_WHOLE) & 1
        status[(status == Status.OK) & (is_whole == 1)] = Status.NO_DETECTION
    return status


def _shares(status: npt.NDArray[np.uint8], splits: list[str | None]) -> Iterator[str]:
    """Yield the share of rows with a face, then that of each split that has rows."""
    seen = np.isin(status, (Status.OK, Status.NO_DETECTION))
    if not seen.any():
        return
    found = status == Status.OK
    yield f"a face in {_percent(found, seen)} of {int(seen.sum())} rows"
    of_split = np.array([split or "" for split in splits])
    for split in _SPLITS:
        rows = seen & (of_split == split)
        if rows.any():
            yield f"{split} {_percent(found, rows)}"


def _percent(found: npt.NDArray[np.bool_], rows: npt.NDArray[np.bool_]) -> str:
    return f"{100 * float(found[rows].mean()):.1f} %"
