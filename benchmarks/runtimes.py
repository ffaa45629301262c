"""Time networks on one thread of a CPU: eager PyTorch, OpenVINO and ONNX Runtime, in float32 and bfloat16.

The machine may be shared, so CPU time counts and not the clock, all contenders of a network take turns in one run, and
medians are kept. Weights are random: they do not change the time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.results_file import cpu_name, write_result
from emofuse.specs.weights import RandomWeights
from emofuse.streams.networks.compiled import converted_model, difference, noise
from emofuse.streams.networks.outputs import make_torchvision_network
from emofuse.streams.networks.yolo import random_yolo
from emofuse.streams.runtimes import import_openvino
from emofuse.weights import resolve_weights

NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0", "vit_b_16", "timm/vit_tiny_patch16_224", "yolov5n")
BATCHES = (1, 4, 16)
_LARGE = ("vit_b_16",)  # not in the largest batch, which takes minutes
_ROUNDS = 5


class Graph(nn.Module):
    """A network with the scaling of its pictures: (n, 3, h, w) uint8 -> (n, ...)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the first output of the network."""
        returned = self.network((pictures.float() / 255 - 0.45) / 0.225)
        first: torch.Tensor = returned[0] if isinstance(returned, tuple | list) else returned
        return first


def make_network(name: str) -> nn.Module:
    if name.startswith("yolo"):
        fused: Any = random_yolo(name, 0)
        network: nn.Module = fused.eval().fuse(verbose=False)
        return network
    weights = resolve_weights(RandomWeights(seed=0))
    if name.startswith("timm/"):
        from emofuse.streams.networks.timm_networks import make_timm_network

        return make_timm_network(name.removeprefix("timm/"), weights).module
    return make_torchvision_network(name, weights).module


Contender = Callable[[], npt.NDArray[Any]]


def runtimes_of(network: nn.Module, pictures: torch.Tensor) -> Iterator[tuple[str, Contender]]:
    """Yield the name of each way of PyTorch and OpenVINO to compute a batch, and a function that computes it."""
    graph = Graph(network.to(memory_format=torch.channels_last)).eval()
    array = pictures.numpy()

    def eager() -> npt.NDArray[Any]:
        with torch.inference_mode():
            scaled = ((pictures.float() / 255 - 0.45) / 0.225).to(memory_format=torch.channels_last)
            returned = network(scaled)
            return np.asarray((returned[0] if isinstance(returned, tuple | list) else returned).numpy())

    yield "torch float32", eager

    def eager_bfloat16() -> npt.NDArray[Any]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            scaled = ((pictures.float() / 255 - 0.45) / 0.225).to(memory_format=torch.channels_last)
            returned = network(scaled)
            return np.asarray((returned[0] if isinstance(returned, tuple | list) else returned).float().numpy())

    yield "torch bfloat16", eager_bfloat16
    openvino = import_openvino()
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
        model = converted_model(graph, pictures)
        model.reshape(list(pictures.shape))
        hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
        compiled = openvino.Core().compile_model(model, "CPU", {**hints, "ENABLE_CPU_PINNING": False})
        yield f"openvino {precision}", lambda compiled=compiled: np.asarray(compiled(array)[0])


def contenders(network: nn.Module, pictures: torch.Tensor, folder: Path) -> Iterator[tuple[str, Contender]]:
    """Yield the name of each way to compute a batch, and a function that computes it."""
    yield from runtimes_of(network, pictures)
    graph, array = Graph(network).eval(), pictures.numpy()
    file = folder / "network.onnx"
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.onnx.export(graph, (pictures,), str(file), dynamo=False)  # the other exporter needs onnxscript
    torch.backends.mha.set_fastpath_enabled(fast)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    yield "onnxruntime float32", lambda: np.asarray(session.run(None, {name: array})[0])


def measure(name: str, batch: int) -> dict[str, dict[str, Any]]:
    """Return contender -> milliseconds of CPU time an image, and its largest difference from eager PyTorch."""
    network = make_network(name)
    size = 640 if name.startswith("yolo") else 224
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Contender] = {}
        made = contenders(network, noise(batch, 3, size, size), Path(folder))
        try:
            ways.update(made)  # those before a failure are kept
        except Exception as error:  # noqa: BLE001 - the others are measured, and the reason is written
            results["not measured"] = {"reason": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        expected = ways["torch float32"]()
        times: dict[str, list[float]] = {contender: [] for contender in ways}
        apart = {contender: difference(compute(), expected) for contender, compute in ways.items()}
        for _ in range(_ROUNDS):
            for contender, compute in ways.items():
                start = time.process_time()
                compute()
                times[contender].append(time.process_time() - start)
    for contender, seconds in times.items():
        milliseconds = 1000 * statistics.median(seconds) / batch
        results[contender] = {"ms_an_image": round(milliseconds, 2), "difference": float(f"{apart[contender]:.1e}")}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=NETWORKS, help="the networks to measure")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = {}
    for name in chosen.only:
        rows[name] = {
            f"batch {batch}": measure(name, batch) for batch in BATCHES if batch < max(BATCHES) or name not in _LARGE
        }
        print(name, rows[name], flush=True)
        family = cpu_name().split("@")[0].strip().lower().replace(" ", "_")
        write_result(f"runtimes_{family}", {"threads": 1, "networks": rows}, script="runtimes")


if __name__ == "__main__":
    main()
