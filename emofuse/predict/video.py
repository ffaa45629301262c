"""Prediction of a whole video: frames in the order of time, each with its rows, to any number of receivers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from emofuse.errors import DecodeError
from emofuse.media.frames import FrameChoice, NumberedFrame, VideoFacts
from emofuse.predict.frames import FramePredictor, PredictedFrame
from emofuse.progress import step

Receiver = Callable[[PredictedFrame], None]


@dataclass
class FaceSummary:
    """What was predicted for one face of a video, or for its frames without faces.

    Attributes:
        number: the number of the face; None for frames without one.
        first_s: the time of its first frame.
        last_s: the time of its last frame.
        frames: the number of its frames.
        sums: the sum of the outputs over the frames that have any, (C,) float64; None if none has.
        with_outputs: the number of these frames.
    """

    number: int | None
    first_s: float
    last_s: float
    frames: int = 0
    sums: npt.NDArray[np.float64] | None = None
    with_outputs: int = 0

    @property
    def mean(self) -> npt.NDArray[np.float64] | None:
        """The mean outputs (C,), not smoothed; None without any."""
        return None if self.sums is None else self.sums / self.with_outputs


@dataclass
class VideoSummary:
    """What was predicted of a video.

    Attributes:
        frames: the number of frames.
        rows: the number of rows: faces, and frames without one.
        last_s: the time of the last frame; None without any.
        faces: the faces by number, and None for frames without one.
        problem: why the video ended early, or could not be read; None if it is whole.
        stopped: whether it was stopped by request.
    """

    frames: int = 0
    rows: int = 0
    last_s: float | None = None
    faces: dict[int | None, FaceSummary] = field(default_factory=dict)
    problem: str | None = None
    stopped: bool = False

    def add(self, predicted: PredictedFrame) -> None:
        """Count a frame."""
        time_s = predicted.frame.time_s
        self.frames, self.rows, self.last_s = self.frames + 1, self.rows + len(predicted.predictions), time_s
        for each in predicted.predictions:
            face = self.faces.setdefault(each.number, FaceSummary(each.number, time_s, time_s))
            face.frames, face.last_s = face.frames + 1, time_s
            if each.outputs is not None:
                before = 0.0 if face.sums is None else face.sums
                face.sums, face.with_outputs = before + each.outputs.astype(np.float64), face.with_outputs + 1


class _StoppedError(Exception):
    """The work was stopped by request: an error, so that the step is not said to be done."""


def _check_goes_on(is_stopped: Callable[[], bool]) -> None:
    if is_stopped():
        raise _StoppedError


def predict_video(
    frames: Iterator[NumberedFrame],
    predictor: FramePredictor,
    receivers: Sequence[Receiver],
    *,
    total: int | None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> VideoSummary:
    """Predict the frames of one video, and pass each to the receivers.

    A video that is damaged is predicted up to there, and the reason is returned.

    Args:
        frames: the frames in the order of time.
        predictor: the run.
        receivers: what writes or shows predictions.
        total: the expected number of frames, for the progress; None if it is unknown.
        is_stopped: asked before every frame whether the work should end.
    """
    summary = VideoSummary()
    predictor.start()
    try:
        with step("predicting video", total, "frames") as advance:
            for frame in frames:
                _check_goes_on(is_stopped)
                predicted = predictor.predict(frame)
                summary.add(predicted)
                for receive in receivers:
                    receive(predicted)
                advance(summary.frames, None if total is None else max(total, summary.frames))
            _check_goes_on(is_stopped)
    except DecodeError as error:
        summary.problem = str(error)
    except _StoppedError:
        pass
    summary.stopped = is_stopped()
    return summary


def expected_frames(facts: VideoFacts, choice: FrameChoice) -> int | None:
    """Return about how many frames are taken of a video; None if its rate is unknown."""
    end = facts.end_s if choice.end_s is None else min(choice.end_s, facts.end_s)
    length = max(0.0, end - (choice.start_s or 0.0))
    if choice.every_s is not None:
        least = 0.0 if facts.rate_hz is None else 1 / facts.rate_hz
        return max(1, math.ceil(length / max(choice.every_s, least)))
    return None if facts.rate_hz is None else max(1, math.ceil(length * facts.rate_hz / choice.every))
