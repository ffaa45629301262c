"""The detection of objects by a YOLO network, in PyTorch or compiled.

A network whose compiled form is kept on this machine is not made: PyTorch and ultralytics are not imported for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emofuse.specs.weights import Precision
from emofuse.streams.networks.kept import converting, is_kept, network_key
from emofuse.streams.networks.running import CompiledNetwork, open_kept_network
from emofuse.streams.runtimes import TORCH, ConversionError, openvino_record, present_runtimes

if TYPE_CHECKING:
    from torch import nn

_NMS_IOU = 0.7  # ultralytics' default at prediction
_COORDINATES = 4000  # of at most so many, torchvision suppresses the boxes of all classes in one go


class YoloDetector:
    """A YOLO network on a device: B pictures of one shape -> the boxes in each of them.

    Args:
        make: the function that makes the network.
        min_confidence: the least score of a box.
        device: the device, as torch names it.
        precision: the precision of the network's values.
        identity: what decides the values that it computes, as JSON holds it; None keeps no compiled form of it.

    Attributes:
        device: the device that it runs on.
        runtime: what computes it: `torch`, or `openvino` with its version.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        *,
        min_confidence: float,
        device: str,
        precision: Precision,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self._make = make
        self.device = device
        self._precision = precision
        self._min_confidence = min_confidence
        self._compiled: CompiledNetwork | None = None
        self.runtime = TORCH
        runtimes = present_runtimes()
        self._threads = runtimes.threads
        keeps = runtimes.compiles and precision == "float32" and identity is not None and self._threads is not None
        self._key = network_key(network=identity, threads=self._threads) if keeps else None
        if self._key is None or not is_kept(self._key):
            _ = self.network  # so that what is wrong with the weights is said now
        runtimes.register("of objects", self._compile)

    @cached_property
    def network(self) -> Any:
        """The detection network, its batch norms folded into the convolutions."""
        from emofuse.streams.networks.yolo import fused

        return fused(self._make(), self.device, self._precision)

    def boxes(self, pictures: list[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """Detect the objects of B pictures of one shape (h, w, 3) uint8.

        Returns:
            B arrays (k, 6) float32, most confident first: x1, y1, x2, y2 in pixels, score, class number.
        """
        if self._compiled is not None:
            return [boxes_of_output(self._compiled(each[None])[0][0], self._min_confidence) for each in pictures]
        import torch

        from emofuse.streams.networks.yolo import boxes_of, raw_output

        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            raw = raw_output(self.network, pictures, self.device, self._precision)
            return boxes_of(raw, self._min_confidence, _NMS_IOU)

    def _compile(self) -> None:
        """Compile the network for pictures of all sizes, or open its kept form.

        Raises:
            ConversionError: it cannot be compiled.
        """
        if self._precision != "float32":
            raise ConversionError("it would compute coordinates in bfloat16 too, for which eight bits are too few")
        self._compiled = self._opened()
        self.runtime = openvino_record()

    def _opened(self) -> CompiledNetwork:
        if self._key is None or self._threads is None:
            return self._converted()
        opened = open_kept_network(self._key, self._threads)
        if opened is not None:
            return opened
        with converting(self._key):
            return open_kept_network(self._key, self._threads) or self._converted()

    def _converted(self) -> CompiledNetwork:
        from emofuse.streams.networks.compiled import compile_network, noise
        from emofuse.streams.networks.yolo import CHECKED, DetectionGraph, anchors_of_every_size

        with anchors_of_every_size(self.network.model[-1]):
            return compile_network(
                DetectionGraph(self.network),
                [noise(1, *size, 3) for size in CHECKED],
                dynamic=(1, 2),
                threads=self._threads,
                key=self._key,
            )


def boxes_of_output(raw: npt.NDArray[np.float32], min_confidence: float) -> npt.NDArray[np.float32]:
    """Return the boxes (k, 6) of one picture from the network's output (4 + classes, positions).

    The same as `yolo.boxes_of`, without PyTorch.
    """
    classes = raw[4:].argmax(axis=0)
    scores = np.take_along_axis(raw[4:], classes[None], axis=0)[0]
    sure = np.flatnonzero(scores > np.float32(min_confidence))
    centre, half = raw[:2, sure], raw[2:4, sure] * np.float32(0.5)
    corners = np.concatenate([centre - half, centre + half]).T
    boxes = np.column_stack([corners, scores[sure], classes[sure]]).astype(np.float32)
    return boxes[_not_covered(boxes)]


def _not_covered(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the indices of the boxes that no more confident one of their class covers, most confident first."""
    corners = boxes[:, :4]
    if 0 < corners.size <= _COORDINATES:  # boxes of other classes are moved to where they cover none
        corners = corners + (boxes[:, 5] * (corners.max() + np.float32(1)))[:, None]
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    left = np.argsort(-boxes[:, 4], kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low, high = np.maximum(corners[best, :2], corners[left, :2]), np.minimum(corners[best, 2:], corners[left, 2:])
        width, height = (high - low).clip(0).T
        shared = width * height
        share = shared / (areas[best] + areas[left] - shared)
        covered = share > np.float32(_NMS_IOU)
        left = left[~(covered & (boxes[left, 5] == boxes[best, 5]))]
    return np.array(kept, dtype=np.int64)
