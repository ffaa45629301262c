"""Measure the time of extraction against what a user would write, whole processes from start to end.

    python -m benchmarks.extraction [--images 192] [--faces 1600] [--repeats 3] [--smoke]

Six streams: `emofuse cache build` against a script of six passes (`benchmarks/six_passes.py`), the first time on a
machine, when networks are converted for OpenVINO, and after that; and with ResNet-50 in bfloat16. Five light streams of
faces: the build against a plain script with a process for each core (`benchmarks/plain_faces.py`) on 400 pictures,
where starts of processes count most; and the speed of three of them on more. Contenders take turns, so that ratios are
of one run, and medians are kept. Steps are medians on one thread (`benchmarks/steps.py`); one worker's build beside
their sum says what the pipeline costs.

Images are the demo's, drawn as JPEG of 500 x 400 pixels; networks have random weights, of which speed does not depend.
With three repeats it takes about ten minutes on two cores. Where the CPU seconds of a build go is measured by
`benchmarks/extraction_profile.py`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.results_file import RESULTS, write_result
from benchmarks.steps import FACE_STREAMS, SIX_STREAMS, time_meshes, time_steps
from emofuse.cache.reader import open_cache
from emofuse.datasets.demo.generator import draw_sample
from emofuse.datasets.demo.truth import plan_samples
from emofuse.specs import (
    BackboneSpec,
    CacheSpec,
    FileWeights,
    ObjectsSpec,
    Places365Spec,
    RandomWeights,
    StreamSpec,
    parse_spec,
)
from emofuse.streams.networks import kept
from emofuse.streams.runtimes import openvino_version

SIZE = (500, 400)
QUALITY = 90
BLOCK_ROWS = 32
NETWORKS = {"resnet50": 1000, "places365": 365}
GOALS = {"six_passes_over_build": 3.0, "face_images_per_s_a_core": 100}
ONE_WORKER = "six_streams_of_one_worker"
FIRST = "six_streams_float32_first_on_the_machine"
CONVERTED_BEFORE = ("six_streams_float32", "six_streams_bfloat16")
"""The contenders that run once before they are timed, so that their networks are converted."""
LIGHT_FACES = 400
"""The number of pictures on which the build of faces runs against the plain script."""
_CLI = "from emofuse.cli import main; main()"


@dataclass(frozen=True)
class Sizes:
    """The numbers of pictures and of rounds.

    Attributes:
        images: the pictures of the six streams.
        light_faces: the pictures of faces of the small build.
        faces: the pictures of faces of the large one.
        repeats: the rounds in which all contenders take turns.
    """

    images: int
    light_faces: int
    faces: int
    repeats: int


SMOKE = Sizes(images=8, light_faces=8, faces=8, repeats=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--faces", type=int, default=1600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="run every part once on a few pictures; writes to --out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    sizes = Sizes(arguments.images, LIGHT_FACES, arguments.faces, arguments.repeats)
    if arguments.smoke:
        sizes = SMOKE
    elif arguments.out == RESULTS and (os.cpu_count() or 1) < 2:
        parser.error("the results are of two cores or more")
    print(measure(sizes, arguments.out, with_steps=not arguments.smoke))


def measure(sizes: Sizes, out: Path, *, with_steps: bool = True) -> Path:
    """Measure everything, and return the path of the file with the results."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        paths = draw_images(work / "images", sizes.images)
        draw_images(work / "light_faces", sizes.light_faces, only_faces=True)
        copy_until(work / "light_faces", work / "faces", sizes.faces)
        steps, meshes = (time_steps(paths), time_meshes(paths)) if with_steps else ({}, {})
        for name, milliseconds in steps.items():
            print(f"{name:28} {milliseconds:8.2f} ms an image")
        contenders = make_contenders(work)
        for name in CONVERTED_BEFORE:
            if name in contenders:
                contenders[name]()
        rounds = [time_round(contenders) for _ in range(sizes.repeats)]
        check_same_features(work)
    return write_result("extraction", describe(sizes, steps, meshes, rounds), folder=out)


def draw_images(root: Path, count: int, *, only_faces: bool = False) -> list[Path]:
    """Write pictures of the demo as files, some with a face and some without, under two labels."""
    paths = []
    plan = [sample for sample in plan_samples(max(24, 2 * count), 0) if sample.damage is None]
    for row, sample in enumerate([sample for sample in plan if sample.has_face or not only_faces][:count]):
        image, _ = draw_sample(sample, np.random.default_rng([0, row]))
        path = root / ("even" if row % 2 == 0 else "odd") / f"{row:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        resized = cv2.resize(np.asarray(image), SIZE, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(path), resized[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        paths.append(path)
    return paths


def copy_until(source: Path, target: Path, count: int) -> None:
    """Copy pictures, again and again under other names, until there are enough."""
    files = sorted(source.rglob("*.jpg"))
    for row in range(count):
        file = files[row % len(files)]
        path = target / file.parent.name / f"{row:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, path)


def save_random_resnet(path: Path, classes: int) -> Path:
    """Save weights as a file, so that both contenders run the same network."""
    import torch

    from emofuse.streams.networks.classification import make_network
    from emofuse.weights import resolve_weights

    network = make_network("resnet50", resolve_weights(RandomWeights(seed=0)), classes=classes)
    torch.save(network.state_dict(), path)
    return path


def make_contenders(work: Path) -> dict[str, Callable[[], object]]:
    """Return the name of each contender -> a function that runs it; the six passes come before the builds."""
    streams = six_streams(work)
    six, rounded, light = (
        write_spec(work / "six.yaml", streams),
        write_spec(work / "rounded.yaml", [in_bfloat16(stream) for stream in streams]),
        write_spec(work / "light.yaml", light_streams()),
    )
    three = write_spec(work / "three.yaml", FACE_STREAMS)
    files = [part for name in NETWORKS for part in (f"--{name}", str(work / f"{name}.pth"))]
    here = ("--out", str(work))
    contenders: dict[str, Callable[[], object]] = {
        "six_passes": lambda: run_module("benchmarks.six_passes", str(work / "images"), *files, *here),
        FIRST: lambda: build_first(work / "images", six, work / "six.zarr"),
        "six_streams_float32": lambda: build(work / "images", six, work / "six.zarr"),
        ONE_WORKER: lambda: build(work / "images", six, work / "one.zarr", "--workers", "1"),
        "plain_script_of_light_faces": lambda: run_module("benchmarks.plain_faces", str(work / "light_faces"), *here),
        "light_faces": lambda: build(work / "light_faces", light, work / "light.zarr"),
        "face_streams": lambda: build(work / "faces", three, work / "faces.zarr"),
    }
    if openvino_version() is not None:
        contenders["six_streams_float32_torch"] = lambda: build(
            work / "images", six, work / "torch.zarr", "--runtime", "torch"
        )
        contenders["six_streams_bfloat16"] = lambda: build(work / "images", rounded, work / "rounded.zarr")
    return contenders


def six_streams(work: Path) -> tuple[StreamSpec, ...]:
    """Return the paper's six streams, whose ResNet-50 have their random weights in files of a folder."""
    weights = {name: save_random_resnet(work / f"{name}.pth", classes) for name, classes in NETWORKS.items()}
    networks = (
        BackboneSpec(model="resnet50", weights=FileWeights(path=weights["resnet50"])),
        Places365Spec(weights=FileWeights(path=weights["places365"])),
        ObjectsSpec(weights=RandomWeights(seed=0)),
    )
    return (*FACE_STREAMS, *networks)


def in_bfloat16(stream: StreamSpec) -> StreamSpec:
    """Return the stream of a ResNet-50 in bfloat16, and other streams as they are."""
    if not isinstance(stream, BackboneSpec | Places365Spec):
        return stream
    return stream.model_copy(update={"precision": "bfloat16"})


def light_streams() -> tuple[StreamSpec, ...]:
    """Return the five light streams of faces."""
    spec = parse_spec(CacheSpec, {"streams": [{"kind": "hog"}, {"kind": "head_pose"}]}, "the benchmark")
    return (*FACE_STREAMS, *spec.streams)


def write_spec(path: Path, streams: Sequence[StreamSpec]) -> Path:
    """Write a cache spec as a file for the command line."""
    spec = CacheSpec(block_rows=BLOCK_ROWS, streams=tuple(streams))
    path.write_text(spec.model_dump_json(exclude_none=True), encoding="utf-8")
    return path


def run_module(name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", name, *arguments], check=True, stdout=subprocess.DEVNULL)


def build(images: Path, spec: Path, cache: Path, *options: str, compiled: str = "compiled") -> None:
    """Build a cache by the command line, whose converted networks are kept in a folder of the benchmark."""
    shutil.rmtree(cache, ignore_errors=True)
    cache.with_suffix(".manifest.parquet").unlink(missing_ok=True)
    where = ("--data", str(images), "--split", "stratified", "--spec", str(spec), "--cache", str(cache))
    command = [sys.executable, "-c", _CLI, "cache", "build", "folder", *where, *options]
    subprocess.run(
        command, env={**os.environ, kept.VARIABLE: str(cache.parent / compiled)}, check=True, capture_output=True
    )


def build_first(images: Path, spec: Path, cache: Path) -> None:
    """Build a cache on a machine that has not converted a network yet."""
    shutil.rmtree(cache.parent / "compiled_first", ignore_errors=True)
    build(images, spec, cache, compiled="compiled_first")


def time_round(contenders: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Run all contenders once and return their seconds."""
    seconds = {}
    for name, run in contenders.items():
        start = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - start
        print(f"{name:28} {seconds[name]:8.1f} s", flush=True)
    return seconds


def check_same_features(work: Path) -> None:
    """Exit unless the build's ResNet-50 features are those of the six passes, up to rounding."""
    expected = np.load(work / "resnet50.npy")
    built = open_cache(work / "six.zarr").streams["resnet50"].read()[0].astype(np.float32)
    worst = float(np.abs(built - expected).max() / np.abs(expected).max())
    if worst > 2e-3:
        raise SystemExit(f"features differ by {worst:.1e} of the largest: the comparison would not be of equals")


def describe(
    sizes: Sizes, steps: dict[str, float], meshes: dict[str, float], rounds: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Return the results: speeds, ratios of one round each, and their medians."""
    counts = {
        "light_faces": sizes.light_faces,
        "plain_script_of_light_faces": sizes.light_faces,
        "face_streams": sizes.faces,
    }
    speeds = {
        name: counts.get(name, sizes.images) / statistics.median(each[name] for each in rounds) for name in rounds[0]
    }

    def over(slower: str, faster: str) -> float:
        return round(statistics.median(each[slower] / each[faster] for each in rounds), 2)

    builds = [name for name in rounds[0] if name.startswith("six_streams_") and name != ONE_WORKER]
    result: dict[str, Any] = {
        "goals": GOALS,
        "images": {"count": sizes.images, "size_px": SIZE, "format": f"JPEG, quality {QUALITY}", "faces": sizes.faces},
        "steps_ms_per_image_on_one_core": {name: round(value, 3) for name, value in steps.items()},
        "face_mesh_images_per_s_on_all_cores": {name: round(rate, 1) for name, rate in meshes.items()},
        "images_per_s_median": {name: round(speed, 1) for name, speed in speeds.items() if name != ONE_WORKER},
        "six_passes_over_build": {name: over("six_passes", name) for name in builds},
        "face_images_per_s_a_core": round(speeds["face_streams"] / len(os.sched_getaffinity(0)), 1),
        "plain_script_over_build_of_light_faces": over("plain_script_of_light_faces", "light_faces"),
        "each_run_s": [{name: round(value, 2) for name, value in each.items()} for each in rounds],
    }
    if steps:
        alone_s = sizes.images * sum(steps[name] for name in SIX_STREAMS) / 1000
        worker_s = statistics.median(each[ONE_WORKER] for each in rounds)
        result["one_workers_build_over_its_steps"] = round(worker_s / alone_s, 3)
    return result


if __name__ == "__main__":
    main()
