"""The streams of a model on other data, checked in a cache, and the outputs of the model on all its rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from emofuse.cache.reader import Cache
from emofuse.errors import StaleCacheError
from emofuse.predict.models import ChosenModel
from emofuse.training.trained import TrainedHead

_SHORT = 12  # hex digits shown of a digest


def check_streams(cache: Cache, model: ChosenModel) -> None:
    """Check that a cache holds the streams of a model, whole and with the same digests.

    Raises:
        StaleCacheError: a stream is not in the cache, or was extracted otherwise; all such streams are named.
        IncompleteCacheError: blocks of a stream are missing.
    """
    problems = []
    for name, stream in model.record.streams.items():
        if name not in cache.streams:
            problems.append(f"{name!r} is not in the cache")
        elif cache.streams[name].digest != stream["digest"]:
            digests = [each[:_SHORT] for each in (cache.streams[name].digest, stream["digest"])]
            problems.append(f"{name!r} was extracted otherwise (digest {digests[0]}, the model has {digests[1]})")
    if problems:
        raise StaleCacheError(
            f"{cache.path}: the model has learned from other features: {'; '.join(problems)}. Give --data and another "
            "--cache, or none: the model's streams are then extracted"
        )
    for name in model.record.streams:
        cache.streams[name].check_complete()


def statuses(cache: Cache, streams: Sequence[str]) -> dict[str, npt.NDArray[np.uint8]]:
    """Return stream -> the status of every row, (N,) uint8, of the pictures themselves."""
    return {name: cache.streams[name].status[:, 0] for name in streams}


def outputs_of_rows(model: TrainedHead, cache: Cache) -> npt.NDArray[np.float32]:
    """Return the outputs (N, C) float32 of a model on all rows of a cache, of which it reads one block at a time."""
    streams = {name: cache.streams[name] for name in model.record.spec["features"]["streams"]}
    status = statuses(cache, list(streams))
    parts = []
    for block in range(cache.layout.blocks):
        rows = cache.layout.block_slice(block)
        parts.append(
            model.outputs(
                {name: stream.read_block(block, dtype="float32") for name, stream in streams.items()},
                {name: of_stream[rows] for name, of_stream in status.items()},
                {name: stream.read_mask_block(block) for name, stream in streams.items()},
            )
        )
    return np.concatenate(parts)
