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
from emofuse.specs.weights import Precision
from emofuse.status import Status
from emofuse.streams.base import Rows, Sample
from emofuse.streams.networks import ObjectsSpec
from emofuse.streams.presets import send
from emofuse.streams.ultralytics_networks import load_yolo, random_yolo
from emofuse.weights import REGISTRY, default_weights, resolve_weights

OBJECTS = 5
VALUES = ("cx", "cy", "w", "h", "class_probability", "confidence")

_STRIDE = 32  # of the coarsest of the network's grids: sides must be multiples
_PADDING = 114  # grey, as in training
_NMS_IOU = 0.7  # ultralytics' default at prediction
_CPU_BATCH = 1  # larger ones gain next to nothing on a core (benchmarks/steps.py)
_GPU_BATCH = 32


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

    An object's centre and size are shares of the picture's width and height, 0 to 1. A picture goes through the network
    in the smallest rectangle that its own shape needs, alone or with others that need the same: so its boxes equal
    those of `YOLO(...).predict(picture)`.

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
        self._batch = _CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH
        self._image_px = image_px
        self._min_confidence = min_confidence

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Objects of n pictures.

        Returns:
            features (n, 30) float32; NO_DETECTION where nothing reaches the confidence asked for.
        """
        rows = Rows.empty(len(samples), self.dim, self.dtype, Status.NO_DETECTION)
        for row, found in enumerate(self.detect([sample.image for sample in samples])):
            best = found[:OBJECTS, [0, 1, 2, 3, 4, 4]]
            if len(best):
                rows.features[row, : best.size] = best.ravel()
                rows.status[row] = Status.OK
        return rows

    def detect(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """All objects of n pictures (H, W, 3) uint8 RGB.

        Returns:
            n arrays (k, 6) float32, most confident first: centre x, centre y, width, height as shares of the picture,
            score, class number.
        """
        boxes = [_letterbox(image, self._image_px) for image in images]
        found: list[npt.NDArray[np.float32]] = [np.zeros((0, len(VALUES)), np.float32)] * len(images)
        for rows in _of_one_shape(boxes, self._batch):
            for row, in_box in zip(rows, self._predict([boxes[row].image for row in rows]), strict=True):
                found[row] = _in_shares(in_box, boxes[row], images[row])
        return found

    def close(self) -> None:
        """Nothing to release that the garbage collector does not."""

    def _predict(self, pictures: list[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """B pictures (h, w, 3) of one shape -> B x (k, 6), most confident first: x1 y1 x2 y2, score, class."""
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            batch = send([torch.from_numpy(picture) for picture in pictures], self._device).permute(0, 3, 1, 2)
            batch = (batch.float() / 255).to(self._dtype, memory_format=torch.channels_last)
            raw = self.network(batch)[0]  # (B, 4 + classes, positions)
            scores, classes = raw[:, 4:].max(dim=1)
            owners, positions = (scores > self._min_confidence).nonzero(as_tuple=True)
            columns = [scores[owners, positions], classes[owners, positions].float(), owners.float()]
            corners = box_convert(raw[owners, :4, positions], "cxcywh", "xyxy")
            # They are few: a GPU's are sorted out on the CPU, so that it is waited for once a batch.
            sure = torch.cat([corners, torch.stack(columns, dim=1)], dim=1).cpu()
            return [_suppressed(sure[sure[:, 6] == owner, :6]) for owner in range(len(pictures))]


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


def _suppressed(found: torch.Tensor) -> npt.NDArray[np.float32]:
    """(k, 6): x1 y1 x2 y2, score, class -> those that no surer one of their class covers, most confident first."""
    kept: npt.NDArray[np.float32] = found[batched_nms(found[:, :4], found[:, 4], found[:, 5], _NMS_IOU)].numpy()
    return kept


def _of_one_shape(boxes: Sequence[_Letterbox], most: int) -> list[list[int]]:
    """Indices of letterboxed pictures in batches of one shape, `most` at most in each."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, box in enumerate(boxes):
        by_shape.setdefault(box.image.shape, []).append(index)
    return [rows[first : first + most] for rows in by_shape.values() for first in range(0, len(rows), most)]


def _in_shares(
    found: npt.NDArray[np.float32], box: _Letterbox, image: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Corners in pixels of the letterboxed picture -> centre and size as shares of the picture, (k, 6)."""
    height, width = image.shape[:2]
    corners = (found[:, :4].reshape(-1, 2, 2) - box.offset) / box.scale
    corners = (corners / np.array([width, height], dtype=np.float32)).clip(0, 1)
    shares = [corners.mean(axis=1), corners[:, 1] - corners[:, 0], found[:, 4:]]
    return np.concatenate(shares, axis=1, dtype=np.float32)


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
