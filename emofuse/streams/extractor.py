"""From paths to rows: each picture is decoded once and its face found once for all streams that look at it.

What goes wrong with one picture costs that row's status and nothing else. What goes wrong with every picture of a block
is the stream's fault, and raises.

Where networks run on a GPU, a thread of their own feeds it: meanwhile the CPU computes the other streams, and decodes
the pictures that come next and finds their faces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.decode import read_image
from emofuse.errors import DecodeError, EmofuseError, StreamError
from emofuse.specs import CacheSpec, StreamSpec
from emofuse.status import Status
from emofuse.streams import make_stream, may_use_gpu
from emofuse.streams.base import Batch, Rows, Sample, Stream
from emofuse.streams.faces import make_face_detector
from emofuse.views import apply_view, draw_view

# A micro-batch ends at either bound: decoded pictures held at once stay near 200 MB, and what networks make of them
# below 100 MB, whatever the block's size. The bounds count pictures only, so that a block is cut in the same places
# every time.
_BATCH_SAMPLES = 64
_BATCH_PIXELS = 64_000_000

_STREAM_STATUSES = (Status.OK, Status.NO_DETECTION, Status.FAILED)


@dataclass(frozen=True)
class Extraction:
    """What one block of n pictures gave.

    Attributes:
        rows: stream name -> n rows in the order of the paths, features in the dtype that the spec stores.
        problems: (row, stream, reason in one line) of every row that is unreadable (stream "") or FAILED, by row.
            Rows without a path are no news: their manifest says why.
    """

    rows: dict[str, Rows]
    problems: list[tuple[int, str, str]]


@dataclass
class _Pictures:
    """Decoded pictures on their way through the streams: rows of the block and what they show."""

    rows: list[int] = field(default_factory=list)
    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    pixels: int = 0

    @property
    def full(self) -> bool:
        return len(self.rows) >= _BATCH_SAMPLES or self.pixels >= _BATCH_PIXELS

    def add(self, row: int, image: npt.NDArray[np.uint8]) -> None:
        self.rows.append(row)
        self.images.append(image)
        self.pixels += image.shape[0] * image.shape[1]


class Extractor:
    """The streams of a cache spec, opened once, for any number of blocks. Not for use by two threads at once.

    Example:
        >>> with Extractor(spec.streams, spec, device="cpu") as extractor:
        ...     extraction = extractor.extract(paths)

    Raises:
        StreamError: a stream or the face detector cannot run here.
        WeightsError: weights are missing or damaged.
    """

    def __init__(self, streams: Sequence[StreamSpec], cache_spec: CacheSpec, *, device: str) -> None:
        self._specs = {spec.name: spec for spec in streams}
        self._decode = cache_spec.decode
        self._augment = cache_spec.augment
        with ExitStack() as opened:
            self._streams: dict[str, Stream] = {
                spec.name: opened.enter_context(closing(make_stream(spec, device=device))) for spec in streams
            }
            needs_face = any(stream.needs_face for stream in self._streams.values())
            self._detector = opened.enter_context(closing(make_face_detector(cache_spec.face))) if needs_face else None
            on_gpu = {spec.name for spec in streams if device != "cpu" and may_use_gpu(spec)}
            self._on_gpu = {name: stream for name, stream in self._streams.items() if name in on_gpu}
            self._on_cpu = {name: stream for name, stream in self._streams.items() if name not in on_gpu}
            self._feeder = opened.enter_context(ThreadPoolExecutor(1)) if on_gpu else None
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases models and native threads; the extractor is not used afterwards. A second call is harmless."""
        self._opened.close()

    @property
    def streams(self) -> dict[str, Stream]:
        """The open streams by name: their widths, flags and columns."""
        return dict(self._streams)

    def extract(self, paths: Sequence[Path | None]) -> Extraction:
        """Rows of one block of n >= 0 pictures as they are.

        Args:
            paths: the files; None for a bad row of the manifest, which is UNREADABLE.

        Raises:
            StreamError: a stream failed on every readable row of the block (two or more), broke its contract, or says
                that it cannot run at all.
        """
        return self.extract_views(paths, [""] * len(paths), [0])[0]

    def extract_views(
        self, paths: Sequence[Path | None], sample_ids: Sequence[str], views: Sequence[int]
    ) -> dict[int, Extraction]:
        """Rows of one block for some views, each picture decoded once for all of them.

        A view's rows do not depend on which others are asked for.

        Args:
            paths: n files; None for a bad row of the manifest, which is UNREADABLE.
            sample_ids: n ids of the manifest, on which the draws of views depend.
            views: their numbers; 0 is the picture itself (see `emofuse.views`).

        Raises:
            StreamError: as `extract`.
        """
        extractions = {view: self._unread(len(paths)) for view in views}
        pictures = _Pictures()
        finish = _nothing
        for row, path in enumerate(paths):
            if path is not None:
                self._read(row, path, pictures, extractions.values())
            if pictures.full or row == len(paths) - 1:
                for view, extraction in extractions.items():
                    before, finish = finish, self._start(pictures, sample_ids, view, extraction)
                    before()
                pictures = _Pictures()
        finish()
        for extraction in extractions.values():
            extraction.problems.sort()
            _check_not_all_failed(extraction)
        return extractions

    def _unread(self, count: int) -> Extraction:
        rows = {
            name: Rows.empty(count, stream.dim, self._specs[name].dtype, Status.UNREADABLE)
            for name, stream in self._streams.items()
        }
        return Extraction(rows, [])

    def _read(self, row: int, path: Path, pictures: _Pictures, extractions: Iterable[Extraction]) -> None:
        """Decodes one picture and adds it to the others."""
        try:
            image = read_image(path, self._decode)
        except DecodeError as error:
            for extraction in extractions:
                extraction.problems.append((row, "", str(error)))
            return
        pictures.add(row, image)

    def _start(
        self, pictures: _Pictures, sample_ids: Sequence[str], view: int, extraction: Extraction
    ) -> Callable[[], None]:
        """Sends one view of some pictures through every stream, and files what comes back under their rows.

        Returns:
            What waits for the GPU and files what it made. All else is done.
        """
        batch, faceless = self._batch(pictures, sample_ids, view)
        if not batch:
            return _nothing
        rows = list(pictures.rows)
        waiting = self._feeder.submit(_extract_all, self._on_gpu, batch, faceless) if self._feeder else None
        _store_all(_extract_all(self._on_cpu, batch, faceless), rows, extraction)
        if waiting is None:
            return _nothing
        return lambda: _store_all(waiting.result(), rows, extraction)

    def _batch(self, pictures: _Pictures, sample_ids: Sequence[str], view: int) -> tuple[Batch, dict[int, str]]:
        """The pictures of one view with the faces found in it, and why the detector failed on some, by their index."""
        samples, failures = [], {}
        for index, (row, image) in enumerate(zip(pictures.rows, pictures.images, strict=True)):
            shown = apply_view(image, draw_view(self._augment, sample_ids[row], view)) if view else image
            face = None
            if self._detector is not None:
                try:
                    face = self._detector.detect(shown)
                except Exception as error:  # noqa: BLE001 - native code; one picture's failure is that row's status
                    failures[index] = f"face detection: {_one_line(error)}"
            samples.append(Sample(shown, face))
        return Batch(samples), failures


def _nothing() -> None:
    """What is left to do when no GPU is waited for."""


def _extract_all(
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
    rows = Rows.empty(len(batch), stream.dim, stream.dtype, Status.FAILED)
    reasons = dict(faceless)
    kept = [index for index in range(len(batch)) if index not in faceless]
    if kept:
        found, own = _extract(stream, name, [batch[index] for index in kept])
        rows.features[kept], rows.status[kept], rows.flags[kept] = found.features, found.status, found.flags
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
            return Rows.empty(1, stream.dim, stream.dtype, Status.FAILED), {0: _one_line(error)}
    else:
        _check_contract(found, len(samples), stream, name)
        return found, {}
    parts = [_extract(stream, name, [sample]) for sample in samples]
    together = Rows(
        features=np.concatenate([rows.features for rows, _ in parts]),
        status=np.concatenate([rows.status for rows, _ in parts]),
        flags=np.concatenate([rows.flags for rows, _ in parts]),
    )
    return together, {index: reasons[0] for index, (_, reasons) in enumerate(parts) if reasons}


def _check_contract(rows: Rows, count: int, stream: Stream, name: str) -> None:
    """Shapes and statuses of what a stream returned: a fault here is in its code, not in a picture."""
    wanted = (count, stream.dim)
    if rows.features.shape != wanted or rows.status.shape != (count,) or rows.flags.shape != (count,):
        raise StreamError(
            f"stream {name!r} returned features {rows.features.shape}, status {rows.status.shape} and flags "
            f"{rows.flags.shape} for {count} samples, expected {wanted}, {(count,)} and {(count,)}"
        )
    strange = sorted(set(rows.status.tolist()) - set(_STREAM_STATUSES))
    if strange:
        allowed = ", ".join(f"{status.name} ({status.value})" for status in _STREAM_STATUSES)
        raise StreamError(f"stream {name!r} returned status {strange[0]}, a stream may return {allowed}")


def _store_all(found: Mapping[str, tuple[Rows, dict[int, str]]], rows: Sequence[int], extraction: Extraction) -> None:
    for name, (of_stream, reasons) in found.items():
        _store(of_stream, reasons, rows, name, extraction)


def _store(found: Rows, reasons: dict[int, str], rows: Sequence[int], name: str, extraction: Extraction) -> None:
    """Files rows in their stored dtype. A value that is not finite in it fails its row."""
    target = extraction.rows[name]
    with np.errstate(over="ignore", invalid="ignore"):
        features = found.features.astype(target.features.dtype)
    status = found.status.copy()
    _fail_not_finite(features, status, reasons)
    features[status != Status.OK] = 0
    target.features[rows] = features
    target.status[rows] = status
    target.flags[rows] = found.flags
    for index in np.flatnonzero(status == Status.FAILED).tolist():
        reason = reasons.get(index, "the stream says that it failed on this picture")
        extraction.problems.append((rows[index], name, reason))


def _fail_not_finite(
    features: npt.NDArray[np.floating[Any]], status: npt.NDArray[np.uint8], reasons: dict[int, str]
) -> None:
    broken = (status == Status.OK) & ~np.isfinite(features).all(axis=1)
    status[broken] = Status.FAILED
    reasons.update(dict.fromkeys(np.flatnonzero(broken).tolist(), f"features are not finite as {features.dtype}"))


def _check_not_all_failed(extraction: Extraction) -> None:
    """Two or more readable rows of a block, and a stream failed on all of them: not the pictures' fault."""
    for name, rows in extraction.rows.items():
        readable = int((rows.status != Status.UNREADABLE).sum())
        if readable >= 2 and readable == int((rows.status == Status.FAILED).sum()):
            first = next(reason for _, stream, reason in extraction.problems if stream == name)
            raise StreamError(f"stream {name!r} failed on all {readable} readable pictures of a block; first: {first}")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
