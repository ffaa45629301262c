"""Runs of a small pipeline by name, and frames with a real face."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from skimage import data

SIZE = (320, 240)
RUNS = {
    "faces": ["action_units", "landmarks"],
    "both": ["action_units", "squeezenet1_1"],
    "picture": ["squeezenet1_1"],
    "aligned": ["squeezenet1_1-face"],
}
"""Name of a run -> its streams; see `tests/predict/conftest.py`."""


@functools.cache
def portrait(side: int) -> np.ndarray:
    """A real face, (side, side, 3) uint8 RGB."""
    return cv2.resize(data.astronaut()[20:220, 120:320], (side, side), interpolation=cv2.INTER_AREA)


def scene(places, size=SIZE, side: int = 150) -> np.ndarray:
    """A grey frame with the face at the given left tops, (H, W, 3) uint8 RGB."""
    picture = np.full((size[1], size[0], 3), 120, np.uint8)
    face = portrait(side)
    for left, top in places:
        picture[top : top + side, left : left + side] = face
    return picture
