"""Rows that have no features, and why: what `emofuse cache problems` lists and exports."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import polars as pl

from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.reader import Cache
from emofuse.errors import CacheError, did_you_mean
from emofuse.status import Status

PROBLEM_STATUSES = (Status.NO_DETECTION, Status.UNREADABLE, Status.FAILED)
_COLUMNS = ("row", "sample_id", "path", "stream", "view", "status", "reason")
_NONE = pl.DataFrame(
    schema={"row": pl.Int64, "stream": pl.String, "view": pl.Int64, "status": pl.String, "reason": pl.String}
)


def list_problems(
    cache: Cache, streams: Sequence[str] = (), statuses: Collection[Status] = PROBLEM_STATUSES
) -> pl.DataFrame:
    """All rows of some statuses; those that are still to be computed are none of them.

    Args:
        cache: the open cache.
        streams: names; all of them if there are none.
        statuses: which.

    Returns:
        Columns `row`, `sample_id`, `path`, `stream`, `view`, `status` (its name in lower case), `reason` (one line, ""
        where a cache of format 1 has none), by row, then stream, then view.

    Raises:
        CacheError: no such stream, or a chunk of reasons is damaged.
    """
    for name in streams:
        if name not in cache.streams:
            there = ", ".join(cache.streams) or "none"
            raise CacheError(
                f"{cache.path}: no stream {name!r}{did_you_mean(name, cache.streams)} (there are: {there})"
            )
    chosen = [stream for name, stream in cache.streams.items() if not streams or name in streams]
    found = pl.concat([_NONE, *(_problems_of(stream, statuses) for stream in chosen)])
    samples = cache.manifest.table.select("sample_id", "path").with_row_index("row").cast({"row": pl.Int64})
    return found.join(samples, on="row", how="left").select(_COLUMNS).sort("row", "stream", "view")


def _problems_of(stream: CachedStream, statuses: Collection[Status]) -> pl.DataFrame:
    rows, views = np.nonzero(np.isin(stream.status, list(statuses)))
    codes = stream.status[rows, views].tolist()
    return pl.DataFrame(
        {
            "row": rows.tolist(),
            "stream": [stream.name] * len(rows),
            "view": views.tolist(),
            "status": [Status(code).name.lower() for code in codes],
            "reason": stream.reasons()[rows, views].tolist(),
        },
        schema=_NONE.schema,
    )
