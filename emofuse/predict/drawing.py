"""Predictions drawn on a frame: the box or mesh of each face, its number, the top emotions and strongest action units.

The panel of a face is beside its box where there is room, and never beyond the border. Letters grow with the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from emofuse.predict.frames import FramePrediction, PredictedFrame
from emofuse.predict.lettering import Colour, put_text, text_size

Faces = Literal["box", "mesh", "both"]

_COLOURS: tuple[Colour, ...] = (
    (64, 196, 255),
    (255, 171, 64),
    (105, 240, 174),
    (255, 128, 171),
    (234, 238, 80),
    (179, 136, 255),
)
_WHITE: Colour = (255, 255, 255)
_GREY: Colour = (205, 205, 205)
_TOP = 3
_UNITS = 3
_SMALLEST_PX, _LARGEST_PX = 11, 40
_GAP_PX = 6
_KEEP_SIDE = 0.2  # a panel changes sides for what covers less by this share of the panel
_PANEL = 0.35  # what is left of the brightness behind a panel


class Drawer:
    """Draws the predictions of a run.

    Args:
        classes: the names of the outputs.
        kind: what the run predicts, see `RunRecord.target_kind`.
        faces: what is drawn of a face.
    """

    def __init__(self, classes: Sequence[str], kind: str, faces: Faces = "box") -> None:
        self._classes = tuple(classes)
        self._kind = kind
        self._faces = faces
        self._sides: dict[int | None, int] = {}
        self._widths: dict[int | None, int] = {}  # panels do not shrink, so that they do not tremble

    def draw(self, predicted: PredictedFrame) -> npt.NDArray[np.uint8]:
        """Return the frame with its predictions, (H, W, 3) uint8 RGB; the frame itself stays as it is."""
        image = predicted.frame.image.copy()
        size_px = int(np.clip(round(min(image.shape[:2]) / 26), _SMALLEST_PX, _LARGEST_PX))
        faces = [each.face.box.tolist() for each in predicted.predictions if each.face is not None]
        covered: list[Sequence[float]] = faces
        for each in predicted.predictions:
            colour = _COLOURS[0 if each.number is None else (each.number - 1) % len(_COLOURS)]
            if each.face is not None:
                self._draw_face(image, each, colour, size_px)
        for each in predicted.predictions:
            colour = _COLOURS[0 if each.number is None else (each.number - 1) % len(_COLOURS)]
            covered.append(self._draw_panel(image, each, colour, size_px, covered))
        return image

    def _draw_face(self, image: npt.NDArray[np.uint8], each: FramePrediction, colour: Colour, size_px: int) -> None:
        import cv2

        if each.face is None:
            return
        left, top, right, bottom = (round(float(value)) for value in each.face.box)
        if self._faces in {"mesh", "both"} and each.face.points is not None:
            for x, y in each.face.points[:, :2].round().astype(int).tolist():
                cv2.circle(image, (x, y), max(0, size_px // 18), colour, -1, cv2.LINE_AA)
        if self._faces != "mesh" or each.face.points is None:
            cv2.rectangle(image, (left, top), (right, bottom), colour, max(1, size_px // 8), cv2.LINE_AA)

    def _draw_panel(
        self,
        image: npt.NDArray[np.uint8],
        each: FramePrediction,
        colour: Colour,
        size_px: int,
        covered: Sequence[Sequence[float]],
    ) -> tuple[int, int, int, int]:
        """Draw the panel of one prediction, and return its left, top, right and bottom."""
        lines = self._lines(each)
        bar_px = max(2, size_px // 8)
        line_px = text_size("Ag", size_px)[1] + bar_px
        pad = size_px // 3
        width = max(text_size(text, size_px)[0] for text, _ in lines) + 2 * pad
        width = self._widths[each.number] = max(width, self._widths.get(each.number, 0))
        height = line_px * len(lines) + 2 * pad
        left, top = self._place(each, image.shape, (width, height), covered)
        part = image[max(0, top) : top + height, max(0, left) : left + width]
        part[:] = (part * _PANEL).astype(np.uint8)
        for number, (text, share) in enumerate(lines):
            y = top + pad + number * line_px
            if share is not None:
                end = left + pad + round((width - 2 * pad) * min(1.0, max(0.0, share)))
                bar = image[y + line_px - bar_px : y + line_px, left + pad : end]
                bar[:] = colour
            letters = colour if number == 0 else _GREY if share is None else _WHITE
            put_text(image, text, (left + pad, y), size_px=size_px, colour=letters)
        return left, top, left + width, top + height

    def _place(
        self,
        each: FramePrediction,
        shape: tuple[int, ...],
        size: tuple[int, int],
        covered: Sequence[Sequence[float]],
    ) -> tuple[int, int]:
        """Return the left and top of a panel: right, left, below or above the box, where it covers least.

        It covers no face or other panel if there is room, and never leaves the frame. It stays on its side of the face
        until another one is clearly better.
        """
        (width, height), pad = size, _GAP_PX
        right_most, bottom_most = max(0, shape[1] - width), max(0, shape[0] - height)
        if each.face is None:
            return min(pad, right_most), min(pad, bottom_most)
        left, top, right, bottom = each.face.box.tolist()
        wanted = [(right + pad, top), (left - width - pad, top), (left, bottom + pad), (left, top - height - pad)]
        places = [(int(np.clip(x, 0, right_most)), int(np.clip(y, 0, bottom_most))) for x, y in wanted]
        boxes = [(x, y, x + width, y + height) for x, y in places]
        costs = [sum(_common(box, other) for other in covered) for box in boxes]
        best, before = int(np.argmin(costs)), self._sides.get(each.number)
        if before is not None and costs[before] <= costs[best] + _KEEP_SIDE * width * height:
            best = before
        self._sides[each.number] = best
        return places[best]

    def _lines(self, each: FramePrediction) -> list[tuple[str, float | None]]:
        """Return the lines of a panel, each with the length of its bar from 0 to 1, or None without a bar."""
        title = "no face" if each.number is None and each.missing else f"face {each.number}"
        lines: list[tuple[str, float | None]] = []
        if each.number is not None or each.smoothed is None:
            lines.append((title, None))
        if each.smoothed is not None:
            lines += self._output_lines(each.smoothed)
        for unit in each.smoothed_units[:_UNITS]:
            strength = f"{unit.value:+.2f}" if unit.activation is None else f"{unit.activation:+.1f} sd"
            lines.append((f"{unit.name.replace('_', ' ')} {strength}", None))
        return lines

    def _output_lines(self, outputs: npt.NDArray[np.float32]) -> list[tuple[str, float | None]]:
        if self._kind == "regression":
            return [(f"{name} {value:.2f}", None) for name, value in zip(self._classes, outputs.tolist(), strict=True)]
        order = np.argsort(-outputs, kind="stable")[:_TOP]
        return [(f"{self._classes[index]} {outputs[index]:.0%}", float(outputs[index])) for index in order]


def _common(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the area that two boxes have in common."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return float(max(0.0, width) * max(0.0, height))
