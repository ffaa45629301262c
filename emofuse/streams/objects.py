"""The five most confident objects that YOLOv5 finds: where, how large, how sure.

The networks are ultralytics' YOLOv5u (AGPL-3.0): YOLOv5's body with an anchor-free head, which scores classes alone and
has no separate objectness. The paper's "class probability" and "confidence" of an object are therefore one number here,
the sigmoid score of its best class, and both columns hold it: nothing else would be a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torchvision.ops import batched_nms, box_convert

from emofuse.errors import StreamError, WeightsError
from emofuse.specs import ObjectsSpec, Precision
from emofuse.status import Status
from emofuse.streams.base import Rows, Sample
from emofuse.streams.ultralytics_networks import load_yolo, random_yolo
from emofuse.weights import REGISTRY, default_weights, resolve_weights

OBJECTS = 5
VALUES = ("cx", "cy", "w", "h", "class_probability", "confidence")

_STRIDE = 32  # of the coarsest of the network's grids: sides must be multiples
_PADDING = 114  # grey, as in training
_NMS_IOU = 0.7  # ultralytics' default at prediction


class _Letterbox(NamedTuple):
    """A picture scaled into the network's square and padded to the stride.

    Attributes:
        image: (h, w, 3) uint8.
        scale: (2,) x and y, letterboxed pixels a picture's pixel.
        offset: (2,) x and y of the picture's top left corner in it.
    """

    image: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]


class ObjectsStream:
    """YOLOv5 -> (5 objects x 6 values), most confident first, zeros behind them.

    An object's centre and size are shares of the picture's width and height, 0 to 1. One picture goes through the
    network at a time, in the smallest rectangle that its shape needs: so its boxes do not depend on its neighbours (and
    equal `YOLO(...).predict(picture)`).

    Attributes:
        network: the detection network, its batch norms folded into the convolutions.
    """

    dim = OBJECTS * len(VALUES)
    dtype = np.dtype(np.float32)
    needs_face = False
    flag_names: tuple[str, ...] = ()
    columns = tuple(f"object{number}_{value}" for number in range(1, OBJECTS + 1) for value in VALUES)

    def __init__(
        self, network: nn.Module, *, image_px: int, min_confidence: float, device: str, precision: Precision = "float32"
    ) -> None:
        fused: Any = network
        try:
            self.network = fused.eval().float().fuse(verbose=False).to(device).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            raise StreamError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
        self._dtype = torch.float32
        if precision == "bfloat16":
            self._dtype = torch.bfloat16
            _lower_body(self.network)
        self._device = torch.device(device)
        self._image_px = image_px
        self._min_confidence = min_confidence

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Objects of n pictures.

        Returns:
            features (n, 30) float32; NO_DETECTION where nothing reaches the confidence asked for.
        """
        rows = Rows.empty(len(samples), self.dim, self.dtype, Status.NO_DETECTION)
        for row, sample in enumerate(samples):
            found = self.detect(sample.image)[:OBJECTS, [0, 1, 2, 3, 4, 4]]
            if len(found):
                rows.features[row, : found.size] = found.ravel()
                rows.status[row] = Status.OK
        return rows

    def detect(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """All objects of a picture (H, W, 3) uint8 RGB.

        Returns:
            (k, 6) float32, most confident first: centre x, centre y, width, height as shares of the picture, score,
            class number.
        """
        box = _letterbox(image, self._image_px)
        found = self._predict(box.image)
        height, width = image.shape[:2]
        corners = (found[:, :4].reshape(-1, 2, 2) - box.offset) / box.scale
        corners = (corners / np.array([width, height], dtype=np.float32)).clip(0, 1)
        shares = [corners.mean(axis=1), corners[:, 1] - corners[:, 0], found[:, 4:]]
        return np.concatenate(shares, axis=1, dtype=np.float32)

    def close(self) -> None:
        """Nothing to release that the garbage collector does not."""

    def _predict(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(h, w, 3) uint8 -> (k, 6), most confident first: x1 y1 x2 y2 in its pixels, score, class number."""
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            picture = (torch.from_numpy(image).to(self._device).permute(2, 0, 1)[None].float() / 255).to(self._dtype)
            raw = self.network(picture.contiguous(memory_format=torch.channels_last))[0][0]  # (4 + classes, positions)
            scores, classes = raw[4:].max(dim=0)
            sure = scores > self._min_confidence
            boxes, scores, classes = box_convert(raw[:4, sure].T, "cxcywh", "xyxy"), scores[sure], classes[sure]
            kept = batched_nms(boxes, scores, classes, _NMS_IOU)
            found = torch.cat([boxes, scores[:, None], classes[:, None].float()], dim=1)[kept]
            array: npt.NDArray[np.float32] = found.cpu().numpy()
        return array


def make_objects(spec: ObjectsSpec, device: str) -> ObjectsStream:
    """The stream of a spec.

    Raises:
        StreamError: ultralytics is not installed, or the device cannot be used.
        WeightsError: the weights are missing, damaged, or another model's.
    """
    weights = resolve_weights(spec.weights or default_weights(spec.model))
    entry = REGISTRY.get(weights.name) if weights.kind == "registry" else None
    if entry is not None and entry.model != spec.model:
        raise WeightsError(f"the weights {entry.name!r} are of {entry.model}, the spec's model is {spec.model}")
    network = random_yolo(spec.model, weights.seed or 0) if weights.path is None else load_yolo(weights.path)
    return ObjectsStream(
        network, image_px=spec.image_px, min_confidence=spec.min_confidence, device=device, precision=spec.precision
    )


def _lower_body(network: Any) -> None:
    """All layers but the last in bfloat16, in place.

    The last one makes coordinates of up to 640 pixels, for which eight bits are too few: it stays in float32.
    """
    *body, last = network.model
    for layer in body:
        layer.to(torch.bfloat16)
    last.register_forward_pre_hook(lambda _, args: ([maps.float() for maps in args[0]],))


def _letterbox(image: npt.NDArray[np.uint8], longest_px: int) -> _Letterbox:
    """Scales a picture so that its longer side is `longest_px`, and pads both sides to multiples of the stride.

    As ultralytics does it (bilinear, rounding of sides and of the odd pixel of padding included).
    """
    height, width = image.shape[:2]
    ratio = min(longest_px / height, longest_px / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    if (new_height, new_width) != (height, width):
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    pad_x, pad_y = (longest_px - new_width) % _STRIDE / 2, (longest_px - new_height) % _STRIDE / 2
    left, top = round(pad_x - 0.1), round(pad_y - 0.1)
    right, bottom = round(pad_x + 0.1), round(pad_y + 0.1)
    padded = np.full((top + new_height + bottom, left + new_width + right, 3), _PADDING, dtype=np.uint8)
    padded[top : top + new_height, left : left + new_width] = image
    scale = np.array([new_width / width, new_height / height], dtype=np.float32)
    return _Letterbox(padded, scale, np.array([left, top], dtype=np.float32))
