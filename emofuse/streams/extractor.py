"""The way from paths to rows: each picture is decoded once, and its face found once, for all streams.

A failure on one picture, in any step, costs the status of that row and nothing else. A stream that fails on every
picture of a block runs again on a picture on which it worked before: if it fails there too, it raises.

Networks on a GPU have a thread of their own. Meanwhile the CPU computes the other streams, decodes the next pictures
and finds their faces.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from emofuse.errors import DecodeError
from emofuse.media.decode import read_image
from emofuse.media.views import apply_view, draw_view
from emofuse.specs import CacheSpec, StreamSpec
from emofuse.status import Status
from emofuse.streams import make_stream, may_use_gpu
from emofuse.streams.base import Rows, Sample, SampleBatch, Stream, needs_of
from emofuse.streams.block_extraction import (
    Extraction,
    ProvenPictures,
    StreamRows,
    extract_all,
    fail_all,
    one_line,
    store_all,
)
from emofuse.streams.faces import make_face_detector

OnReadRow = Callable[[int, os.stat_result, bytes], None]
"""Called with the index of a row, the status of its file, taken before it was read, and its bytes."""

# A micro-batch ends at either bound: its decoded pictures take about 200 MB and the networks' intermediate results
# less than 100, for every block size. Memory holds one micro-batch, or two where a GPU works on one while the next is
# decoded. The bounds depend on the pictures alone, so that a block is divided in the same places every time.
_BATCH_SAMPLES = 64
_BATCH_PIXELS = 64_000_000


@dataclass
class _Pictures:
    """The decoded pictures of a micro-batch and their rows in the block."""

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
    """The open streams of a cache spec, for any number of blocks. Two threads must not use it at once.

    Example:
        >>> with Extractor(spec.streams, spec, device="cpu") as extractor:
        ...     extraction = extractor.extract(paths)

    Raises:
        StreamError: a stream or the face detector cannot run on this machine.
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
            needs_face = any("face" in needs_of(stream) for stream in self._streams.values())
            self._detector = opened.enter_context(closing(make_face_detector(cache_spec.face))) if needs_face else None
            on_gpu = {spec.name for spec in streams if device != "cpu" and may_use_gpu(spec)}
            self._on_gpu = {name: stream for name, stream in self._streams.items() if name in on_gpu}
            self._on_cpu = {name: stream for name, stream in self._streams.items() if name not in on_gpu}
            self._gpu_thread = opened.enter_context(ThreadPoolExecutor(1)) if on_gpu else None
            self._proven = ProvenPictures()
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release models and native threads. The extractor is not used afterwards. A second call does nothing."""
        self._opened.close()

    @property
    def streams(self) -> dict[str, Stream]:
        """The open streams by name."""
        return dict(self._streams)

    def extract(self, paths: Sequence[Path | None]) -> Extraction:
        """Extract the rows of one block of n >= 0 pictures without augmentation.

        Args:
            paths: the files; None for a bad row of the manifest, which is UNREADABLE.

        Raises:
            StreamError: a stream failed on every readable row of the block (two or more) and on a picture on which it
                worked before, broke its contract, or reports that it cannot run at all.
        """
        return self.extract_views(paths, [""] * len(paths), [0])[0]

    def extract_views(
        self,
        paths: Sequence[Path | None],
        sample_ids: Sequence[str],
        views: Sequence[int],
        on_read: OnReadRow | None = None,
    ) -> dict[int, Extraction]:
        """Extract the rows of one block for several views. Each picture is decoded once for all of them.

        The rows of a view do not depend on the other views of the call.

        Args:
            paths: the n files; None for a bad row of the manifest, which is UNREADABLE.
            sample_ids: the n ids of the manifest, which decide the random draws of the views.
            views: the numbers of the views; 0 is the picture itself (see `emofuse.media.views`).
            on_read: receives every file that was read, also those that cannot be decoded.

        Raises:
            StreamError: for the reasons given at `extract`.
        """
        extractions = {view: self._unread(len(paths)) for view in views}
        pictures = _Pictures()
        finish = _nothing
        for row, path in enumerate(paths):
            if path is not None:
                self._read(row, path, pictures, extractions.values(), on_read)
            if pictures.full or row == len(paths) - 1:
                for view, extraction in extractions.items():
                    before, finish = finish, self._start(pictures, sample_ids, view, extraction)
                    before()
                pictures = _Pictures()
        finish()
        for extraction in extractions.values():
            extraction.problems.sort()
            self._proven.check(self._streams, extraction)
        return extractions

    def _unread(self, count: int) -> Extraction:
        rows = {
            name: Rows.empty_of(stream, count, Status.UNREADABLE, self._specs[name].dtype)
            for name, stream in self._streams.items()
        }
        return Extraction(rows, [])

    def _read(
        self,
        row: int,
        path: Path,
        pictures: _Pictures,
        extractions: Iterable[Extraction],
        on_read: OnReadRow | None,
    ) -> None:
        """Decode one picture and add it to the others."""
        try:
            image = read_image(path, self._decode, None if on_read is None else partial(on_read, row))
        except DecodeError as error:
            for extraction in extractions:
                extraction.problems.append((row, "", str(error)))
            return
        pictures.add(row, image)

    def _start(
        self, pictures: _Pictures, sample_ids: Sequence[str], view: int, extraction: Extraction
    ) -> Callable[[], None]:
        """Run every stream on one view of some pictures and store the results under their rows.

        Returns:
            A function that waits for the streams on the GPU and stores their results.
        """
        rows, batch, faceless = self._batch(pictures, sample_ids, view, extraction)
        if not batch:
            return _nothing
        waiting = self._gpu_thread.submit(extract_all, self._on_gpu, batch, faceless) if self._gpu_thread else None
        self._store(extract_all(self._on_cpu, batch, faceless), rows, batch, extraction)
        if waiting is None:
            return _nothing
        return lambda: self._store(waiting.result(), rows, batch, extraction)

    def _store(
        self, extracted: dict[str, StreamRows], rows: Sequence[int], batch: SampleBatch, extraction: Extraction
    ) -> None:
        self._proven.learn(batch, extracted)
        store_all(extracted, rows, extraction)

    def _batch(
        self, pictures: _Pictures, sample_ids: Sequence[str], view: int, extraction: Extraction
    ) -> tuple[list[int], SampleBatch, dict[int, str]]:
        """Make the samples of one view: augment the pictures and find their faces.

        A picture whose view cannot be made is left out and marked: OpenCV rotates none with a side over 32,766 pixels.

        Returns:
            The rows of the samples, the samples, and index of a sample -> reason why the face detector failed on it.
        """
        rows: list[int] = []
        samples, unmade, failures = [], {}, {}
        for row, image in zip(pictures.rows, pictures.images, strict=True):
            try:
                shown = apply_view(image, draw_view(self._augment, sample_ids[row], view)) if view else image
            except Exception as error:  # noqa: BLE001 - native code; one picture's failure is its row's status
                unmade[row] = f"view: {one_line(error)}"
                continue
            face = None
            if self._detector is not None:
                try:
                    face = self._detector.detect(shown)
                except Exception as error:  # noqa: BLE001 - as above
                    failures[len(rows)] = f"face detection: {one_line(error)}"
            rows.append(row)
            samples.append(Sample(shown, face))
        fail_all(unmade, extraction)
        return rows, SampleBatch(samples), failures


def _nothing() -> None:
    """Do nothing: no stream runs on a GPU."""
