"""The list of rows without features and the reasons, as `emofuse cache problems` shows and exports it."""

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
    """Return all rows with one of these statuses; rows that are not computed yet are left out by default.

    Args:
        cache: the open cache.
        streams: the names of the streams; () means all.
        statuses: the statuses.

    Returns:
        A table with the columns `row`, `sample_id`, `path`, `stream`, `view`, `status` (its name in lower case) and
        `reason` (one line, "" in a cache of format 1), sorted by row, stream and view.

    Raises:
        CacheError: the cache has no such stream, or a chunk of reasons is damaged.
    """
    for name in streams:
        if name not in cache.streams:
            names = ", ".join(cache.streams) or "none"
            raise CacheError(
                f"{cache.path}: no stream {name!r}{did_you_mean(name, cache.streams)} (there are: {names})"
            )
    chosen = [stream for name, stream in cache.streams.items() if not streams or name in streams]
    problems = pl.concat([_NONE, *(_problems_of(stream, statuses) for stream in chosen)])
    samples = cache.manifest.table.select("sample_id", "path").with_row_index("row").cast({"row": pl.Int64})
    return problems.join(samples, on="row", how="left").select(_COLUMNS).sort("row", "stream", "view")


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
