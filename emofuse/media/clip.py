"""The chosen frames of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Clip:
    """The T chosen frames of a video, in the order of time.

    Attributes:
        frames: T pictures (H, W, 3) uint8 RGB, upright.
        times_s: the time at which each frame is shown, in seconds from the start of the file, float64 (T,).
    """

    frames: tuple[npt.NDArray[np.uint8], ...]
    times_s: npt.NDArray[np.float64]
