"""YOLO networks of the `ultralytics` package (AGPL-3.0), loaded without the package's side effects.

Importing ultralytics writes settings under the home directory, tries the internet, replaces `PIL.Image.open` (decoding
an unknown file would then try to install a package), sets OpenCV's threads and changes the environment. Loading a model
unpickles code. This module prevents or undoes all of that and keeps only the network.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from emofuse.errors import StreamError, WeightsError
from emofuse.specs.weights import Precision
from emofuse.streams.networks.presets import send
from emofuse.streams.networks.random_weights import seeded
from emofuse.streams.networks.torchvision_parts import batched_nms, box_convert
from emofuse.weights.content import why_no_model

CHECKED = ((96, 128), (128, 64))
"""The sizes of pictures on which a compiled network is held to PyTorch's."""

# Words and not digits: release 8.4.70 does not understand 0 and 1.
_QUIET = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",
}


class DetectionGraph(nn.Module):
    """A network with the scaling of its pictures: (1, h, w, 3) uint8 -> its output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
        """Return the output of the network as the only one."""
        return (self.network(pictures.permute(0, 3, 1, 2).float() / 255)[0],)


@contextmanager
def anchors_of_every_size(head: Any) -> Iterator[None]:
    """Let the last layer compute its anchors from the size of each picture, as a trace needs it."""
    before, head.dynamic = head.dynamic, True
    try:
        yield
    finally:
        head.dynamic = before
        head.shape = None  # anchors that a trace has made are not used again


def lower_body(network: Any) -> None:
    """Convert all layers but the last to bfloat16, in place.

    The last layer computes coordinates of up to 640 pixels, for which eight bits are too few: it stays in float32.
    """
    *body, last = network.model
    for layer in body:
        layer.to(torch.bfloat16)
    last.register_forward_pre_hook(lambda _, args: ([maps.float() for maps in args[0]],))


def fused(network: nn.Module, device: str, precision: Precision) -> nn.Module:
    """Return a network on a device, with its batch norms folded into the convolutions.

    Raises:
        StreamError: the device cannot be used.
    """
    whole: Any = network
    try:
        ready: nn.Module = whole.eval().float().fuse(verbose=False).to(device).to(memory_format=torch.channels_last)
    except (RuntimeError, AssertionError) as error:
        raise StreamError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    if precision == "bfloat16":
        lower_body(ready)
    return ready


def raw_output(
    network: nn.Module, pictures: list[npt.NDArray[np.uint8]], device: str, precision: Precision
) -> torch.Tensor:
    """Return the output (B, 4 + classes, positions) of a network for B pictures of one shape."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    batch = send([torch.from_numpy(picture) for picture in pictures], torch.device(device)).permute(0, 3, 1, 2)
    raw: torch.Tensor = network((batch.float() / 255).to(dtype, memory_format=torch.channels_last))[0]
    return raw


def boxes_of(raw: torch.Tensor, min_confidence: float, iou: float) -> list[npt.NDArray[np.float32]]:
    """Return the boxes of B pictures from the network's output, see `YoloDetector.boxes`."""
    scores, classes = raw[:, 4:].max(dim=1)
    owners, positions = (scores > min_confidence).nonzero(as_tuple=True)
    columns = [scores[owners, positions], classes[owners, positions].float(), owners.float()]
    corners = box_convert(raw[owners, :4, positions], "cxcywh", "xyxy")
    # The boxes are few, so suppress them on the CPU: a GPU then waits once a batch.
    sure = torch.cat([corners, torch.stack(columns, dim=1)], dim=1).cpu()
    return [_suppressed(sure[sure[:, 6] == owner, :6], iou) for owner in range(len(raw))]


def _suppressed(boxes: torch.Tensor, iou: float) -> npt.NDArray[np.float32]:
    """Drop every box (k, 6) that a more confident one of its class covers; return the others, most confident first."""
    kept: npt.NDArray[np.float32] = boxes[batched_nms(boxes[:, :4], boxes[:, 4], boxes[:, 5], iou)].numpy()
    return kept


def random_yolo(model: str, seed: int) -> nn.Module:
    """Make a detection network with its own initialisation, seeded. The global random state stays as it is.

    Args:
        model: the name of its definition in ultralytics, `yolov5n`.
        seed: the seed of torch's random numbers.

    Raises:
        StreamError: ultralytics is not installed.
    """
    with _contained(), seeded(seed), tempfile.TemporaryDirectory(prefix="emofuse-") as folder:
        ultralytics = _ultralytics()
        # Given a bare name, ultralytics would prefer a file of the working folder and evaluate its text as Python.
        definitions = Path(ultralytics.__file__).parent / "cfg" / "models"
        packaged = next(definitions.glob(f"*/{model[:-1]}.yaml"))  # one for all sizes; the last letter is the size
        definition = Path(folder) / f"{model}.yaml"
        definition.write_bytes(packaged.read_bytes())
        network: nn.Module = ultralytics.YOLO(str(definition), task="detect", verbose=False).model
    return network


def load_yolo(path: Path) -> nn.Module:
    """Load the detection network of an ultralytics checkpoint weights-only: known layers and tensors, no code.

    Raises:
        StreamError: ultralytics is not installed.
        WeightsError: ultralytics cannot load weights-only here, or the file is not such a checkpoint.
    """
    reason = why_no_model(path)
    if reason is not None:
        raise WeightsError(f"{path} {reason}")
    with _contained(), tempfile.TemporaryDirectory(prefix="emofuse-") as folder:
        ultralytics = _ultralytics()
        _check_safe_loading(ultralytics)
        # ultralytics reads yolov5nu.pt for yolov5n.pt, drops apostrophes and accepts only .pt: give it a plain name.
        link = Path(folder) / "checkpoint_u.pt"
        link.symlink_to(path.resolve())
        try:
            yolo = ultralytics.YOLO(str(link), task="detect")
        except Exception as error:  # noqa: BLE001 - it raises what its unpickler, its checks and torch raise
            text = " ".join(str(error).replace(str(link), str(path)).split())
            raise WeightsError(
                f"{path} is no YOLO checkpoint of ultralytics ({type(error).__name__}: {text[:300]})"
            ) from None
    network = yolo.model
    if yolo.task != "detect" or not isinstance(network, nn.Module):
        raise WeightsError(f"{path} is a network for the task {yolo.task!r}, expected 'detect'")
    return network


def _check_safe_loading(ultralytics: Any) -> None:
    """Check that the next load is restricted to known layers: older releases would run the code in the file.

    Raises:
        WeightsError: it is not.
    """
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise WeightsError(f"torch {torch.__version__} cannot load YOLO checkpoints weights-only: install torch >= 2.6")
    if not getattr(ultralytics.utils, "SAFE_LOAD", False):
        raise WeightsError(
            f"ultralytics {ultralytics.__version__} would run the code in a checkpoint: it is older than its option "
            "ULTRALYTICS_SAFE_LOAD, or was imported without it. Upgrade ultralytics, or set ULTRALYTICS_SAFE_LOAD=true "
            "before it is imported"
        )


@cache
def _ultralytics() -> Any:
    """Import the package. Its settings go to a temporary folder unless the user has named one."""
    folder = tempfile.TemporaryDirectory(prefix="emofuse-ultralytics-")
    for name, value in {**_QUIET, "YOLO_CONFIG_DIR": folder.name}.items():
        os.environ.setdefault(name, value)
    try:
        ultralytics: Any = import_module("ultralytics")
    except ImportError as error:
        raise StreamError(
            f"the stream 'objects' needs the package ultralytics: pip install ultralytics ({error})"
        ) from None
    _KEPT_UNTIL_EXIT.append(folder)
    _ = ultralytics.YOLO  # imports lazily, so do it here, where the side effects are contained
    return ultralytics


_KEPT_UNTIL_EXIT: list[tempfile.TemporaryDirectory[str]] = []


@contextmanager
def _contained() -> Iterator[None]:
    """Restore what ultralytics changes outside itself: the environment, Pillow, and the threads of OpenCV and torch."""
    environment = dict(os.environ)
    image_open, cv2_threads, torch_threads = Image.open, cv2.getNumThreads(), torch.get_num_threads()
    try:
        with np.printoptions():
            yield
    finally:
        Image.open = image_open
        cv2.setNumThreads(cv2_threads)
        torch.set_num_threads(torch_threads)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
