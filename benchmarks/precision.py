"""Measure how far features in bfloat16 are from those in float32, on real photographs and with published weights.

    python -m benchmarks.precision

The folder `../shared/data` (`--data`) holds `faces/images` and, in `models`, weights of MobileNetV2, SqueezeNet and
EfficientNet-Lite0; ResNet-50 has random ones. 24 photographs are reduced to 224 x 224 pixels and scaled alike for all
networks (`benchmarks.runtimes`). Distances are the smallest cosine of two rows, and the largest difference in shares of
the largest value. The numbers are no times; how fast the runtimes are is in `benchmarks.runtimes`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from benchmarks.detection import upright_photographs
from benchmarks.faces import SHARED
from benchmarks.results_file import RESULTS, write_result
from benchmarks.runtimes import runtimes_of
from emofuse.specs import FileWeights, RandomWeights
from emofuse.streams.networks.outputs import make_torchvision_network
from emofuse.weights import resolve_weights

PHOTOGRAPHS, SIDE_PX = 24, 224
NETWORKS = {
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
    "squeezenet1_1": "squeezenet1_1.pth",
    "timm/tf_efficientnet_lite0": "tf_efficientnet_lite0_fp16.safetensors",
    "resnet50": "",
}
"""Network -> its file of weights; random ones without."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write `results/precision.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pictures = as_batch(upright_photographs(chosen.data, PHOTOGRAPHS))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, file in NETWORKS.items():
        ways = dict(runtimes_of(make(name, chosen.data / "models" / file if file else None), pictures))
        expected = ways.pop("torch float32")()
        found[name] = {way: distance(compute(), expected) for way, compute in ways.items()}
        print(name, found[name], flush=True)
        random = [network for network, weights in NETWORKS.items() if not weights]
        numbers: dict[str, Any] = {"photographs": len(pictures), "random_weights": random, "distances": found}
        path = write_result("precision", numbers, folder=chosen.out)
    print(path)


def make(name: str, weights: Path | None) -> nn.Module:
    """Return a network that gives its pooled features."""
    resolved = resolve_weights(RandomWeights(seed=0) if weights is None else FileWeights(path=weights))
    if name.startswith("timm/"):
        from emofuse.streams.networks.timm_networks import make_timm_network

        return make_timm_network(name.removeprefix("timm/"), resolved).module
    return make_torchvision_network(name, resolved).module


def as_batch(photographs: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
    """Return photographs as one batch, uint8 (n, 3, SIDE_PX, SIDE_PX)."""
    size = (SIDE_PX, SIDE_PX)
    small = [np.asarray(Image.fromarray(photograph).resize(size)) for photograph in photographs]
    return torch.from_numpy(np.stack(small).transpose(0, 3, 1, 2).copy())


def distance(features: npt.NDArray[Any], expected: npt.NDArray[Any]) -> dict[str, float]:
    """Return the smallest cosine of rows, and the largest difference in shares of the largest value."""
    ours, theirs = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (features, expected))
    cosines = (ours * theirs).sum(axis=1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
    largest = np.abs(ours - theirs).max() / np.abs(theirs).max()
    return {"smallest_cosine": round(float(cosines.min()), 6), "largest_difference": float(f"{largest:.2g}")}


if __name__ == "__main__":
    main()
