"""Where the time of extraction goes: each step alone on one core, the whole build, and a script of six passes.

    python -m benchmarks.extraction [--images 128] [--repeats 3]

Images are the demo's, drawn as JPEG of 500 x 400 pixels; networks have random weights, of which speed does not depend.
Steps are medians over the images on one thread. The build and the six passes (`benchmarks/six_passes.py`) take turns on
all cores, whole processes from start to end, so that ratios are of one run.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.results_file import write_result
from emofuse.build import BuildOptions, build_cache
from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.datasets.demo.generator import draw_sample
from emofuse.datasets.demo.truth import plan_samples
from emofuse.decode import read_image
from emofuse.specs import (
    ActionUnitsSpec,
    BackboneSpec,
    CacheSpec,
    FileWeights,
    FolderSpec,
    LandmarksSpec,
    LbpSpec,
    ObjectsSpec,
    Places365Spec,
    RandomWeights,
    StratifiedSplit,
    StreamSpec,
)
from emofuse.streams import make_stream
from emofuse.streams.base import Sample
from emofuse.streams.faces import make_face_detector

SIZE = (500, 400)
QUALITY = 90
FACE_STREAMS: tuple[StreamSpec, ...] = (LbpSpec(), LandmarksSpec(), ActionUnitsSpec())
BLOCK_ROWS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        paths = draw_images(work / "images", arguments.images)
        weights = {name: save_random_resnet(work / f"{name}.pth", classes) for name, classes in NETWORKS.items()}
        steps = time_steps(paths)
        for name, milliseconds in steps.items():
            print(f"{name:28} {milliseconds:8.2f} ms an image")
        whole = [time_whole(work, weights) for _ in range(arguments.repeats)]
    builds = {name: statistics.median(run[name] for run in whole) for name in whole[0]}
    for name, seconds in builds.items():
        print(f"{name:28} {arguments.images / seconds:8.1f} images/s")
    path = write_result(
        "extraction",
        {
            "images": {"count": arguments.images, "size_px": SIZE, "format": f"JPEG, quality {QUALITY}"},
            "steps_ms_per_image_on_one_core": {name: round(value, 3) for name, value in steps.items()},
            "images_per_s_median": {name: round(arguments.images / value, 1) for name, value in builds.items()},
            "six_passes_over_build": {
                name: round(statistics.median(run["six_passes"] / run[name] for run in whole), 2)
                for name in ("six_streams_float32", "six_streams_bfloat16")
            },
            "each_run_s": [{name: round(value, 2) for name, value in run.items()} for run in whole],
        },
    )
    print(path)


NETWORKS = {"resnet50": 1000, "places365": 365}


def draw_images(root: Path, count: int) -> list[Path]:
    """Pictures of the demo as files, some with a face and some without, under two labels."""
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
    """Weights as a file, so that both contenders run the same network."""
    import torch

    from emofuse.streams.backbones import make_network
    from emofuse.weights import resolve_weights

    network = make_network("resnet50", resolve_weights(RandomWeights(seed=0)), classes=classes)
    torch.save(network.state_dict(), path)
    return path


def time_steps(paths: Sequence[Path]) -> dict[str, float]:
    """Milliseconds an image of each step alone, on one thread."""
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    spec = CacheSpec(streams=FACE_STREAMS)
    steps = {"read": each(paths, Path.read_bytes), "read and decode": each(paths, lambda p: read_image(p, spec.decode))}
    steps |= time_decoders([path.read_bytes() for path in paths])
    images = [read_image(path, spec.decode) for path in paths]
    detector = make_face_detector(spec.face)
    steps["face mesh"] = each(images, detector.detect)
    samples = [Sample(image, detector.detect(image)) for image in images]
    detector.close()
    random = RandomWeights(seed=0)
    specs: dict[str, StreamSpec] = {stream.kind: stream for stream in FACE_STREAMS}
    for precision in ("float32", "bfloat16"):
        specs |= {
            f"resnet50 {precision}": BackboneSpec(model="resnet50", weights=random, precision=precision),
            f"mobilenet_v2 {precision}": BackboneSpec(model="mobilenet_v2", weights=random, precision=precision),
            f"objects {precision}": ObjectsSpec(weights=random, precision=precision),
        }
    for name, stream_spec in specs.items():
        stream = make_stream(stream_spec)
        steps[name] = each(batches(samples, 32), stream.extract) / 32
        stream.close()
    preset = make_stream(specs["resnet50 float32"])._prepared  # type: ignore[attr-defined]  # noqa: SLF001
    steps["of it, resize and crop"] = each([Sample(image) for image in images], preset)
    return steps


def time_decoders(files: Sequence[bytes]) -> dict[str, float]:
    """Other decoders of the same bytes, none of which tells a file that was cut off from a whole one."""
    import torch
    from PIL import Image
    from torchvision.io import decode_jpeg

    def halved(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (SIZE[0] // 2, SIZE[1] // 2))
        return np.asarray(image)

    return {
        "decode, OpenCV": each(files, lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)),
        "decode, torchvision": each(
            files, lambda data: decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        ),
        "decode, Pillow at half scale": each(files, halved),
    }


def batches(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """Whole batches of new samples, of which nothing is prepared."""
    fresh = [Sample(sample.image, sample.face) for sample in samples]
    return [fresh[start : start + size] for start in range(0, len(fresh) - size + 1, size)][:3]


def each(items: Sequence[Any], function: Callable[[Any], object]) -> float:
    """Median milliseconds of a call, the first one not counted."""
    function(items[0])
    times = []
    for item in items:
        start = time.perf_counter()
        function(item)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def time_whole(work: Path, weights: dict[str, Path]) -> dict[str, float]:
    """Seconds of the six passes, of the build in both precisions, and of the build of the face streams alone."""
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
    seconds["face_streams"] = run_build(work, FACE_STREAMS)
    return seconds


def run_six_passes(work: Path, weights: dict[str, Path]) -> float:
    start = time.perf_counter()
    files = [part for name, path in weights.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, "-m", "benchmarks.six_passes", str(work / "images"), *files, "--out", str(work)]
    subprocess.run(command, check=True, capture_output=True)
    print("six passes:", json.loads((work / "seconds.json").read_text()))
    return time.perf_counter() - start


def run_build(work: Path, streams: Sequence[StreamSpec]) -> float:
    """From reading the dataset to the last chunk, worker processes started and ended."""
    cache = work / "features.zarr"
    shutil.rmtree(cache, ignore_errors=True)
    start = time.perf_counter()
    manifest = read_dataset(FolderSpec(root=work / "images", split=StratifiedSplit()))
    summary = build_cache(cache, manifest, CacheSpec(block_rows=BLOCK_ROWS, streams=tuple(streams)), BuildOptions())
    print(f"{', '.join(stream.name for stream in streams)}: {summary.describe()}")
    return time.perf_counter() - start


def check_same_features(work: Path) -> None:
    """The build's ResNet-50 features are those of the six passes, but for rounding."""
    cache = open_cache(work / "features.zarr")
    expected = np.load(work / "resnet50.npy")
    found = cache.streams["resnet50"].read()[0].astype(np.float32)
    worst = float(np.abs(found - expected).max() / np.abs(expected).max())
    if worst > 2e-3:
        raise SystemExit(f"features differ by {worst:.1e} of the largest: the comparison would not be of equals")


if __name__ == "__main__":
    main()
