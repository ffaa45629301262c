"""Live prediction: frames of a camera, an address or a file are predicted and shown as they come.

A frame that is not taken in time is skipped, so that what is shown is always the newest. A file is read at the speed at
which it plays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from emofuse.errors import DecodeError
from emofuse.media.frames import NumberedFrame
from emofuse.predict.ahead import ReadAhead
from emofuse.predict.drawing import Drawer
from emofuse.predict.frames import FramePrediction, FramePredictor, PredictedFrame
from emofuse.predict.interrupt import StopRequest
from emofuse.predict.pace import Pace, SlowStreams


class Viewer(Protocol):
    """The interface of a window or a page that shows frames."""

    def show(self, image: npt.NDArray[np.uint8], state: Mapping[str, Any]) -> bool:
        """Show a picture (H, W, 3) uint8 RGB and a state of plain data; return whether to go on."""
        ...

    def close(self) -> None:
        """Close the window or page. A second call does nothing."""
        ...


@dataclass
class LiveSummary:
    """The result of live prediction.

    Attributes:
        frames: the number of frames that were shown.
        skipped: the number of frames that came while another one was predicted.
        steps: step -> its median seconds over the last frames.
        rate_hz: the frames a second over the last frames.
        problem: why the source ended; None if it was stopped, or a file was shown whole.
    """

    frames: int = 0
    skipped: int = 0
    steps: Mapping[str, float] | None = None
    rate_hz: float = 0.0
    problem: str | None = None


def watch(
    frames: Iterator[NumberedFrame],
    predictor: FramePredictor,
    drawer: Drawer,
    viewer: Viewer,
    *,
    stop: StopRequest,
    slow: SlowStreams | None = None,
    say: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> LiveSummary:
    """Predict and show frames until the source ends, the viewer is closed, or a stop is asked for.

    Args:
        frames: the frames as they come.
        predictor: the run.
        drawer: draws predictions on frames.
        viewer: shows them.
        stop: the request to end.
        slow: leaves out streams that cannot keep up; None to keep all.
        say: receives a line about streams that were left out.
    """
    summary, pace, notes = LiveSummary(), Pace(), list[str]()
    predictor.start()
    with ReadAhead(frames, newest=True, stop=stop) as ahead:
        try:
            for frame in ahead:
                predicted = predictor.predict(frame)
                began = time.perf_counter()
                image = drawer.draw(predicted)
                drawn = time.perf_counter()
                goes_on = viewer.show(image, state_of(predicted, pace, predictor, notes))
                shown = time.perf_counter()
                pace.add({**predicted.seconds, "draw": drawn - began, "show": shown - drawn}, shown)
                summary.frames += 1
                if not goes_on:
                    break
                line = None if slow is None else slow.choose(pace)
                if line is not None and slow is not None:
                    say(line)
                    notes.append(line)
                    if slow.left_out != predictor.left_out:
                        predictor.leave_out(slow.left_out)
                        pace.forget()
        except DecodeError as error:
            summary.problem = str(error)
        summary.skipped = ahead.skipped
    summary.steps, summary.rate_hz = pace.steps, pace.rate_hz
    return summary


def state_of(predicted: PredictedFrame, pace: Pace, predictor: FramePredictor, notes: list[str]) -> dict[str, Any]:
    """Return what a page shows beside the picture, as plain data."""
    steps = pace.steps or predicted.seconds
    record = predictor.predictor.record
    return {
        "time_s": round(predicted.frame.time_s, 3),
        "rate_hz": round(pace.rate_hz, 2),
        "latency_ms": round(1000 * sum(steps.values()), 2),
        "steps_ms": {name: round(1000 * seconds, 2) for name, seconds in steps.items()},
        "faces": [_face_state(each, record.classes, record.target_kind) for each in predicted.predictions],
        "notes": notes,
    }


def _face_state(each: FramePrediction, classes: Any, kind: str) -> dict[str, Any]:
    title = "frame" if each.number is None else f"face {each.number}"
    outputs: list[tuple[str, float, float | None]] = []
    if each.smoothed is not None:
        values = each.smoothed.tolist()
        shares = [None] * len(values) if kind == "regression" else values
        outputs = [(name, round(value, 4), share) for name, value, share in zip(classes, values, shares, strict=True)]
    else:
        title = "no face"
    return {
        "title": title,
        "box": None if each.face is None else [round(float(value), 1) for value in each.face.box],
        "outputs": outputs,
        "action_units": [[unit.name, unit.value, unit.activation] for unit in each.action_units[:5]],
        "missing": dict(each.missing),
    }


def at_its_speed(frames: Iterator[NumberedFrame]) -> Iterator[NumberedFrame]:
    """Iterate over the frames of a file at the speed at which it plays."""
    began: float | None = None
    for frame in frames:
        now = time.monotonic()
        began = now - frame.time_s if began is None else began
        if began + frame.time_s > now:
            time.sleep(began + frame.time_s - now)
        yield frame
