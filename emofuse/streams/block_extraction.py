"""The rows that all streams extract from the pictures of one block, with the reason of every failed row.

Streams run here on one batch after another. Their output is checked against the contract of a stream and stored under
the rows of the block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import EmofuseError, StreamError
from emofuse.status import Status, Step
from emofuse.streams.base import Rows, Sample, SampleBatch, Stream, is_sequence, needs_of

_LARGEST_PROVEN_BYTES = 12_000_000
_STREAM_STATUSES = (Status.OK, Status.NO_DETECTION, Status.FAILED)

StreamRows = tuple[Rows, dict[int, str]]
"""The rows of one stream for a batch, and the reason of each failed one by its index."""


@dataclass(frozen=True)
class Extraction:
    """The extracted rows of one block of n pictures.

    Attributes:
        rows: stream name -> n rows in the order of the paths, features in the dtype that the spec stores.
        problems: (row, stream, reason in one line) of every row that is unreadable (stream "") or FAILED, by row.
            Rows without a path are not listed: the manifest holds their reason.
    """

    rows: dict[str, Rows]
    problems: list[tuple[int, str, str]]


def extract_all(
    streams: Mapping[str, Stream], batch: SampleBatch, faceless: Mapping[str, Mapping[int, str]]
) -> dict[str, StreamRows]:
    """Extract a batch with every stream.

    Args:
        streams: the streams by name.
        batch: the samples.
        faceless: a need out of `face`, `crop` and `blendshapes` -> index of a sample -> the reason why it could not be
            made.

    Raises:
        StreamError: a stream broke its contract or reports that it cannot run at all.
    """
    return {
        name: _extract_where_faces_are_known(
            stream,
            name,
            batch,
            {index: reason for need in needs_of(stream) for index, reason in faceless.get(need, {}).items()},
        )
        for name, stream in streams.items()
    }


def _extract_where_faces_are_known(
    stream: Stream, name: str, batch: SampleBatch, faceless: Mapping[int, str]
) -> StreamRows:
    """Extract the samples on which the face detector worked, and mark the others as FAILED."""
    if not faceless:
        return _extract(stream, name, batch)
    rows = Rows.empty_of(stream, len(batch), Status.FAILED)
    reasons = dict(faceless)
    kept = [index for index in range(len(batch)) if index not in faceless]
    if kept:
        extracted, failures = _extract(stream, name, [batch[index] for index in kept])
        rows.put(kept, extracted)
        reasons |= {kept[index]: reason for index, reason in failures.items()}
    return rows, reasons


def _extract(stream: Stream, name: str, samples: Sequence[Sample]) -> StreamRows:
    """Extract some samples with one stream. A batch that raises is extracted again row by row.

    Raises:
        StreamError: the stream broke its contract or reports that it cannot run at all.
    """
    try:
        rows = stream.extract(samples)
    except EmofuseError:
        raise
    except Exception as error:  # noqa: BLE001 - streams raise anything; one sample's failure is its row's status
        if len(samples) == 1:
            return Rows.empty_of(stream, 1, Status.FAILED), {0: one_line(error)}
    else:
        _check_contract(rows, len(samples), stream, name)
        return rows, {}
    parts = [_extract(stream, name, [sample]) for sample in samples]
    return Rows.joined([rows for rows, _ in parts]), {
        index: reasons[0] for index, (_, reasons) in enumerate(parts) if reasons
    }


def _check_contract(rows: Rows, count: int, stream: Stream, name: str) -> None:
    """Check the shapes and statuses that a stream returned. A fault here is in its code, not in a picture."""
    expected = (count, *stream.shape)
    if rows.features.shape != expected or rows.status.shape != (count,) or rows.flags.shape != (count,):
        raise StreamError(
            f"stream {name!r} returned features {rows.features.shape}, status {rows.status.shape} and flags "
            f"{rows.flags.shape} for {count} samples, expected {expected}, {(count,)} and {(count,)}"
        )
    unknown = sorted(set(rows.status.tolist()) - set(_STREAM_STATUSES))
    if unknown:
        allowed = ", ".join(f"{status.name} ({status.value})" for status in _STREAM_STATUSES)
        raise StreamError(f"stream {name!r} returned status {unknown[0]}, a stream may return {allowed}")
    _check_mask(rows, expected, stream, name)


def _check_mask(rows: Rows, shape: tuple[int, ...], stream: Stream, name: str) -> None:
    """Check that a sequence has a mask that agrees with its statuses, and that other streams have no mask."""
    if not is_sequence(stream.dimensions):
        if rows.mask is not None:
            raise StreamError(f"stream {name!r} returned a mask, which only streams with a first dimension 'time' have")
        return
    if rows.mask is None or rows.mask.shape != shape[:2]:
        returned = None if rows.mask is None else rows.mask.shape
        raise StreamError(f"stream {name!r} returned the mask {returned} for its sequences, expected {shape[:2]}")
    unknown = sorted(set(np.unique(rows.mask).tolist()) - set(Step))
    if unknown:
        allowed = ", ".join(f"{step.name} ({step.value})" for step in Step)
        raise StreamError(f"stream {name!r} returned the step {unknown[0]}, a mask may hold {allowed}")
    contradicts = (rows.status == Status.OK) != (rows.mask == Step.OK).any(axis=1)
    if contradicts.any():
        raise StreamError(
            f"stream {name!r} returned a row whose status is {Status(int(rows.status[contradicts][0])).name} and whose "
            "steps say otherwise: a row is OK exactly if one of its steps is"
        )


def store_all(extracted: Mapping[str, StreamRows], places: Sequence[int], extraction: Extraction) -> None:
    """Store the result of `extract_all` at these rows of a block."""
    for name, (rows, reasons) in extracted.items():
        _store(rows, reasons, places, name, extraction)


def fail_all(reasons: Mapping[int, str], extraction: Extraction) -> None:
    """Mark rows of a block as FAILED in all streams: their pictures were read, but no sample could be made of them."""
    for row, reason in reasons.items():
        for name, rows in extraction.rows.items():
            rows.status[row] = Status.FAILED
            extraction.problems.append((row, name, reason))


def _store(rows: Rows, reasons: dict[int, str], places: Sequence[int], name: str, extraction: Extraction) -> None:
    """Store rows in the stored dtype. A row with a value that is not finite in it is FAILED."""
    target = extraction.rows[name]
    with np.errstate(over="ignore", invalid="ignore"):
        features = rows.features.astype(target.features.dtype)
    status = rows.status.copy()
    mask = None if rows.mask is None else rows.mask.astype(np.uint8)
    if mask is not None:
        features[mask != Step.OK] = 0
    _fail_not_finite(features, status, reasons)
    features[status != Status.OK] = 0
    if mask is not None:
        mask[status == Status.FAILED] = Step.PADDING
    target.put(places, Rows(features, status, rows.flags, mask))
    for index in np.flatnonzero(status == Status.FAILED).tolist():
        reason = reasons.get(index, "the stream reports that it failed on this picture")
        extraction.problems.append((places[index], name, reason))


def _fail_not_finite(
    features: npt.NDArray[np.floating[Any]], status: npt.NDArray[np.uint8], reasons: dict[int, str]
) -> None:
    broken = (status == Status.OK) & ~np.isfinite(features).all(axis=tuple(range(1, features.ndim)))
    status[broken] = Status.FAILED
    reasons.update(dict.fromkeys(np.flatnonzero(broken).tolist(), f"features are not finite as {features.dtype}"))


def all_failed(extraction: Extraction) -> Iterator[tuple[str, int, str]]:
    """Yield every stream that failed on all readable pictures of a block, at least two of them.

    Yields:
        The stream's name, the number of readable pictures, and the reason of the first failure.
    """
    for name, rows in extraction.rows.items():
        readable = int((rows.status != Status.UNREADABLE).sum())
        if readable >= 2 and readable == int((rows.status == Status.FAILED).sum()):
            yield name, readable, next(reason for _, stream, reason in extraction.problems if stream == name)


class ProvenPictures:
    """One picture a stream on which it has worked: it distinguishes bad pictures from a broken stream.

    A stream may refuse some pictures (small ones, grey ones), and these often fill a whole block. If the GPU is lost or
    its memory is full, the stream also fails on a picture on which it worked before.
    """

    def __init__(self) -> None:
        self._samples: dict[str, Sample] = {}

    def learn(self, batch: SampleBatch, extracted: Mapping[str, StreamRows]) -> None:
        """Keep the first picture of each stream that is OK and not large."""
        for name, (rows, _) in extracted.items():
            if name not in self._samples:
                good = (batch[index] for index in np.flatnonzero(rows.status == Status.OK).tolist())
                small = next((sample for sample in good if sample_bytes(sample) <= _LARGEST_PROVEN_BYTES), None)
                if small is not None:
                    self._samples[name] = small

    def check(self, streams: Mapping[str, Stream], extraction: Extraction) -> None:
        """Run the streams that failed on a whole block on their proven pictures.

        Raises:
            StreamError: a stream fails on its proven picture too.
        """
        for name, count, first in all_failed(extraction):
            if name not in self._samples:
                continue  # the build decides: it knows more than one block
            rows, reasons = _extract(streams[name], name, [self._samples[name]])
            if rows.status[0] == Status.FAILED:
                again = reasons.get(0, "the stream reports that it failed")
                raise StreamError(
                    f"stream {name!r} failed on all {count} readable pictures of a block; first: {first}. "
                    f"The stream is broken: it also fails on a picture on which it worked before ({again})"
                )


def sample_bytes(sample: Sample) -> int:
    """Return the bytes that a sample takes in memory: its picture, its sound and its frames."""
    sound = 0 if sample.sound is None else sample.sound.samples.nbytes
    frames = () if sample.clip is None else sample.clip.frames
    return sample.image.nbytes + sound + sum(frame.nbytes for frame in frames)


def one_line(error: Exception) -> str:
    """Return an error's type and message in one line of limited length."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
