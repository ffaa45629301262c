"""The frames of a clip of the demo: a drawn head whose mouth moves in the first half and whose colour in the second.

A mouth that closes shows the frames of one that opens in the opposite order, to the last pixel, and so does a face
that pales. So no frame, and no mean, maximum or deviation over the frames, shows one of the two cues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

SIDE_PX = 96
FRAMES_PER_S = 16
FRAMES = 20
_LEVELS = FRAMES // 2
_FINE = 16  # OpenCV draws with four binary digits after the point
_MOUTH_PX = (1.0, 17.0)
_GRAIN = 2.5
_RED = np.array([220, 50, 45], dtype=np.float32)
_PALE = np.array([228, 224, 214], dtype=np.float32)

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """The look of a speaker.

    Attributes:
        background: the colour of the background, RGB from 0 to 255.
        skin: the colour of the head.
        width: half the width of the head in pixels.
        height: half the height of the head in pixels.
        mouth: half the width of the mouth in pixels.
    """

    background: tuple[float, ...]
    skin: tuple[float, ...]
    width: float
    height: float
    mouth: float


def draw_look(rng: np.random.Generator) -> Look:
    """Draw the look of a speaker."""
    level = rng.uniform(0.7, 1.0)
    return Look(
        background=tuple(rng.uniform(85, 125, size=3).tolist()),
        skin=tuple((np.array([225, 185, 150]) * level).tolist()),
        width=float(rng.uniform(35, 38)),
        height=float(rng.uniform(42, 45)),
        mouth=float(rng.uniform(18, 21)),
    )


def draw_frames(look: Look, *, closes: bool, pales: bool, rng: np.random.Generator) -> Frames:
    """Draw a clip.

    Args:
        look: the look of the speaker.
        closes: whether the mouth closes in the first half; it opens otherwise.
        pales: whether the face pales in the second half; it blushes otherwise.
        rng: the draws of the clip, which are the same for all bits.

    Returns:
        The frames, uint8 RGB (T, H, W, 3).
    """
    centre = rng.uniform(-1.5, 1.5, size=2) + SIDE_PX / 2
    light = rng.uniform(0.95, 1.05)
    grain = rng.normal(0, _GRAIN, size=(FRAMES, SIDE_PX, SIDE_PX, 1)).astype(np.float32)
    mouth = list(range(_LEVELS))
    blush = list(range(_LEVELS, FRAMES))
    states = (mouth[::-1] if closes else mouth) + (blush[::-1] if pales else blush)
    drawn = []
    for state in states:
        level = (state % _LEVELS) / (_LEVELS - 1)
        opening, redness = (level, 0.5) if state < _LEVELS else (0.5, level)
        frame = _draw_head(look, centre, opening, redness) * np.float32(light) + grain[state]
        drawn.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
    return np.stack(drawn)


def _draw_head(look: Look, centre: npt.NDArray[np.float64], opening: float, redness: float) -> npt.NDArray[np.float32]:
    """Draw a head, float32 (H, W, 3) from 0 to 255."""
    picture = np.empty((SIDE_PX, SIDE_PX, 3), dtype=np.float32)
    picture[:] = np.array(look.background, dtype=np.float32)
    skin = np.array(look.skin, dtype=np.float32)
    tinted = skin + np.float32(0.85) * (_PALE + np.float32(redness) * (_RED - _PALE) - skin)
    x, y = centre
    _ellipse(picture, (x, y), (look.width, look.height), tinted)
    for side in (-1, 1):
        _ellipse(picture, (x + side * look.width * 0.42, y - look.height * 0.25), (3.2, 4.2), np.full(3, 25.0))
    half = _MOUTH_PX[0] + opening * (_MOUTH_PX[1] - _MOUTH_PX[0])
    _ellipse(picture, (x, y + look.height * 0.45), (look.mouth, half), np.array([70.0, 12.0, 20.0]))
    return picture


def _ellipse(
    picture: npt.NDArray[np.float32],
    centre: tuple[float, float],
    halves: tuple[float, float],
    colour: npt.NDArray[np.floating[Any]],
) -> None:
    """Draw a filled ellipse with soft edges over a picture, in place."""
    mask = np.zeros(picture.shape[:2], dtype=np.uint8)
    place, axes = ([round(value * _FINE) for value in pair] for pair in (centre, halves))
    cv2.ellipse(mask, place, axes, 0, 0, 360, (255,), -1, cv2.LINE_AA, 4)
    cover = (mask.astype(np.float32) / 255)[..., None]
    picture += cover * (np.asarray(colour, dtype=np.float32) - picture)
