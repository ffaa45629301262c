"""Predictions for the frames of a video: its faces, followed and numbered, with outputs smoothed over time.

Every frame is extracted as a picture is. A stream of the whole picture runs once for a frame, a stream of faces once
for each face. Streams can be left out; the head masks them, as it masks streams without features.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from emofuse.media.frames import NumberedFrame
from emofuse.predict.frame_faces import FrameFaces
from emofuse.predict.prediction import ActionUnit
from emofuse.predict.predictor import Predictor, missing_streams
from emofuse.predict.smoothing import Smoothing
from emofuse.predict.tracks import GAP_S, FaceTracks
from emofuse.specs.streams import looks_at_faces
from emofuse.status import Status
from emofuse.streams.base import Face, Rows, Sample, SampleBatch, needs_of
from emofuse.streams.faces import crop_face

LEFT_OUT = "left_out"
"""The reason why the head does not use a stream that was left out."""

SMOOTH_S = 0.5
"""The time constant of smoothing in seconds, unless another is asked for."""


_NumberedFace = tuple[int | None, Face | None]


@dataclass(frozen=True)
class FramePrediction:
    """The prediction for one face of a frame, or for a frame without one.

    Attributes:
        number: the number of the face in the video, from 1; None if no face was found or no stream looks at faces.
        face: the face; None as `number`.
        outputs: the outputs of the head (C,) float32; None if no stream of the run has features of the frame.
        smoothed: the outputs smoothed over time (C,) float32; None as `outputs`.
        action_units: the action units, the strongest first; () without a face.
        smoothed_units: the same smoothed over time, for display.
        missing: stream of the run -> why the head does not use it.
    """

    number: int | None
    face: Face | None
    outputs: npt.NDArray[np.float32] | None
    smoothed: npt.NDArray[np.float32] | None
    action_units: Sequence[ActionUnit]
    smoothed_units: Sequence[ActionUnit]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class PredictedFrame:
    """A frame with its predictions: one for each face, or a single one.

    Attributes:
        frame: the frame.
        predictions: the predictions, those of faces in the order of their numbers.
        seconds: step -> the seconds that it took: `detect`, each stream by its name, `head`.
    """

    frame: NumberedFrame
    predictions: tuple[FramePrediction, ...]
    seconds: Mapping[str, float]


class FramePredictor:
    """A saved run for the frames of one video after another. Two threads must not use it at once.

    Args:
        predictor: the run; its owner closes it.
        smooth_s: the time constant of smoothing in seconds; 0 for none.
        follow: whether faces are followed from frame to frame, see `FrameFaces`.
        gap_s: how long a face may be out of sight and keep its number, in seconds.
    """

    def __init__(
        self, predictor: Predictor, *, smooth_s: float = SMOOTH_S, follow: bool = True, gap_s: float = GAP_S
    ) -> None:
        self.predictor = predictor
        self._smooth_s, self._gap_s = smooth_s, gap_s
        self._streams = predictor.extractor.streams
        self._of_faces = [name for name, stream in self._streams.items() if looks_at_faces(needs_of(stream))]
        self._needs: frozenset[str] = frozenset().union(*map(needs_of, self._streams.values()))
        self._left_out: frozenset[str] = frozenset()
        self._faces = FrameFaces(predictor.spec.face, self._needs, follow=follow) if self._of_faces else None
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin with another video: its faces are new."""
        self._tracks = FaceTracks(self._gap_s)
        self._smoothing, self._of_units = Smoothing(self._smooth_s), Smoothing(self._smooth_s)
        if self._faces is not None:
            self._faces.start()

    def close(self) -> None:
        """Release the face detector. A second call does nothing."""
        if self._faces is not None:
            self._faces.close()

    @property
    def of_faces(self) -> tuple[str, ...]:
        """The names of the streams for which faces are detected."""
        return tuple(self._of_faces)

    @property
    def left_out(self) -> frozenset[str]:
        """The streams that do not run."""
        return self._left_out

    def leave_out(self, names: Collection[str]) -> None:
        """Do not run these streams from now on; the head masks them."""
        self._left_out = frozenset(names)

    def predict(self, frame: NumberedFrame) -> PredictedFrame:
        """Predict one frame, whose time is not before that of the last one of its video."""
        seconds: dict[str, float] = {}
        faces: list[Face] = []
        if self._faces is not None and not self._left_out.issuperset(self._of_faces):
            with _timed(seconds, "detect"):
                faces = self._faces.find(frame.image, frame.time_s)
        numbers = self._tracks.update([face.box for face in faces], frame.time_s)
        order = np.argsort(numbers, kind="stable")
        faces, numbers = [faces[index] for index in order], [numbers[index] for index in order]
        rows = self._rows(frame.image, faces, seconds)
        with _timed(seconds, "head"):
            outputs = self.predictor.outputs(rows)
        for smoothing in (self._smoothing, self._of_units):
            smoothing.keep({*self._tracks.known, None})
        of_frame: list[_NumberedFace] = list(zip(numbers, faces, strict=True)) or [(None, None)]
        predictions = tuple(
            self._describe(rows, index, outputs[index], frame.time_s, face) for index, face in enumerate(of_frame)
        )
        return PredictedFrame(frame, predictions, seconds)

    def _rows(self, image: npt.NDArray[np.uint8], faces: Sequence[Face], seconds: dict[str, float]) -> dict[str, Rows]:
        """Return the rows of every stream, one for each face, or a single one."""
        count = max(1, len(faces))
        with _timed(seconds, "align"):
            of_faces = SampleBatch([self._sample(image, face) for face in faces] or [Sample(image)])
        of_picture = of_faces if count == 1 else SampleBatch([Sample(image)])
        rows = {}
        for name, stream in self._streams.items():
            if name in self._left_out:
                dtype = self.predictor.extractor.stored_dtype(name)
                rows[name] = Rows.empty_of(stream, count, Status.NO_DETECTION, dtype)
                continue
            with _timed(seconds, name):
                batch = of_faces if name in self._of_faces else of_picture
                extracted = self.predictor.extractor.extract_samples(batch, [name]).rows[name]
            rows[name] = extracted if len(batch) == count else Rows.joined([extracted] * count)
        return rows

    def _sample(self, image: npt.NDArray[np.uint8], face: Face) -> Sample:
        spec = self.predictor.spec.face
        crop = None
        if "crop" in self._needs and (spec.align != "mesh" or face.points is not None):
            crop = crop_face(image, face, spec)
            crop.setflags(write=False)
        return Sample(image, face=face if face.points is not None else None, crop=crop)

    def _describe(
        self, rows: Mapping[str, Rows], index: int, outputs: npt.NDArray[np.float32], time_s: float, face: _NumberedFace
    ) -> FramePrediction:
        number, found = face
        record = self.predictor.record
        missing = missing_streams(record, {name: Status(rows[name].status[index]) for name in record.streams})
        missing |= dict.fromkeys(self._left_out & record.streams.keys(), LEFT_OUT)
        units = self.predictor.action_units(rows, index)
        shown = self._smoothed_units(number, time_s, units)
        if missing.keys() >= record.streams.keys():
            return FramePrediction(number, found, None, None, units, shown, missing)
        smoothed = self._smoothing.update(number, time_s, outputs)
        return FramePrediction(number, found, outputs, smoothed, units, shown, missing)

    def _smoothed_units(self, number: int | None, time_s: float, units: Sequence[ActionUnit]) -> tuple[ActionUnit, ...]:
        """Return the action units of a face smoothed over time, the strongest first."""
        if not units:
            return ()
        ordered = sorted(units, key=lambda unit: unit.name)
        values = np.array([(unit.value, np.nan if unit.activation is None else unit.activation) for unit in ordered])
        smoothed = self._of_units.update(number, time_s, values.astype(np.float32))
        shown = [
            ActionUnit(unit.name, float(value), None if unit.activation is None else float(activation))
            for unit, (value, activation) in zip(ordered, smoothed, strict=True)
        ]
        order = [unit.name for unit in units]
        has_activation = units[0].activation is not None
        by = (lambda unit: -abs(unit.activation or 0.0)) if has_activation else (lambda unit: order.index(unit.name))
        return tuple(sorted(shown, key=by))


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - began
