"""Measure extraction on a GPU: pictures of common sizes through the paper's six streams, and what limits it.

    python -m benchmarks.gpu_extraction                         about two minutes on 16 cores
    python -m benchmarks.gpu_extraction --device cpu --smoke    the same code in seconds; its numbers mean nothing

Pictures are the demo's, drawn as JPEG files in the sizes of pictures from the web; networks have random weights, of
which speed does not depend. After a build that is not timed, the networks alone, the face streams alone and all six are
built. The slower part of the two is the limit; the share by which all six take longer than it is not overlapped.

Where packages of the extraction are missing, the result names them. Written after each build:
`benchmarks/results/gpu_extraction.json`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.results_file import RESULTS, write_result

NEEDED = ("zarr", "polars", "dask", "distributed", "mediapipe", "ultralytics", "torchvision", "cv2", "PIL", "skimage")
SIZES = ((1024, 683), (640, 480), (500, 375), (800, 600), (1200, 800), (768, 1024))
"""Widths and heights in turn."""
QUALITY = 90
BLOCK_ROWS = 64


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--smoke", action="store_true", help="a few pictures")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    arguments = parser.parse_args(argv)
    images = 8 if arguments.smoke else arguments.images
    numbers: dict[str, Any] = {"device": arguments.device, "smoke": arguments.smoke, "cores": os.cpu_count()}
    name = "gpu_extraction_smoke" if arguments.smoke else "gpu_extraction"
    written = partial(write_result, name, numbers, script="gpu_extraction", folder=arguments.out)
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        numbers["not_measured"] = f"these packages are not installed: {', '.join(missing)}"
        print(numbers["not_measured"], written())
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        start = time.perf_counter()
        draw(work / "images", images)
        numbers["images"] = {"count": images, "sizes_px": SIZES, "drawn_in_s": round(time.perf_counter() - start, 1)}
        faces, networks = streams_of(smoke=arguments.smoke)
        numbers["images_per_s"] = rates = {}
        build(work, networks[:1], arguments.device, few=True)
        for title, streams in {"networks": networks, "faces": faces, "six streams": (*faces, *networks)}.items():
            seconds = build(work, streams, arguments.device)
            rates[title] = round(images / seconds, 1)
            print(f"{title:12} {rates[title]:10.1f} images/s", flush=True)
            written()
    slower = min(("networks", "faces"), key=lambda title: rates[title])
    numbers["limit"] = {
        "is": "the device's networks" if slower == "networks" else "decoding and faces on the cores",
        "six_streams_over_it": round(rates["six streams"] / rates[slower], 3),
    }
    print(written())


def draw(root: Path, count: int) -> None:
    """Write pictures with faces and without as files, drawn once for every eight files."""
    import cv2
    import numpy as np

    from emofuse.datasets.demo.generator import draw_sample
    from emofuse.datasets.demo.truth import plan_samples

    plan = [sample for sample in plan_samples(max(24, count // 4), 0) if sample.damage is None]
    drawn = [
        np.asarray(draw_sample(sample, np.random.default_rng([0, row]))[0])
        for row, sample in enumerate(plan[: max(8, count // 8)])
    ]
    for row in range(count):
        path = root / ("even" if row % 2 == 0 else "odd") / f"{row:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        resized = cv2.resize(drawn[row % len(drawn)], SIZES[row % len(SIZES)], interpolation=cv2.INTER_CUBIC)
        resized[0, 0] = row % 251, row // 251 % 251, 0  # no two files are equal
        cv2.imwrite(str(path), resized[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def streams_of(*, smoke: bool) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the streams of faces, and those of networks."""
    from emofuse.specs import (
        ActionUnitsSpec,
        BackboneSpec,
        LandmarksSpec,
        LbpSpec,
        ObjectsSpec,
        Places365Spec,
        RandomWeights,
    )

    weights = RandomWeights(seed=0)
    networks: tuple[Any, ...] = (BackboneSpec(model="mobilenet_v2" if smoke else "resnet50", weights=weights),)
    if not smoke:
        networks += (Places365Spec(weights=weights), ObjectsSpec(weights=weights))
    return (LbpSpec(), LandmarksSpec(), ActionUnitsSpec()), networks


def build(work: Path, streams: Sequence[Any], device: str, *, few: bool = False) -> float:
    """Return the seconds of a whole build, from the reading of the dataset to the end of all processes."""
    from emofuse.datasets import read_dataset
    from emofuse.extraction import BuildOptions, build_cache
    from emofuse.specs import CacheSpec, FolderSpec, StratifiedSplit

    cache, root = work / "features.zarr", work / "images"
    if few:
        root = work / "few"
        for path in sorted((work / "images").rglob("*.jpg"))[:4]:
            (root / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.parent.name / path.name)
        for name in ("even", "odd"):
            (root / name).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(cache, ignore_errors=True)
    start = time.perf_counter()
    manifest = read_dataset(FolderSpec(root=root, split=StratifiedSplit()))
    spec = CacheSpec(block_rows=BLOCK_ROWS, streams=tuple(streams))
    print(build_cache(cache, manifest, spec, BuildOptions(device=device)).describe(), flush=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
