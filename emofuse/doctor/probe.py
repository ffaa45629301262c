"""Looks that load foreign code, taken in another process: what crashes there is reported here.

One process takes one look after another and writes each answer down. If it dies, the look that it was taking is to
blame, and another process goes on behind it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from emofuse.interpreter import command

_TIMEOUT_S = 180
_LAST_WORDS = 300
_TIMES = 20  # of which the fastest counts


@dataclass(frozen=True)
class Answer:
    """What came of a look.

    Attributes:
        value: plain JSON; None if there is a problem.
        problem: why there is no value, in one line, or "".
    """

    value: Any
    problem: str = ""


def ask(looks: Sequence[str]) -> dict[str, Answer]:
    """Look -> its answer, for looks as `LOOKS` names them, with their argument: `import numpy`."""
    answers: dict[str, Answer] = {}
    while lacking := [look for look in looks if look not in answers]:
        given, ended = _ask_once(lacking)
        answers |= given
        if len(given) < len(lacking):
            answers[lacking[len(given)]] = Answer(None, ended)
    return answers


def _ask_once(looks: Sequence[str]) -> tuple[dict[str, Answer], str]:
    """Answers of one process in the order of the looks, as far as it came, and how it ended."""
    with tempfile.TemporaryDirectory(prefix="emofuse-doctor-") as folder:
        written = Path(folder, "answers.jsonl")
        written.touch()
        # ultralytics writes settings where it finds no folder of its own, and looks for a network
        quiet = {"YOLO_CONFIG_DIR": folder, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "MPLCONFIGDIR": folder}
        quiet["TMPDIR"] = folder  # what a process that is killed leaves goes with it
        try:
            done = subprocess.run(  # noqa: S603  this interpreter, and names from this package
                command(__name__, str(written), *looks),
                env={**os.environ, **quiet},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
            last_words = " ".join(done.stderr.decode(errors="replace").split())[-_LAST_WORDS:]
            ended = f"its process ended with status {done.returncode}" + (f": {last_words}" if last_words else "")
        except subprocess.TimeoutExpired:
            ended = f"no answer within {_TIMEOUT_S} s"
        lines = written.read_text(encoding="utf-8").splitlines(keepends=True)
    answers = [Answer(**json.loads(line)) for line in lines if line.endswith("\n")]  # all but one half written
    return dict(zip(looks, answers, strict=False)), ended


def _import(module: str) -> str | None:
    """The version that a package says of itself when it is imported."""
    version = getattr(import_module(module), "__version__", None)
    return None if version is None else str(version)


def _cuda(_: str) -> list[dict[str, Any]]:
    """Name and memory of every CUDA device that torch can use."""
    torch = import_module("torch")
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": device.name, "memory_bytes": device.total_memory} for device in devices]


def _bfloat16(_: str) -> float:
    """How many times as fast as float32 a convolution of a network is in bfloat16, on one thread of this CPU."""
    torch = import_module("torch")
    torch.set_num_threads(1)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Conv2d(256, 256, 3, padding=1).to(dtype, memory_format=torch.channels_last)
        maps = torch.ones(4, 256, 14, 14, dtype=dtype).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds[dtype] = min(timeit.repeat(partial(layer, maps), number=1, repeat=_TIMES))
    return float(seconds[torch.float32] / seconds[torch.bfloat16])


def _codec(_: str) -> str:
    """The codec pipeline with which emofuse reads caches."""
    import_module("emofuse.cache.reader")
    return str(import_module("zarr").config.get("codec_pipeline.path"))


def _face(detector: str) -> str:
    """Starts a face detector, runs it once, and names its models."""
    specs, faces, numpy = (import_module(name) for name in ("emofuse.specs", "emofuse.streams.faces", "numpy"))
    spec = specs.FaceSpec(detector=detector)
    opened = faces.make_face_detector(spec)
    try:
        opened.detect(numpy.zeros((64, 64, 3), numpy.uint8))
    finally:
        opened.close()
    return ", ".join(path.name for path in faces.model_files(spec))


def _dim(model: str) -> int:
    """Width of the pooled features of a torchvision model. Built without memory."""
    names = ("torch", "torchvision.models", "emofuse.streams.backbones")
    torch, models, backbones = (import_module(name) for name in names)
    backbones.check_model(model)
    with torch.device("meta"):
        return int(backbones.cut_head(models.get_model(model, weights=None)))


LOOKS: Mapping[str, Callable[[str], Any]] = {
    "import": _import,
    "cuda": _cuda,
    "bfloat16": _bfloat16,
    "codec": _codec,
    "face": _face,
    "dim": _dim,
}


def main(arguments: Sequence[str]) -> None:
    """In the other process: takes every look and writes its answer at once."""
    written, *looks = arguments
    for look in looks:
        name, _, argument = look.partition(" ")
        try:
            answer = {"value": LOOKS[name](argument)}
        except Exception as error:  # noqa: BLE001 - that it fails, and how, is the answer
            text = " ".join(str(error).split())
            answer = {"value": None, "problem": f"{type(error).__name__}: {text}"}
        with Path(written).open("a", encoding="utf-8") as file:
            file.write(json.dumps(answer) + "\n")
