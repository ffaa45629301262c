"""Outputs smoothed over time, for each face on its own: an exponential filter with a time constant in seconds.

s(t) = s(t - dt) + (1 - exp(-dt / tau)) (p(t) - s(t - dt)). The weight follows the time between two frames, so that the
result does not depend on the frame rate: a step is followed by 63 % after tau and by 95 % after three tau. Smoothed
probabilities still sum to 1. The first frame of a face is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable

import numpy as np
import numpy.typing as npt

Outputs = npt.NDArray[np.float32]


class Smoothing:
    """The filter of the outputs of several faces.

    Args:
        tau_s: the time constant in seconds; 0 changes nothing.
    """

    def __init__(self, tau_s: float) -> None:
        self._tau_s = tau_s
        self._last: dict[Hashable, tuple[float, Outputs]] = {}

    def update(self, face: Hashable, time_s: float, outputs: Outputs) -> Outputs:
        """Return the smoothed outputs (C,) of a face; a face that is new begins with its outputs (C,)."""
        if self._tau_s > 0 and face in self._last:
            before_s, before = self._last[face]
            weight = 1 - math.exp(-max(0.0, time_s - before_s) / self._tau_s)
            outputs = (before + np.float32(weight) * (outputs - before)).astype(np.float32)
        self._last[face] = (time_s, outputs)
        return outputs

    def keep(self, faces: Collection[Hashable]) -> None:
        """Forget all faces but these."""
        self._last = {face: last for face, last in self._last.items() if face in faces}
