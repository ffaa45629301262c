"""Stable identities of the faces of a video: boxes are matched from frame to frame by overlap and motion.

The boxes of a frame are assigned to the faces known so far so that the sum of the costs is smallest (Kuhn, "The
Hungarian method for the assignment problem", 1955), as SORT does (Bewley et al., ICIP 2016). The cost is one minus the
overlap with the place where the face is expected by its motion; for boxes that no longer overlap, it grows with the
distance. A face that is out of sight for a short while keeps its number; a longer absence gives a new one.

Only places are compared, not looks: two persons who change places behind each other may change numbers, and at a cut
of the film the face at the same place keeps the number of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.streams.faces.detectors import overlap

Box = npt.NDArray[np.float32]
"""The left, top, right and bottom in pixels, (4,) float32."""

GAP_S = 1.0
"""The longest time out of sight after which a face keeps its number, in seconds."""

_LEAST_OVERLAP = 0.2
_FARTHEST = 0.8  # the largest distance of the middles of two boxes of one face, in sides of the box
_LARGEST_GROWTH = 1.8
_MOTION_S = 0.15  # a face is not expected to move on for longer than that
_MOTION_WEIGHT = 0.5
_IMPOSSIBLE = 1e6


@dataclass
class _Track:
    number: int
    box: Box
    time_s: float
    motion: npt.NDArray[np.float32]  # pixels a second, of the middle


class FaceTracks:
    """The faces that were seen so far in one video."""

    def __init__(self, gap_s: float = GAP_S) -> None:
        self._gap_s = gap_s
        self._tracks: list[_Track] = []
        self._next = 1

    def update(self, boxes: Sequence[Box], time_s: float) -> list[int]:
        """Return the numbers of the faces of a frame, from 1, in the order of their boxes.

        Args:
            boxes: the boxes of the faces.
            time_s: the time of the frame, not before that of the last one.
        """
        self._tracks = [track for track in self._tracks if time_s - track.time_s <= self._gap_s]
        numbers = [0] * len(boxes)
        for index, track in self._assigned(boxes, time_s):
            _move(track, boxes[index], time_s)
            numbers[index] = track.number
        for index, number in enumerate(numbers):
            if not number:
                still = np.zeros(2, dtype=np.float32)
                self._tracks.append(_Track(self._next, boxes[index], time_s, still))
                numbers[index], self._next = self._next, self._next + 1
        return numbers

    @property
    def known(self) -> frozenset[int]:
        """The numbers of the faces that would be recognised in the next frame."""
        return frozenset(track.number for track in self._tracks)

    def _assigned(self, boxes: Sequence[Box], time_s: float) -> list[tuple[int, _Track]]:
        if not len(boxes) or not self._tracks:
            return []
        from scipy.optimize import linear_sum_assignment

        costs = np.array([[_cost(box, track, time_s) for track in self._tracks] for box in boxes])
        rows, columns = linear_sum_assignment(costs)
        return [
            (int(row), self._tracks[column])
            for row, column in zip(rows, columns, strict=True)
            if costs[row, column] < _IMPOSSIBLE
        ]


def _cost(box: Box, track: _Track, time_s: float) -> float:
    """Return the cost of a box for a face: 0 to 1 if they overlap, 1 to 2 if the box is near, else `_IMPOSSIBLE`."""
    moved = track.motion * min(time_s - track.time_s, _MOTION_S)
    expected = track.box + np.tile(moved, 2)
    share = overlap(box, expected)
    if share >= _LEAST_OVERLAP:
        return 1 - share
    side, other = _side(box), _side(track.box)
    away = float(np.linalg.norm(_middle(box) - _middle(expected))) / max(side, other, 1e-6)
    growth = max(side, other) / max(min(side, other), 1e-6)
    return 1 + away / _FARTHEST if away <= _FARTHEST and growth <= _LARGEST_GROWTH else _IMPOSSIBLE


def _move(track: _Track, box: Box, time_s: float) -> None:
    passed = time_s - track.time_s
    if passed > 0:
        motion = (_middle(box) - _middle(track.box)) / passed
        track.motion = (_MOTION_WEIGHT * motion + (1 - _MOTION_WEIGHT) * track.motion).astype(np.float32)
    track.box, track.time_s = box, time_s


def _middle(box: Box) -> npt.NDArray[np.float32]:
    return (box[:2] + box[2:]) / 2


def _side(box: Box) -> float:
    return float(np.sqrt(max(0.0, float(np.prod(box[2:] - box[:2])))))
