"""YOLO networks of the `ultralytics` package (AGPL-3.0), taken from it without its habits.

Importing ultralytics writes settings under the home directory, looks for a network, replaces `PIL.Image.open` (decoding
a strange file would then try to install a package), sets OpenCV's threads and changes the environment; loading a model
unpickles code. Here all of that is held off or put back, and only the network is kept.
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
import torch
from PIL import Image
from torch import nn

from emofuse.errors import StreamError, WeightsError
from emofuse.streams.random_weights import seeded
from emofuse.weights.content import why_no_model

# Spelt out: older releases (8.4.70) know no 0 and 1.
_QUIET = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",
}


def random_yolo(model: str, seed: int) -> nn.Module:
    """A detection network with its own initialisation, seeded; the global random state is left alone.

    Args:
        model: as ultralytics names its definition, `yolov5n`.
        seed: of torch's random numbers.

    Raises:
        StreamError: ultralytics is not installed.
    """
    with _contained(), seeded(seed), tempfile.TemporaryDirectory(prefix="emofuse-") as folder:
        ultralytics = _ultralytics()
        # By name alone it would take a file of the working folder first, and evaluate what that says as Python.
        definitions = Path(ultralytics.__file__).parent / "cfg" / "models"
        own = next(definitions.glob(f"*/{model[:-1]}.yaml"))  # one for all sizes, which the last letter names
        definition = Path(folder) / f"{model}.yaml"
        definition.write_bytes(own.read_bytes())
        network: nn.Module = ultralytics.YOLO(str(definition), task="detect", verbose=False).model
    return network


def load_yolo(path: Path) -> nn.Module:
    """The detection network in a checkpoint of ultralytics, loaded weights-only: known layers and tensors, no code.

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
        # ultralytics takes yolov5n.pt for yolov5nu.pt, drops apostrophes and reads nothing but .pt: a plain name.
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
    """Raises unless the next load is restricted to known layers: older releases would unpickle what the file says."""
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
    """The package, imported so that its settings go to a folder of this process's own unless the user named one."""
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
    _ = ultralytics.YOLO  # imported when first asked for, so here, where its effects are held off
    return ultralytics


_KEPT_UNTIL_EXIT: list[tempfile.TemporaryDirectory[str]] = []


@contextmanager
def _contained() -> Iterator[None]:
    """Puts back what ultralytics changes outside itself."""
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
