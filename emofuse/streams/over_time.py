"""The time axis of image streams on clips: rows of frames, folded into rows of clips.

A stream sees every frame of a clip as one picture. Here the T rows of a clip become one: a sequence with its mask, or
the mean over the frames with features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import StreamError
from emofuse.specs import ClipSpec, StreamSpec
from emofuse.status import Status, Step
from emofuse.streams.base import TIME, Rows, Stream, is_sequence, needs_of

VERSION = 1
"""The version of the folding, part of a stream's digest. It rises when the same frames give another row."""

VISIBLE = frozenset({"image", "face", "crop", "blendshapes", "faces"})
"""What a stream may need to run on single pictures, and so on every frame of a clip."""


@dataclass(frozen=True)
class StoredStream:
    """What is stored of an open stream: its own rows, or those with a time axis.

    Attributes:
        shape: the shape of a stored row.
        dimensions: the names of its axes.
        flag_names: the names of the bits of its flags.
        columns: the names of the values along the last axis; () if they have none.
        steps: the number of frames of a clip that are folded into a row; None for a stream that is stored as it is.
        is_mean: whether their mean is stored instead of the sequence.
    """

    shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    flag_names: tuple[str, ...]
    columns: tuple[str, ...]
    steps: int | None = None
    is_mean: bool = False


def stored_stream(stream: Stream, spec: StreamSpec, clip: ClipSpec | None) -> StoredStream:
    """Return what is stored of a stream.

    Raises:
        StreamError: the stream cannot run on clips, or only on clips.
    """
    own = (tuple(stream.flag_names), tuple(stream.columns))
    needs = needs_of(stream)
    if needs & VISIBLE and needs - VISIBLE:
        raise StreamError(
            f"stream {spec.name!r} needs {', '.join(sorted(needs))}: a stream sees single pictures (image, face, "
            "crop, blendshapes, faces), or whole clips (frames, audio), not both"
        )
    if clip is None and "frames" in needs:
        raise StreamError(
            f"stream {spec.name!r} needs the frames of clips: set `clip: {{frames: 16}}` in the cache spec"
        )
    if clip is None or not needs & VISIBLE:
        return StoredStream(stream.shape, stream.dimensions, *own)
    if is_sequence(stream.dimensions):
        raise StreamError(f"stream {spec.name!r} gives sequences of a picture: it cannot have a second axis of time")
    if spec.variants and spec.stored_shape is None:
        raise StreamError(
            f"stream {spec.name!r} has variants, which are derived for each frame of a clip: "
            f"{type(spec).__name__} must declare its stored_shape"
        )
    if clip.over_time == "mean":
        return StoredStream(stream.shape, stream.dimensions, *own, steps=clip.frames, is_mean=True)
    return StoredStream((clip.frames, *stream.shape), (TIME, *stream.dimensions), *own, steps=clip.frames)


def folded(
    stored: StoredStream, frames: Rows, dtype: npt.DTypeLike, unreadable: Collection[int]
) -> tuple[Rows, Sequence[int]]:
    """Fold the rows of the frames of n clips.

    A clip is OK if the stream has features of one of its frames. It is FAILED if the stream failed on a frame, so that
    no frame is lost in silence, and UNREADABLE if it has no frame or is among `unreadable`.

    Args:
        stored: what is stored of the stream, with `steps` T.
        frames: the rows of n * T frames, clip after clip; those behind the last frame of a clip are UNREADABLE.
        dtype: the stored dtype.
        unreadable: the clips whose decoding ended with an error.

    Returns:
        The n rows, and the rows that are FAILED because their mean is not finite in the stored dtype.
    """
    steps = stored.steps or 1
    of_frames = frames.status.reshape(-1, steps)
    status = _status(of_frames)
    status[list(unreadable)] = Status.UNREADABLE
    shown = (of_frames == Status.OK) & (status == Status.OK)[:, None]
    flags = np.bitwise_or.reduce(np.where(shown, frames.flags.reshape(-1, steps), 0), axis=1).astype(np.uint8)
    features = frames.features.reshape(-1, steps, *frames.features.shape[1:])
    if not stored.is_mean:
        features[~shown] = 0
        mask = np.full(of_frames.shape, Step.PADDING, dtype=np.uint8)
        has_steps = np.isin(status, (Status.OK, Status.NO_DETECTION))[:, None]
        mask[(of_frames == Status.NO_DETECTION) & has_steps] = Step.NO_DETECTION
        mask[shown] = Step.OK
        return Rows(features.astype(dtype, copy=False), status, flags, mask), ()
    mean, broken = _mean(features, shown, dtype)
    status[broken] = Status.FAILED
    flags[broken] = 0
    return Rows(mean, status, flags), np.flatnonzero(broken).tolist()


def _status(of_frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the status of n clips from those of their frames (n, T)."""
    status = np.full(len(of_frames), Status.UNREADABLE, dtype=np.uint8)
    for each in (Status.NO_DETECTION, Status.OK, Status.FAILED):  # the last one that occurs counts
        status[(of_frames == each).any(axis=1)] = each
    return status


def _mean(
    features: npt.NDArray[np.floating[Any]], shown: npt.NDArray[np.bool_], dtype: npt.DTypeLike
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]:
    """Return the means over the frames that count, and which of them are not finite in the stored dtype."""
    counts = shown.sum(axis=1)
    weights = shown / np.maximum(counts, 1)[:, None]
    sums = np.einsum("nt,nt...->n...", weights, features.astype(np.float64, copy=False), optimize=False)
    with np.errstate(over="ignore", invalid="ignore"):
        mean: npt.NDArray[np.floating[Any]] = sums.astype(dtype)
    broken = ~np.isfinite(mean).all(axis=tuple(range(1, mean.ndim)))
    mean[broken] = 0
    return mean, broken
