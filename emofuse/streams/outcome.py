"""What a stream makes of a batch, filed under its rows: its contract checked, and why each row that failed did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import EmofuseError, StreamError
from emofuse.status import Status, Step
from emofuse.streams.base import Batch, Rows, Sample, Stream, dimensions_of, is_sequence, shape_of

_LARGEST_PROVEN_BYTES = 12_000_000
_STREAM_STATUSES = (Status.OK, Status.NO_DETECTION, Status.FAILED)


@dataclass(frozen=True)
class Extraction:
    """What one block of n pictures gave.

    Attributes:
        rows: stream name -> n rows in the order of the paths, features in the dtype that the spec stores.
        problems: (row, stream, reason in one line) of every row that is unreadable (stream "") or FAILED, by row.
            Rows without a path are not listed: their manifest says why.
    """

    rows: dict[str, Rows]
    problems: list[tuple[int, str, str]]


def extract_all(
    streams: Mapping[str, Stream], batch: Batch, faceless: Mapping[int, str]
) -> dict[str, tuple[Rows, dict[int, str]]]:
    """Stream -> its rows of a batch, and why each that failed did, the detector's failures included."""
    return {
        name: _extract_seen(stream, name, batch, faceless if stream.needs_face else {})
        for name, stream in streams.items()
    }


def _extract_seen(stream: Stream, name: str, batch: Batch, faceless: Mapping[int, str]) -> tuple[Rows, dict[int, str]]:
    if not faceless:
        return _extract(stream, name, batch)
    rows = Rows.empty_of(stream, len(batch), Status.FAILED)
    reasons = dict(faceless)
    kept = [index for index in range(len(batch)) if index not in faceless]
    if kept:
        found, own = _extract(stream, name, [batch[index] for index in kept])
        rows.put(kept, found)
        reasons |= {kept[index]: reason for index, reason in own.items()}
    return rows, reasons


def _extract(stream: Stream, name: str, samples: Sequence[Sample]) -> tuple[Rows, dict[int, str]]:
    """One stream's rows of some samples, and the reason of each that failed. A batch that raises is tried row by row.

    Raises:
        StreamError: the stream broke its contract or says that it cannot run at all.
    """
    try:
        found = stream.extract(samples)
    except EmofuseError:
        raise
    except Exception as error:  # noqa: BLE001 - a stream raises what it likes; one sample's failure is its row's status
        if len(samples) == 1:
            return Rows.empty_of(stream, 1, Status.FAILED), {0: one_line(error)}
    else:
        _check_contract(found, len(samples), stream, name)
        return found, {}
    parts = [_extract(stream, name, [sample]) for sample in samples]
    return Rows.joined([rows for rows, _ in parts]), {
        index: reasons[0] for index, (_, reasons) in enumerate(parts) if reasons
    }


def _check_contract(rows: Rows, count: int, stream: Stream, name: str) -> None:
    """Shapes and statuses of what a stream returned: a fault here is in its code, not in a picture."""
    wanted = (count, *shape_of(stream))
    if rows.features.shape != wanted or rows.status.shape != (count,) or rows.flags.shape != (count,):
        raise StreamError(
            f"stream {name!r} returned features {rows.features.shape}, status {rows.status.shape} and flags "
            f"{rows.flags.shape} for {count} samples, expected {wanted}, {(count,)} and {(count,)}"
        )
    strange = sorted(set(rows.status.tolist()) - set(_STREAM_STATUSES))
    if strange:
        allowed = ", ".join(f"{status.name} ({status.value})" for status in _STREAM_STATUSES)
        raise StreamError(f"stream {name!r} returned status {strange[0]}, a stream may return {allowed}")
    _check_mask(rows, wanted, stream, name)


def _check_mask(rows: Rows, shape: tuple[int, ...], stream: Stream, name: str) -> None:
    """A sequence has a mask that fits its statuses, and nothing else has one."""
    if not is_sequence(dimensions_of(stream)):
        if rows.mask is not None:
            raise StreamError(f"stream {name!r} returned a mask, which only streams with a first dimension 'time' have")
        return
    if rows.mask is None or rows.mask.shape != shape[:2]:
        found = None if rows.mask is None else rows.mask.shape
        raise StreamError(f"stream {name!r} returned the mask {found} for its sequences, expected {shape[:2]}")
    strange = sorted(set(np.unique(rows.mask).tolist()) - set(Step))
    if strange:
        allowed = ", ".join(f"{step.name} ({step.value})" for step in Step)
        raise StreamError(f"stream {name!r} returned the step {strange[0]}, a mask may hold {allowed}")
    contradicts = (rows.status == Status.OK) != (rows.mask == Step.OK).any(axis=1)
    if contradicts.any():
        raise StreamError(
            f"stream {name!r} returned a row whose status is {Status(int(rows.status[contradicts][0])).name} and whose "
            "steps say otherwise: a row is OK exactly if one of its steps is"
        )


def store_all(found: Mapping[str, tuple[Rows, dict[int, str]]], rows: Sequence[int], extraction: Extraction) -> None:
    """Files what `extract_all` gave under these rows of a block."""
    for name, (of_stream, reasons) in found.items():
        _store(of_stream, reasons, rows, name, extraction)


def fail_all(reasons: Mapping[int, str], extraction: Extraction) -> None:
    """Marks rows of a block that no stream could be given, though their pictures could be read."""
    for row, reason in reasons.items():
        for name, rows in extraction.rows.items():
            rows.status[row] = Status.FAILED
            extraction.problems.append((row, name, reason))


def _store(found: Rows, reasons: dict[int, str], rows: Sequence[int], name: str, extraction: Extraction) -> None:
    """Files rows in their stored dtype. A value that is not finite in it fails its row."""
    target = extraction.rows[name]
    with np.errstate(over="ignore", invalid="ignore"):
        features = found.features.astype(target.features.dtype)
    status = found.status.copy()
    mask = None if found.mask is None else found.mask.astype(np.uint8)
    if mask is not None:
        features[mask != Step.OK] = 0
    _fail_not_finite(features, status, reasons)
    features[status != Status.OK] = 0
    if mask is not None:
        mask[status == Status.FAILED] = Step.PADDING
    target.put(rows, Rows(features, status, found.flags, mask))
    for index in np.flatnonzero(status == Status.FAILED).tolist():
        reason = reasons.get(index, "the stream says that it failed on this picture")
        extraction.problems.append((rows[index], name, reason))


def _fail_not_finite(
    features: npt.NDArray[np.floating[Any]], status: npt.NDArray[np.uint8], reasons: dict[int, str]
) -> None:
    broken = (status == Status.OK) & ~np.isfinite(features).all(axis=tuple(range(1, features.ndim)))
    status[broken] = Status.FAILED
    reasons.update(dict.fromkeys(np.flatnonzero(broken).tolist(), f"features are not finite as {features.dtype}"))


def all_failed(extraction: Extraction) -> Iterator[tuple[str, int, str]]:
    """Streams that failed on all readable pictures of a block, two or more: (name, how many, why on the first)."""
    for name, rows in extraction.rows.items():
        readable = int((rows.status != Status.UNREADABLE).sum())
        if readable >= 2 and readable == int((rows.status == Status.FAILED).sum()):
            yield name, readable, next(reason for _, stream, reason in extraction.problems if stream == name)


class ProvenPictures:
    """Per stream a picture that it could do: if a whole block fails, it tells bad pictures from a broken stream.

    A stream may refuse pictures of a kind (small ones, grey ones), and those lie together. But when the GPU is lost or
    its memory is full, what worked before does not any more.
    """

    def __init__(self) -> None:
        self._samples: dict[str, Sample] = {}

    def learn(self, batch: Batch, found: Mapping[str, tuple[Rows, dict[int, str]]]) -> None:
        """Keeps the first picture of each stream that is OK and not large."""
        for name, (rows, _) in found.items():
            if name not in self._samples:
                good = (batch[index] for index in np.flatnonzero(rows.status == Status.OK).tolist())
                small = next((sample for sample in good if sample.image.size <= _LARGEST_PROVEN_BYTES), None)
                if small is not None:
                    self._samples[name] = small

    def check(self, streams: Mapping[str, Stream], extraction: Extraction) -> None:
        """Tries streams that failed on a whole block on what they could do before.

        Raises:
            StreamError: one cannot do it any more.
        """
        for name, count, first in all_failed(extraction):
            if name not in self._samples:
                continue  # the build judges, which sees more than one block
            rows, reasons = _extract(streams[name], name, [self._samples[name]])
            if rows.status[0] == Status.FAILED:
                again = reasons.get(0, "it says that it failed")
                raise StreamError(
                    f"stream {name!r} failed on all {count} readable pictures of a block; first: {first}. "
                    f"It is broken: it fails on a picture that it could do before, too ({again})"
                )


def one_line(error: Exception) -> str:
    """An error's type and words, without line breaks, cut to a length."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
