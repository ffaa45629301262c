"""Probes that load foreign code, run in another process: what crashes there is reported here.

One process runs one probe after another and writes each reply down. If it dies, the probe that was running is to blame,
and another process goes on with the next one.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from emofuse.machine.interpreter import command

_TIMEOUT_S = 180
_LAST_CHARACTERS = 300  # of what a process wrote to its error stream before it ended
_REPEATS = 20  # of which the fastest counts


@dataclass(frozen=True)
class ProbeReply:
    """The reply of a probe.

    Attributes:
        value: plain JSON; None if there is a problem.
        problem: why there is no value, in one line; "" if there is one.
    """

    value: Any
    problem: str = ""


def run_probes(probes: Sequence[str]) -> dict[str, ProbeReply]:
    """Run probes in other processes and return the reply of each.

    Args:
        probes: names of `PROBES`, each with its argument behind a space: `import numpy`.
    """
    replies: dict[str, ProbeReply] = {}
    while remaining := [probe for probe in probes if probe not in replies]:
        new_replies, end = _run_in_one_process(remaining)
        replies |= new_replies
        if len(new_replies) < len(remaining):
            replies[remaining[len(new_replies)]] = ProbeReply(None, end)
    return replies


def _run_in_one_process(probes: Sequence[str]) -> tuple[dict[str, ProbeReply], str]:
    """Return the replies of one process, in the order of the probes, until it ended, and how it ended."""
    with tempfile.TemporaryDirectory(prefix="emofuse-doctor-") as folder:
        written = Path(folder, "replies.jsonl")
        written.touch()
        # ultralytics writes settings where it finds no folder of its own, and looks for a network
        quiet = {"YOLO_CONFIG_DIR": folder, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "MPLCONFIGDIR": folder}
        quiet["TMPDIR"] = folder  # temporary files of a killed process are deleted with this folder
        try:
            done = subprocess.run(  # noqa: S603  this interpreter, and names from this package
                command(__name__, str(written), *probes),
                env={**os.environ, **quiet},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
            errors = " ".join(done.stderr.decode(errors="replace").split())[-_LAST_CHARACTERS:]
            end = f"its process ended with status {done.returncode}" + (f": {errors}" if errors else "")
        except subprocess.TimeoutExpired:
            end = f"no reply within {_TIMEOUT_S} s"
        lines = written.read_text(encoding="utf-8").splitlines(keepends=True)
    replies = [ProbeReply(**json.loads(line)) for line in lines if line.endswith("\n")]  # a cut line is no reply
    return dict(zip(probes, replies, strict=False)), end


def _import(module: str) -> str | None:
    """Return the version that an imported package states, or None if it states none."""
    if module == "openvino":  # which reports its import to a server, unless it is imported so
        return str(import_module("emofuse.streams.runtimes").import_openvino().__version__)
    version = getattr(import_module(module), "__version__", None)
    return None if version is None else str(version)


def _cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the least time of all repeats, in seconds of this process's own CPU time: other programs do not count."""
    return min(timeit.repeat(call, timer=time.process_time, number=1, repeat=_REPEATS))


def _cuda(_: str) -> list[dict[str, Any]]:
    """Return the name and memory of every CUDA device that torch can use."""
    torch = import_module("torch")
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": device.name, "memory_bytes": device.total_memory} for device in devices]


def _bfloat16(_: str) -> float:
    """Return how many times as fast as in float32 a convolution is in bfloat16, on one thread of this CPU."""
    torch = import_module("torch")
    torch.set_num_threads(1)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Conv2d(256, 256, 3, padding=1).to(dtype, memory_format=torch.channels_last)
        maps = torch.ones(4, 256, 14, 14, dtype=dtype).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds[dtype] = _cpu_seconds(partial(layer, maps))
    return float(seconds[torch.float32] / seconds[torch.bfloat16])


def _runtime(_: str) -> dict[str, Any]:
    """Return what `auto` means as the runtime of networks on this CPU, and how much faster OpenVINO is than PyTorch.

    Both compute a MobileNetV2 on one thread.
    """
    runtimes, torch = import_module("emofuse.streams.runtimes"), import_module("torch")
    reply = {
        "auto": runtimes.resolve_runtime("auto", "cpu"),
        "by_variable": os.environ.get(runtimes.VARIABLE) not in {None, "", "auto"},
        "openvino": runtimes.openvino_version(),
    }
    if reply["openvino"] is None:
        return reply
    compiled = import_module("emofuse.streams.networks.compiled")
    models = import_module("emofuse.streams.networks.torchvision_parts").models
    torch.set_num_threads(1)
    network = models.mobilenet_v2(weights=None).eval().to(memory_format=torch.channels_last)
    pictures = torch.ones(1, 3, 224, 224).to(memory_format=torch.channels_last)
    graph = compiled.compile_network(network, [pictures], threads=1)
    with torch.inference_mode():
        plain = _cpu_seconds(partial(network, pictures))
    fast = _cpu_seconds(partial(graph, pictures.contiguous().numpy()))
    return {**reply, "speed_up": plain / fast}


def _products(_: str) -> float:
    """Return how many times as fast as in float32 the products of a head are in bfloat16, on one thread of this CPU.

    They are those of the paper's width: rows times weights, and the gradient of the weights, which are cast each time.
    """
    torch, arithmetic = import_module("torch"), import_module("emofuse.heads.arithmetic")
    torch.set_num_threads(1)
    rows, weights, slopes = torch.ones(256, 2048), torch.ones(512, 2048), torch.ones(256, 512)
    seconds = {}
    with arithmetic.fast_arithmetic(torch.device("cpu")):
        for dtype in (torch.float32, torch.bfloat16):

            def step(dtype: Any = dtype) -> None:
                cast = rows.to(dtype)
                (cast @ weights.to(dtype).T).float()
                (slopes.to(dtype).T @ cast).float()

            seconds[dtype] = _cpu_seconds(step)
    return float(seconds[torch.float32] / seconds[torch.bfloat16])


def _codec(_: str) -> str:
    """Return the codec pipeline that emofuse sets for caches."""
    import_module("emofuse.cache.reader")
    return str(import_module("zarr").config.get("codec_pipeline.path"))


def _face(detector: str) -> str:
    """Start a face detector, run it once, and return the names of its model files.

    Behind its name there may be its options and what streams need of faces, as JSON: `yunet {"face": {}, "needs": []}`.
    """
    specs, faces, numpy = (import_module(name) for name in ("emofuse.specs", "emofuse.streams.faces", "numpy"))
    name, _, written = detector.partition(" ")
    given = json.loads(written) if written else {}
    spec = specs.FaceSpec(**{**given.get("face", {}), "detector": name})
    needs = frozenset(given.get("needs", ("image", "face")))
    face_detector = faces.make_face_detector(spec, needs)
    try:
        face_detector.detect(numpy.zeros((64, 64, 3), numpy.uint8))
    finally:
        face_detector.close()
    return ", ".join(path.name for path in faces.model_files(spec, needs))


def _dim(model: str) -> int:
    """Return the width of the pooled features of a torchvision model, built on the meta device, without memory."""
    names = ("torch", "torchvision.models", "emofuse.streams.networks.classification")
    torch, models, backbones = (import_module(name) for name in names)
    backbones.check_model(model)
    with torch.device("meta"):
        return int(backbones.cut_head(models.get_model(model, weights=None)))


PROBES: Mapping[str, Callable[[str], Any]] = {
    "import": _import,
    "cuda": _cuda,
    "bfloat16": _bfloat16,
    "runtime": _runtime,
    "products": _products,
    "codec": _codec,
    "face": _face,
    "dim": _dim,
}


def main(arguments: Sequence[str]) -> None:
    """Run probes in this process and write each reply as soon as it is there; called in the other process."""
    written, *probes = arguments
    for probe in probes:
        name, _, argument = probe.partition(" ")
        try:
            reply = {"value": PROBES[name](argument)}
        except Exception as error:  # noqa: BLE001 - any failure is the reply
            text = " ".join(str(error).split())
            reply = {"value": None, "problem": f"{type(error).__name__}: {text}"}
        with Path(written).open("a", encoding="utf-8") as file:
            file.write(json.dumps(reply) + "\n")
