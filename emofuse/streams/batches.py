"""Micro-batches: the streams run on pictures, and on whole clips, of one view at a time.

Networks on a GPU have a thread of their own. Meanwhile the CPU computes the other streams, decodes the next pictures
and finds their faces.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from emofuse.media.clip import Clip
from emofuse.media.sound_views import apply_sound_view, draw_sound_view
from emofuse.media.views import View, apply_view, box_of_view, draw_view, view_matrix
from emofuse.specs import CacheSpec
from emofuse.specs.streams import OF_FACES, looks_at_faces
from emofuse.streams.base import Face, Sample, SampleBatch, Stream, needs_of
from emofuse.streams.block_extraction import (
    Extraction,
    ProvenPictures,
    StreamRows,
    extract_all,
    fail_all,
    one_line,
    sample_bytes,
    store_all,
)
from emofuse.streams.faces import crop_face, make_face_detector
from emofuse.streams.over_time import VISIBLE
from emofuse.streams.tracking import FaceTracker

# A micro-batch ends at either bound: its decoded pictures take about 200 MB and the networks' intermediate results
# less than 100, for every block size. Memory holds one micro-batch, or two where a GPU works on one while the next is
# decoded. The bounds depend on the pictures alone, so that a block is divided in the same places every time.
_BATCH_SAMPLES = 64
_BATCH_PIXELS = 64_000_000


@dataclass
class PictureBatch:
    """The decoded pictures of a micro-batch.

    Attributes:
        places: their places in the block: row * frames of a clip + frame.
        times_s: the times of frames in their clips, in seconds; 0 for pictures.
        images: the pictures, (H, W, 3) uint8 RGB.
        pixels: the sum of their pixels.
        boxes: the left, top, right and bottom of the face that is meant, (4,) float32; None where the spec chooses.
        faces: index of a picture -> the face in it, or why the detector failed: found once for the crops of all views.
    """

    places: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    pixels: int = 0
    boxes: list[npt.NDArray[np.float32] | None] = field(default_factory=list)
    faces: dict[int, Face | Exception | None] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether the streams should run now."""
        return len(self.places) >= _BATCH_SAMPLES or self.pixels >= _BATCH_PIXELS

    def add(
        self, place: int, time_s: float, image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32] | None = None
    ) -> None:
        """Add one picture, with the box of the face that is meant."""
        self.places.append(place)
        self.times_s.append(time_s)
        self.images.append(image)
        self.boxes.append(box)
        self.pixels += image.shape[0] * image.shape[1]


@dataclass
class ClipBatch:
    """The samples of whole clips of a micro-batch, and their rows in the block."""

    rows: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether the streams should run now."""
        return len(self.rows) >= _BATCH_SAMPLES or self.bytes >= 3 * _BATCH_PIXELS

    def add(self, row: int, sample: Sample) -> None:
        """Add one clip."""
        self.rows.append(row)
        self.samples.append(sample)
        self.bytes += sample_bytes(sample)


class BatchRunner:
    """The open streams, with the face detector and the thread of the GPU. Two threads must not use it at once.

    Args:
        streams: the open streams by name; their owner closes them.
        on_gpu: the names of those that run on a GPU.
        spec: the spec of the cache.
        device: the device of the face detector, if it can use it.

    Raises:
        StreamError: the face detector cannot run on this machine.
        WeightsError: its model is missing.
    """

    def __init__(
        self, streams: Mapping[str, Stream], on_gpu: set[str], spec: CacheSpec, *, device: str = "cpu"
    ) -> None:
        self._streams = streams
        self._augment = spec.augment
        self._face = spec.face
        self._steps = 1 if spec.clip is None else spec.clip.frames
        self._is_of_clips = spec.clip is not None
        visible = {name: stream for name, stream in streams.items() if needs_of(stream) & VISIBLE}
        self._of_clips = {name: stream for name, stream in streams.items() if name not in visible}
        self._on_gpu = {name: stream for name, stream in visible.items() if name in on_gpu}
        self._on_cpu = {name: stream for name, stream in visible.items() if name not in on_gpu}
        self._trackers: dict[int, FaceTracker] = {}
        self._proven = ProvenPictures()
        with ExitStack() as opened:
            self._needs: frozenset[str] = frozenset().union(*map(needs_of, streams.values()))
            self._detector = (
                opened.enter_context(closing(make_face_detector(spec.face, self._needs, device=device)))
                if looks_at_faces(self._needs)
                else None
            )
            opened.callback(self._close_trackers)
            self._gpu_thread = opened.enter_context(ThreadPoolExecutor(1)) if on_gpu else None
            self._opened = opened.pop_all()

    def of_streams(self, names: Collection[str]) -> Self:
        """Return a runner of some of the streams, which shares all that is open. Only the whole one is closed."""
        streams = _of(names, self._streams)
        needs: frozenset[str] = frozenset().union(*map(needs_of, streams.values()))
        part = copy.copy(self)
        vars(part).update(
            _streams=streams,
            _of_clips=_of(names, self._of_clips),
            _on_gpu=_of(names, self._on_gpu),
            _on_cpu=_of(names, self._on_cpu),
            _needs=needs,
            _detector=self._detector if looks_at_faces(needs) else None,
        )
        return part

    @property
    def face_runtime(self) -> str | None:
        """What computes the network of the face detector; None without a detector that has one."""
        return None if self._detector is None else self._detector.runtime

    @property
    def of_pictures(self) -> list[str]:
        """The names of the streams that see single pictures."""
        return [*self._on_cpu, *self._on_gpu]

    @property
    def of_clips(self) -> list[str]:
        """The names of the streams that see or hear whole clips."""
        return list(self._of_clips)

    def sees(self, name: str) -> bool:
        """Return whether a stream needs pictures or frames."""
        return bool(needs_of(self._streams[name]) - {"audio"})

    def hears(self, name: str) -> bool:
        """Return whether a stream needs the sound."""
        return "audio" in needs_of(self._streams[name])

    def close(self) -> None:
        """Release native threads and graphs. A second call does nothing."""
        self._opened.close()

    def check(self, extraction: Extraction) -> None:
        """Raise if a stream fails on a whole block and on a picture on which it has worked.

        Raises:
            StreamError: a stream does.
        """
        self._proven.check(self._streams, extraction)

    def start_block(self) -> None:
        """Forget the faces of the last block: the clips of the next one are others."""
        for tracker in self._trackers.values():
            tracker.forget()

    def start_pictures(
        self, pictures: PictureBatch, sample_ids: Sequence[str], view: int, extraction: Extraction
    ) -> Callable[[], None]:
        """Run every stream of pictures on one view of some pictures and store the results under their places.

        Returns:
            A function that waits for the streams on the GPU and stores their results.
        """
        places, batch, faceless = self._batch(pictures, sample_ids, view, extraction)
        if not batch:
            return nothing
        waiting = self._gpu_thread.submit(extract_all, self._on_gpu, batch, faceless) if self._gpu_thread else None
        self._store(extract_all(self._on_cpu, batch, faceless), places, batch, extraction)
        if waiting is None:
            return nothing
        return lambda: self._store(waiting.result(), places, batch, extraction)

    def run_clips(self, clips: ClipBatch, sample_ids: Sequence[str], view: int, extraction: Extraction) -> None:
        """Run every stream of whole clips on one view of some clips and store the results under their rows."""
        rows, samples, unmade = [], [], {}
        for row, sample in zip(clips.rows, clips.samples, strict=True):
            try:
                samples.append(self._view_of_clip(sample, sample_ids[row], view))
            except Exception as error:  # noqa: BLE001 - native code; one clip's failure is its row's status
                unmade[row] = f"view: {one_line(error)}"
            else:
                rows.append(row)
        fail_all(unmade, extraction)
        if samples:
            batch = SampleBatch(samples)
            for kinds in (frozenset({"audio"}), frozenset({"frames"}), frozenset({"audio", "frames"})):
                self._run_on_those_with(kinds, batch, rows, extraction)

    def _run_on_those_with(
        self, needs: frozenset[str], batch: SampleBatch, rows: Sequence[int], extraction: Extraction
    ) -> None:
        """Run the streams with these needs on the clips that have all of them; the others stay UNREADABLE."""
        streams = {name: stream for name, stream in self._of_clips.items() if needs_of(stream) == needs}
        has = [
            ("audio" not in needs or sample.sound is not None) and ("frames" not in needs or sample.clip is not None)
            for sample in batch
        ]
        if not streams or not any(has):
            return
        kept = (
            batch
            if all(has)
            else SampleBatch([sample for sample, is_whole in zip(batch, has, strict=True) if is_whole])
        )
        places = [row for row, is_whole in zip(rows, has, strict=True) if is_whole]
        extracted = (
            self._gpu_thread.submit(extract_all, streams, kept, {}).result()
            if self._gpu_thread
            else extract_all(streams, kept, {})
        )
        self._store(extracted, places, kept, extraction)

    def _view_of_clip(self, sample: Sample, sample_id: str, view: int) -> Sample:
        """Return the view of a clip: one draw for all of its frames, and one for its sound."""
        if not view:
            return sample
        sound, clip = sample.sound, sample.clip
        if sound is not None:
            sound = apply_sound_view(sound, draw_sound_view(self._augment.sound, self._augment.seed, sample_id, view))
        if clip is not None:
            drawn = draw_view(self._augment, sample_id, view)
            clip = Clip(tuple(apply_view(frame, drawn) for frame in clip.frames), clip.times_s)
        return Sample(sound=sound, clip=clip)

    def _store(
        self, extracted: dict[str, StreamRows], places: Sequence[int], batch: SampleBatch, extraction: Extraction
    ) -> None:
        self._proven.learn(batch, extracted)
        store_all(extracted, places, extraction)

    def _batch(
        self, pictures: PictureBatch, sample_ids: Sequence[str], view: int, extraction: Extraction
    ) -> tuple[list[int], SampleBatch, dict[str, dict[int, str]]]:
        """Make the samples of one view: augment the pictures, find their faces and align them.

        A picture whose view cannot be made is left out and marked: OpenCV rotates none with a side over 32,766 pixels.

        Returns:
            The places of the samples, the samples, and need -> index of a sample -> reason why its face, or the aligned
            face, could not be made.
        """
        places: list[int] = []
        samples, unmade = [], {}
        failures: dict[str, dict[int, str]] = {need: {} for need in OF_FACES}
        for index, (place, image) in enumerate(zip(pictures.places, pictures.images, strict=True)):
            drawn = draw_view(self._augment, sample_ids[place // self._steps], view) if view else None
            try:
                sample = Sample(image if drawn is None else apply_view(image, drawn))
            except Exception as error:  # noqa: BLE001 - native code; one picture's failure is its row's status
                unmade[place] = f"view: {one_line(error)}"
                continue
            if self._detector is not None:
                sample, reasons = self._with_face(sample, pictures, index, view, drawn)
                for need, reason in reasons.items():
                    failures[need][len(places)] = reason
            places.append(place)
            samples.append(sample)
        fail_all(unmade, extraction)
        return places, SampleBatch(samples), failures

    def _with_face(
        self, sample: Sample, pictures: PictureBatch, index: int, view: int, drawn: View | None
    ) -> tuple[Sample, dict[str, str]]:
        """Add the face and the aligned face to a sample.

        The face is that of the view. The aligned face is made from the picture itself, and turned and shifted by the
        draw of the view: alignment would undo a turn or shift of the picture. Mirroring is the same in both.

        Returns:
            The sample, and need -> the reason why it has no such part.
        """
        reasons: dict[str, str] = {}
        face: Face | Exception | None = None
        faces: tuple[Face, ...] = ()
        if self._needs & {"face", "blendshapes"}:
            face = self._face_of(pictures, index, view, sample.image, drawn)
            if isinstance(face, Exception):
                reasons = dict.fromkeys(("face", "blendshapes"), f"face detection: {one_line(face)}")
        if "faces" in self._needs and self._detector is not None:
            try:
                faces = tuple(self._detector.find_all(sample.image))
            except Exception as error:  # noqa: BLE001 - as in _face_of
                reasons["faces"] = f"face detection: {one_line(error)}"
        crop = None
        if "crop" in self._needs:
            try:
                crop = self._crop(pictures, index, drawn)
            except Exception as error:  # noqa: BLE001 - as in _face_of
                of_detector = isinstance(pictures.faces.get(index), Exception)
                step = "face detection" if of_detector else "alignment of the face"
                reasons["crop"] = f"{step}: {one_line(error)}"
        with_mesh = face if isinstance(face, Face) and face.points is not None else None
        return replace(sample, face=with_mesh, crop=crop, faces=faces), reasons

    def _face_of(
        self, pictures: PictureBatch, index: int, view: int, image: npt.NDArray[np.uint8], drawn: View | None = None
    ) -> Face | Exception | None:
        """Return the face in a view of a picture, or why the detector failed. Those of view 0 are kept for crops."""
        if view == 0 and index in pictures.faces:
            return pictures.faces[index]
        face: Face | Exception | None
        try:
            box = pictures.boxes[index]
            if box is not None and drawn is not None:
                box = box_of_view(box, drawn, image.shape[1], image.shape[0])
            face = self._find_face(image, view, pictures.places[index] // self._steps, pictures.times_s[index], box)
        except Exception as error:  # noqa: BLE001 - native code; one picture's failure is its row's status
            face = error
        if view == 0:
            pictures.faces[index] = face
        return face

    def _crop(self, pictures: PictureBatch, index: int, drawn: View | None) -> npt.NDArray[np.uint8] | None:
        image = pictures.images[index]
        face = self._face_of(pictures, index, 0, image)
        if isinstance(face, Exception):
            raise face
        if face is None or (self._face.align == "mesh" and face.points is None):
            return None
        side = self._face.size_px
        crop = crop_face(image, face, self._face, None if drawn is None else view_matrix(drawn, side, side))
        crop.setflags(write=False)
        return crop

    def _find_face(
        self,
        image: npt.NDArray[np.uint8],
        view: int,
        row: int,
        time_s: float,
        box: npt.NDArray[np.float32] | None,
    ) -> Face | None:
        if self._detector is None:
            return None
        if not self._is_of_clips:
            return self._detector.detect(image, box)
        if view not in self._trackers:  # views take turns, so each follows its own faces
            self._trackers[view] = FaceTracker(self._detector, self._face, self._needs)
        return self._trackers[view].detect(image, row, time_s)

    def _close_trackers(self) -> None:
        for tracker in self._trackers.values():
            tracker.close()


def _of(names: Collection[str], streams: Mapping[str, Stream]) -> dict[str, Stream]:
    return {name: stream for name, stream in streams.items() if name in names}


def nothing() -> None:
    """Do nothing: no stream runs on a GPU."""
