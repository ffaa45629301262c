"""Measure the time of extraction: each step alone on one core, the whole build, and a script of six passes.

    python -m benchmarks.extraction [--images 256] [--repeats 3]

Images are the demo's, drawn as JPEG of 500 x 400 pixels; networks have random weights, of which speed does not depend.
Steps are medians on one thread (`benchmarks/steps.py`); one worker's build beside their sum says what the pipeline
costs. The build and the six passes (`benchmarks/six_passes.py`) take turns on all cores, whole processes from start to
end, so that ratios are of one run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.results_file import write_result
from benchmarks.steps import FACE_STREAMS, SIX_STREAMS, time_meshes, time_steps
from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.datasets.demo.generator import draw_sample
from emofuse.datasets.demo.truth import plan_samples
from emofuse.extraction import BuildOptions, build_cache
from emofuse.specs import (
    BackboneSpec,
    CacheSpec,
    FileWeights,
    FolderSpec,
    ObjectsSpec,
    Places365Spec,
    RandomWeights,
    StratifiedSplit,
    StreamSpec,
)

SIZE = (500, 400)
QUALITY = 90
BLOCK_ROWS = 32
NETWORKS = {"resnet50": 1000, "places365": 365}
ONE_WORKER = "six_streams_of_one_worker"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        paths = draw_images(work / "images", arguments.images)
        weights = {name: save_random_resnet(work / f"{name}.pth", classes) for name, classes in NETWORKS.items()}
        steps = time_steps(paths)
        for name, milliseconds in steps.items():
            print(f"{name:28} {milliseconds:8.2f} ms an image")
        meshes = time_meshes(paths)
        for name, rate in meshes.items():
            print(f"face mesh, {name:17} {rate:8.1f} images/s")
        whole = [time_whole(work, weights) for _ in range(arguments.repeats)]
    builds = {name: statistics.median(run[name] for run in whole) for name in whole[0]}
    for name, seconds in builds.items():
        print(f"{name:28} {arguments.images / seconds:8.1f} images/s")
    alone_s = arguments.images * sum(steps[name] for name in SIX_STREAMS) / 1000
    path = write_result(
        "extraction",
        {
            "images": {"count": arguments.images, "size_px": SIZE, "format": f"JPEG, quality {QUALITY}"},
            "steps_ms_per_image_on_one_core": {name: round(value, 3) for name, value in steps.items()},
            "face_mesh_images_per_s_on_all_cores": {name: round(rate, 1) for name, rate in meshes.items()},
            "images_per_s_median": {
                name: round(arguments.images / builds[name], 1) for name in builds if name != ONE_WORKER
            },
            "six_passes_over_build": {
                name: round(statistics.median(run["six_passes"] / run[name] for run in whole), 2)
                for name in ("six_streams_float32", "six_streams_bfloat16")
            },
            "one_workers_build_over_its_steps": round(builds[ONE_WORKER] / alone_s, 3),
            "each_run_s": [{name: round(value, 2) for name, value in run.items()} for run in whole],
        },
    )
    print(path)


def draw_images(root: Path, count: int) -> list[Path]:
    """Write pictures of the demo as files, some with a face and some without, under two labels."""
    paths = []
    plan = [sample for sample in plan_samples(max(24, 2 * count), 0) if sample.damage is None][:count]
    for row, sample in enumerate(plan):
        image, _ = draw_sample(sample, np.random.default_rng([0, row]))
        path = root / ("even" if row % 2 == 0 else "odd") / f"{row:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        resized = cv2.resize(np.asarray(image), SIZE, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(path), resized[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        paths.append(path)
    return paths


def save_random_resnet(path: Path, classes: int) -> Path:
    """Save weights as a file, so that both contenders run the same network."""
    import torch

    from emofuse.streams.networks.classification import make_network
    from emofuse.weights import resolve_weights

    network = make_network("resnet50", resolve_weights(RandomWeights(seed=0)), classes=classes)
    torch.save(network.state_dict(), path)
    return path


def time_whole(work: Path, weights: dict[str, Path]) -> dict[str, float]:
    """Return the seconds of the six passes, of the build in both precisions, and of the face streams alone."""
    seconds = {"six_passes": run_six_passes(work, weights)}
    for precision in ("float32", "bfloat16"):
        streams = (
            *FACE_STREAMS,
            BackboneSpec(model="resnet50", weights=FileWeights(path=weights["resnet50"]), precision=precision),
            Places365Spec(weights=FileWeights(path=weights["places365"]), precision=precision),
            ObjectsSpec(weights=RandomWeights(seed=0), precision=precision),
        )
        seconds[f"six_streams_{precision}"] = run_build(work, streams)
        if precision == "float32":
            check_same_features(work)
            seconds[ONE_WORKER] = run_build(work, streams, workers=1, of_blocks_alone=True)
    seconds["face_streams"] = run_build(work, FACE_STREAMS)
    return seconds


def run_six_passes(work: Path, weights: dict[str, Path]) -> float:
    start = time.perf_counter()
    files = [part for name, path in weights.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, "-m", "benchmarks.six_passes", str(work / "images"), *files, "--out", str(work)]
    subprocess.run(command, check=True, capture_output=True)
    print("six passes:", json.loads((work / "seconds.json").read_text()))
    return time.perf_counter() - start


def run_build(
    work: Path, streams: Sequence[StreamSpec], *, workers: int | None = None, of_blocks_alone: bool = False
) -> float:
    """Return the seconds from the reading of the dataset to the end of all processes, or those of the blocks alone."""
    cache = work / "features.zarr"
    shutil.rmtree(cache, ignore_errors=True)
    start = time.perf_counter()
    manifest = read_dataset(FolderSpec(root=work / "images", split=StratifiedSplit()))
    spec = CacheSpec(block_rows=BLOCK_ROWS, streams=tuple(streams))
    summary = build_cache(cache, manifest, spec, BuildOptions(workers=workers))
    print(f"{', '.join(stream.name for stream in streams)}: {summary.describe()}")
    return summary.seconds if of_blocks_alone else time.perf_counter() - start


def check_same_features(work: Path) -> None:
    """Exit unless the build's ResNet-50 features are those of the six passes, up to rounding."""
    cache = open_cache(work / "features.zarr")
    expected = np.load(work / "resnet50.npy")
    built = cache.streams["resnet50"].read()[0].astype(np.float32)
    worst = float(np.abs(built - expected).max() / np.abs(expected).max())
    if worst > 2e-3:
        raise SystemExit(f"features differ by {worst:.1e} of the largest: the comparison would not be of equals")


if __name__ == "__main__":
    main()
