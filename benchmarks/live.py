"""Measure the prediction of a video frame by frame, by step and end to end, on one core and on two.

    python -m benchmarks.live --video PATH

PATH is a video with a face; the default is `single_face.mp4` of `../shared/data`. Its frames are cut and scaled to
640 x 480 and encoded as H.264 once. Three runs are measured: landmarks with action units, and MobileNetV2 and
SqueezeNet on the aligned face. Weights of networks are random and heads are trained for an epoch, on pictures that are
made here: neither changes the speed. The heads have the widths of the paper. Frames are decoded in a thread of their
own, faces followed, predictions drawn on the frame; nothing is encoded or shown.

Each number is the median over several passes of the video, every pass in a fresh process that may use so many cores.
Steps are medians over frames in milliseconds. `read` is the CPU time of the reading thread, beside the other steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faces import SHARED
from benchmarks.results_file import write_result

SIZE = (640, 480)
RUNS = {
    "landmarks + action units": ["landmarks", "action_units"],
    "mobilenet_v2 on the aligned face": ["mobilenet_v2-face"],
    "squeezenet1_1 on the aligned face": ["squeezenet1_1-face"],
}
GOALS_HZ = {name: 60 if name.startswith("landmarks") else 30 for name in RUNS}
PUBLISHED = {
    "py-feat, CPU, frames/s": 17.6,
    "py-feat, RTX 3090, frames/s": 202,
    "paper of the hierarchical fusion, ms a picture on a GPU, its head and features": 2.2,
}
WAYS = (
    ("two cores", 2, True),
    ("one core", 1, True),
    ("two cores, every frame detected", 2, False),
)
_PICTURES = 20
_WARM = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, default=SHARED / "video" / "single_face.mp4")
    parser.add_argument("--frames", type=int, default=300, help="frames of a pass, the first 30 of which do not count")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--machine", default="quiet", help="a note on what else the machine was doing")
    parser.add_argument("--one-pass", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_pass:
        print(json.dumps(one_pass(**json.loads(arguments.one_pass))))
        return
    with tempfile.TemporaryDirectory() as folder:
        clip = scaled_video(arguments.video, Path(folder) / "640x480.mp4", arguments.frames)
        runs = make_runs(Path(folder))
        measured: dict[str, Any] = {}
        for name, run in runs.items():
            measured[name] = {"goal on two cores, frames/s": GOALS_HZ[name]}
            for way, cores, follow in WAYS:
                passes = [
                    measured_pass(run=str(run), clip=str(clip), cores=cores, follow=follow)
                    for _ in range(arguments.passes)
                ]
                measured[name][way] = median_of(passes)
            write_result("live", {"machine_was": arguments.machine, **settings(arguments), "runs": measured})


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "video": {"size_px": SIZE, "frames": arguments.frames, "codec": "h264"},
        "passes": arguments.passes,
        "published_by_others": PUBLISHED,
    }


def measured_pass(**options: Any) -> dict[str, Any]:
    """Measure one pass in a fresh process, which may use so many cores."""
    threads = str(options["cores"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "benchmarks.live", "--one-pass", json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def one_pass(run: str, clip: str, cores: int, follow: bool) -> dict[str, Any]:
    """Predict all frames, and return the frames a second and the milliseconds of each step."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import torch

    torch.set_num_threads(cores)
    from emofuse.media.frames import FrameChoice, read_frames
    from emofuse.predict import Predictor
    from emofuse.predict.ahead import ReadAhead
    from emofuse.predict.drawing import Drawer
    from emofuse.predict.frames import FramePredictor

    steps: dict[str, list[float]] = {}
    reads: list[float] = []
    with Predictor(Path(run)) as predictor, FramePredictor(predictor, follow=follow) as frames:
        drawer = Drawer(predictor.record.classes, predictor.record.target_kind)
        read = timed(read_frames(Path(clip), FrameChoice(), predictor.spec.decode), reads)
        with ReadAhead(read) as ahead:
            for number, frame in enumerate(ahead):
                if number == _WARM:
                    began, cpu = time.perf_counter(), time.process_time()
                predicted = frames.predict(frame)
                drawn = time.perf_counter()
                drawer.draw(predicted)
                seconds = {**predicted.seconds, "draw": time.perf_counter() - drawn}
                if number >= _WARM:
                    for step, value in seconds.items():
                        steps.setdefault(step, []).append(value)
            passed, used = time.perf_counter() - began, time.process_time() - cpu
    count = len(steps["draw"])
    return {
        "frames/s": count / passed,
        "CPU ms a frame, all threads": 1000 * used / count,
        "steps_ms": {
            "read": 1000 * statistics.median(reads[_WARM:]),
            **{name: 1000 * statistics.median(values) for name, values in steps.items()},
        },
    }


def timed(frames: Iterator[Any], seconds: list[float]) -> Iterator[Any]:
    """Iterate, and note the CPU seconds of this thread for each item."""
    while True:
        began = time.thread_time()
        try:
            frame = next(frames)
        except StopIteration:
            return
        seconds.append(time.thread_time() - began)
        yield frame


def median_of(passes: list[dict[str, Any]]) -> dict[str, Any]:
    def middle(values: list[float]) -> float:
        return round(statistics.median(values), 2)

    rates = [each["frames/s"] for each in passes]
    return {
        "frames/s": middle(rates),
        "frames/s, lowest and highest pass": [round(min(rates), 1), round(max(rates), 1)],
        "CPU ms a frame, all threads": middle([each["CPU ms a frame, all threads"] for each in passes]),
        "steps_ms": {name: middle([each["steps_ms"][name] for each in passes]) for name in passes[0]["steps_ms"]},
    }


def scaled_video(path: Path, scaled: Path, count: int) -> Path:
    """Write the middle of a video's frames, 4 to 3, as 640 x 480, forwards and backwards until there are enough."""
    import cv2

    from emofuse.media.frames import FrameChoice, read_frames
    from emofuse.predict.video_writer import writing_video
    from emofuse.specs import DecodeSpec

    pictures = []
    for frame in read_frames(path, FrameChoice(), DecodeSpec()):
        height, width = frame.image.shape[:2]
        side = min(width, height * 4 // 3)
        left = (width - side) // 2
        cut = np.ascontiguousarray(frame.image[: side * 3 // 4, left : left + side])
        pictures.append(cv2.resize(cut, SIZE, interpolation=cv2.INTER_LINEAR))
        if len(pictures) == count:
            break
    order = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    with writing_video(scaled, rate_hz=30, sound_of=None) as video:
        for number in range(count):
            video.add(number / 30, pictures[order[number % len(order)]])
    return scaled


def make_runs(folder: Path) -> dict[str, Path]:
    """Train the runs on a few pictures of a face, and return their folders."""
    import cv2
    from skimage import data

    from emofuse.cache.reader import open_cache
    from emofuse.datasets import read_dataset
    from emofuse.extraction import BuildOptions, build_cache
    from emofuse.results import run_dir
    from emofuse.specs import CacheSpec, FolderSpec, RunSpec, StratifiedSplit, parse_spec
    from emofuse.training.runs import train_runs

    portrait = cv2.cvtColor(data.astronaut()[:300, 70:370], cv2.COLOR_RGB2BGR)
    for number in range(_PICTURES):
        path = folder / "data" / ("bright", "dark")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(portrait, (300 + number, 300)) // (1 + number % 2))
    networks = [
        {"kind": "backbone", "model": model, "weights": {"kind": "random"}, "region": "face"}
        for model in ("mobilenet_v2", "squeezenet1_1")
    ]
    streams = [{"kind": "landmarks"}, {"kind": "action_units"}, *networks]
    manifest = read_dataset(FolderSpec(root=str(folder / "data"), split=StratifiedSplit()))
    cache = folder / "cache.zarr"
    build_cache(cache, manifest, parse_spec(CacheSpec, {"streams": streams}, "live"), BuildOptions(workers=0))
    specs = [
        parse_spec(RunSpec, {"name": name, "features": {"streams": of_run}, "train": {"epochs": 1}}, name)
        for name, of_run in RUNS.items()
    ]
    trained = train_runs(open_cache(cache), specs, folder / "runs", device="cpu")
    return {record.spec["name"]: run_dir(folder / "runs", record.digest) for record, _ in trained}


if __name__ == "__main__":
    main()
