"""The five most confident objects that YOLOv5 finds: their places, sizes and scores.

The networks are ultralytics' YOLOv5u (AGPL-3.0): the body of YOLOv5 with an anchor-free head, which scores classes and
has no separate objectness. The paper's "class probability" and "confidence" of an object are therefore one number here,
the sigmoid score of its best class, and both columns hold this number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from emofuse.errors import WeightsError
from emofuse.specs.streams import StreamSpecBase
from emofuse.specs.weights import Precision, WeightsSpec
from emofuse.status import Status
from emofuse.streams.base import NEEDS_IMAGE, VECTOR, Rows, Sample

if TYPE_CHECKING:
    from torch import nn

    from emofuse.weights import ResolvedWeights

OBJECTS = 5
VALUES = ("cx", "cy", "w", "h", "class_probability", "confidence")
LENGTH = OBJECTS * len(VALUES)

_STRIDE = 32  # of the coarsest of the network's grids: sides must be multiples
_PADDING = 114  # grey, as in training
_CPU_BATCH = 1  # larger ones gain next to nothing on a core (benchmarks/steps.py)
_GPU_BATCH = 32


class ObjectsSpec(StreamSpecBase):
    """The five most confident YOLOv5 objects, six values each: centre, size, class probability, confidence."""

    uses_gpu: ClassVar[bool] = True
    stored_shape: ClassVar[tuple[int, ...]] = (LENGTH,)

    kind: Literal["objects"] = "objects"
    model: Literal["yolov5n", "yolov5s"] = "yolov5n"
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    precision: Precision = "float32"
    image_px: int = Field(640, ge=32, multiple_of=32)
    min_confidence: float = Field(0.25, gt=0, lt=1)

    def make(self, device: str) -> ObjectsStream:
        """Return the extractor with its network loaded, see `make_objects`."""
        return make_objects(self, device)

    def weights_wanted(self) -> WeightsSpec:
        """Return the spec's weights, or the registry's default weights of the model."""
        from emofuse.weights import default_weights

        return self.weights or default_weights(self.model)


class _Letterbox(NamedTuple):
    """A picture scaled into the network's square and padded to the stride.

    Attributes:
        image: the padded picture, (h, w, 3) uint8.
        scale: the pixels of the letterbox per pixel of the picture, (2,) x and y.
        offset: the place of the picture's top left corner in the letterbox, (2,) x and y.
    """

    image: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]


class ObjectsStream:
    """YOLOv5 -> (5 objects x 6 values), most confident first, zeros behind them.

    An object's centre and size are shares of the picture's width and height, 0 to 1. A picture passes the network in
    the smallest rectangle that its shape needs, in one batch with pictures that need the same rectangle. Its boxes
    therefore equal those of `YOLO(...).predict(picture)`.

    Args:
        make: the function that makes the network.
        image_px: the longer side of the pictures that it sees.
        min_confidence: the least score of an object.
        device: its device, as torch names it.
        precision: the precision of its values.
        identity: what decides the values that it computes, as JSON holds it; None keeps no compiled form of it.
    """

    shape = (LENGTH,)
    dimensions = VECTOR
    dtype = np.dtype(np.float32)
    needs = NEEDS_IMAGE
    flag_names: tuple[str, ...] = ()
    columns = tuple(f"object{number}_{value}" for number in range(1, OBJECTS + 1) for value in VALUES)

    def __init__(
        self,
        make: Callable[[], nn.Module],
        *,
        image_px: int,
        min_confidence: float,
        device: str,
        precision: Precision = "float32",
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        from emofuse.streams.networks.detection import YoloDetector

        self._detector = YoloDetector(
            make, min_confidence=min_confidence, device=device, precision=precision, identity=identity
        )
        self._batch = _CPU_BATCH if device == "cpu" else _GPU_BATCH
        self._image_px = image_px

    @property
    def network(self) -> Any:
        """The detection network, its batch norms folded into the convolutions."""
        return self._detector.network

    @property
    def runtime(self) -> str:
        """What computes the network: `torch`, or `openvino` with its version."""
        return self._detector.runtime

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the objects of n pictures.

        Returns:
            features (n, 30) float32; NO_DETECTION where no object reaches the confidence asked for.
        """
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.NO_DETECTION)
        for row, objects in enumerate(self.detect([sample.image for sample in samples])):
            best = objects[:OBJECTS, [0, 1, 2, 3, 4, 4]]
            if len(best):
                rows.features[row, : best.size] = best.ravel()
                rows.status[row] = Status.OK
        return rows

    def detect(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """Detect all objects of n pictures (H, W, 3) uint8 RGB.

        Returns:
            n arrays (k, 6) float32, most confident first: centre x, centre y, width, height as shares of the picture,
            score, class number.
        """
        boxes = [_letterbox(image, self._image_px) for image in images]
        objects: list[npt.NDArray[np.float32]] = [np.zeros((0, len(VALUES)), np.float32)] * len(images)
        for rows in _batches_of_one_shape(boxes, self._batch):
            for row, in_box in zip(rows, self._detector.boxes([boxes[row].image for row in rows]), strict=True):
                objects[row] = _in_shares(in_box, boxes[row], images[row])
        return objects

    def close(self) -> None:
        """Do nothing: the garbage collector releases the network."""


def make_objects(spec: ObjectsSpec, device: str) -> ObjectsStream:
    """Make the stream of a spec.

    Raises:
        StreamError: ultralytics is not installed, or the device cannot be used.
        WeightsError: the weights are missing, damaged, or another model's.
    """
    from emofuse.weights import REGISTRY, resolve_weights

    weights = resolve_weights(spec.weights_wanted())
    entry = REGISTRY.get(weights.name) if weights.kind == "registry" else None
    if entry is not None and entry.model != spec.model:
        raise WeightsError(f"the weights {entry.name!r} are of {entry.model}, the spec's model is {spec.model}")

    def make() -> nn.Module:
        from emofuse.streams.networks.yolo import load_yolo, random_yolo

        return random_yolo(spec.model, weights.seed or 0) if weights.path is None else load_yolo(weights.path)

    return ObjectsStream(
        make,
        image_px=spec.image_px,
        min_confidence=spec.min_confidence,
        device=device,
        precision=spec.precision,
        identity=detector_identity(spec.model, weights),
    )


def detector_identity(model: str, weights: ResolvedWeights) -> dict[str, Any]:
    """Return what decides the values that a detection network computes, as JSON holds it."""
    return {"model": f"objects {model}", "sha256": weights.sha256, "seed": weights.seed}


def _batches_of_one_shape(boxes: Sequence[_Letterbox], largest: int) -> list[list[int]]:
    """Return the indices of letterboxed pictures in batches of one shape, at most `largest` in each."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, box in enumerate(boxes):
        by_shape.setdefault(box.image.shape, []).append(index)
    return [rows[first : first + largest] for rows in by_shape.values() for first in range(0, len(rows), largest)]


def _in_shares(
    corners_in_box: npt.NDArray[np.float32], box: _Letterbox, image: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Convert corners in pixels of the letterbox to centres and sizes in shares of the picture, (k, 6)."""
    height, width = image.shape[:2]
    corners = (corners_in_box[:, :4].reshape(-1, 2, 2) - box.offset) / box.scale
    corners = (corners / np.array([width, height], dtype=np.float32)).clip(0, 1)
    shares = [corners.mean(axis=1), corners[:, 1] - corners[:, 0], corners_in_box[:, 4:]]
    return np.concatenate(shares, axis=1, dtype=np.float32)


def _letterbox(image: npt.NDArray[np.uint8], longest_px: int) -> _Letterbox:
    """Scale a picture so that its longer side is `longest_px`, and pad both sides to multiples of the stride.

    The result equals that of ultralytics: bilinear, with its rounding of the sides and of an odd pixel of padding.
    """
    import cv2

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
