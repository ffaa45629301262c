"""Rows of a cache for the heads of a saved run: the features that they were trained on, by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.reader import Cache
from emofuse.errors import ResultsError, StaleCacheError
from emofuse.results import RunRecord, run_dir
from emofuse.training.trained import HeadInputs, TrainedHead, load_head

Ints = npt.NDArray[np.int64]
_SAME_PROBS = 2e-3
"""The largest difference between saved and recomputed probabilities: another processor or batch rounds differently."""


@dataclass(frozen=True)
class RunOnRows:
    """The heads of a run with what they see of some rows.

    Attributes:
        trained: the heads.
        inputs: for each head the rows, standardised.
    """

    trained: TrainedHead
    inputs: tuple[HeadInputs, ...]


def rows_of_samples(cache: Cache, sample_id: npt.NDArray[np.str_]) -> Ints:
    """Return the rows of a cache that have these ids, int64 (n,).

    Raises:
        ResultsError: a sample is not in the cache.
    """
    order = np.argsort(cache.sample_ids, kind="stable")
    ids = cache.sample_ids[order]
    place = np.minimum(np.searchsorted(ids, sample_id), len(ids) - 1)
    absent = ids[place] != sample_id
    if absent.any():
        raise ResultsError(
            f"{cache.path} has no sample {str(sample_id[absent][0])!r} ({int(absent.sum())} of {len(sample_id)} test "
            "rows are absent): it is not the cache that the run was trained on. Name that one: --cache"
        )
    rows: Ints = order[place].astype(np.int64)
    return rows


def open_run(cache: Cache, runs: Path, record: RunRecord, rows: Ints, *, device: str = "cpu") -> RunOnRows:
    """Load the heads of a run and read what they see of these rows.

    Raises:
        ResultsError: the run is damaged.
        StaleCacheError: a stream of the cache is not that which the run was trained on.
    """
    for name, stream in record.streams.items():
        cached = cache.streams.get(name)
        if cached is None or cached.digest != stream["digest"]:
            found = "has no such stream" if cached is None else f"has digest {cached.digest[:12]}"
            raise StaleCacheError(
                f"{cache.path}: run {record.name!r} was trained on {name!r} with digest {stream['digest'][:12]}, the "
                f"cache {found}. Name the cache of the run: --cache"
            )
    trained = load_head(run_dir(runs, record.digest), device=device)
    features, status, masks = read_rows(cache, record.spec["features"]["streams"], rows)
    return RunOnRows(trained, trained.inputs(features, status, masks))


def read_rows(
    cache: Cache, names: Sequence[str], rows: Ints
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[np.uint8]], dict[str, npt.NDArray[np.uint8] | None]]:
    """Return features, status and masks of some rows by stream; only the blocks that hold them are read."""
    features, status, masks = {}, {}, {}
    for name in names:
        stream = cache.streams[name]
        stream.check_complete()
        features[name] = _read_some(stream, rows, cache.layout.block_rows)
        status[name] = stream.status[rows, 0]
        mask = stream.read_mask()
        masks[name] = None if mask is None else mask[rows]
    return features, status, masks


def _read_some(stream: CachedStream, rows: Ints, size: int) -> npt.NDArray[np.floating[Any]]:
    """Return the features of some rows, (n, *shape); blocks have `size` rows."""
    blocks = rows // size
    found: npt.NDArray[np.floating[Any]] | None = None
    for block in np.unique(blocks):
        here = blocks == block
        part = stream.read_block(int(block), dtype=np.float32)
        if found is None:
            found = np.zeros((len(rows), *part.shape[1:]), np.float32)
        found[here] = part[rows[here] - int(block) * size]
    if found is None:
        raise ValueError("no rows to read")
    return found


def check_same_answers(
    record: RunRecord, saved: npt.NDArray[np.floating[Any]], again: npt.NDArray[np.floating[Any]]
) -> None:
    """Check that the heads of a run answer as its saved predictions do, (n, C) each.

    Raises:
        ResultsError: they do not, so that an analysis would be on another model than the report.
    """
    far = float(np.abs(saved - again).max())
    if not far <= _SAME_PROBS * max(1.0, float(np.abs(saved).max())):  # numbers have any unit
        raise ResultsError(
            f"run {record.digest[:16]} ({record.name}): its heads give other outputs on the cached features than "
            f"predictions.npz has (by up to {far:.3g}). The run or the cache is damaged; train the run again"
        )
