"""Tell where the CPU seconds of a build of the six streams go, phase by phase.

    python -m benchmarks.extraction_profile [--images 96] [--runtime auto] [--cold]

One process builds as one worker would (`--workers 0`, one thread), and the functions of each phase are timed. Each
second counts once, for the innermost phase. CPU time is given, so that a busy machine changes it little. A build of W
workers takes what belongs to the worker (imports, networks) W times and shares what belongs to pictures.
"""

from __future__ import annotations

import time

_START = time.process_time()  # before imports: the interpreter has started

import argparse  # noqa: E402
import functools  # noqa: E402
import importlib  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
from collections import defaultdict  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

PHASES = {
    "read the dataset and plan": ("emofuse.extraction.run:plan_build",),
    "hash files of weights": ("emofuse.weights.resolve:_hash_of",),
    "make networks and read weights": (
        "emofuse.streams.networks.outputs:make_network",
        "emofuse.streams.networks.yolo:random_yolo",
        "emofuse.streams.networks.yolo:load_yolo",
        "emofuse.streams.networks.shared_backbones:to_device",
    ),
    "measure shapes of outputs": ("emofuse.streams.networks.outputs:PictureNetwork.shape",),
    "convert networks": ("emofuse.streams.networks.compiled:converted_model",),
    "compile networks": ("emofuse.streams.networks.compiled:_compile",),
    "check compiled networks": ("emofuse.streams.networks.compiled:_check",),
    "open Face Mesh": ("emofuse.streams.batches:make_face_detector",),
    "read and decode": ("emofuse.streams.extractor:SampleReader.read",),
    "face mesh": ("emofuse.streams.faces.finder:FaceFinder.detect",),
    "resize and crop": ("emofuse.streams.networks.presets:Preset.cut_all",),
    "lbp": ("emofuse.streams.texture:LbpStream.extract",),
    "landmarks": ("emofuse.streams.landmarks:LandmarksStream.extract",),
    "action_units": ("emofuse.streams.action_units:ActionUnitsStream.extract",),
    "backbones: networks": ("emofuse.streams.networks.shared_backbones:SharedBackbone._run",),
    "objects: letterbox and suppression": ("emofuse.streams.objects:ObjectsStream.extract",),
    "objects: network": ("emofuse.streams.networks.yolo:YoloDetector._raw",),
    "write blocks": ("emofuse.extraction.worker:write_block",),
}
IMPORTS = {
    "import the command line": ("emofuse.cli",),
    "import the worker, NumPy, OpenCV, Zarr": ("emofuse.extraction.run", "emofuse.extraction.worker", "cv2"),
    "import MediaPipe": ("mediapipe", "mediapipe.framework.calculator_pb2", "mediapipe.python.solution_base"),
    "import PyTorch": ("torch",),
    "import torchvision": ("emofuse.streams.networks.classification",),
    "import OpenVINO": ("openvino", "openvino.frontend.pytorch.ts_decoder"),
    "import ultralytics": ("emofuse.streams.networks.yolo:_ultralytics",),
}


class Clock:
    """The CPU seconds of nested phases; each second counts for the innermost one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.process_time()
        self._phases = ["everything else"]

    def lap(self) -> None:
        """Count the time since the last call for the innermost phase."""
        now = time.process_time()
        self.seconds[self._phases[-1]] += now - self._last
        self._last = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time within the context for a phase."""
        self.lap()
        self._phases.append(name)
        try:
            yield
        finally:
            self.lap()
            self._phases.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts for a phase."""

        @functools.wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*arguments, **options)

        return run


def wrap(clock: Clock, name: str, place: str) -> None:
    """Time the function at `module:name` or `module:class.name` as a phase."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, last = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, last, clock.timed(name, getattr(owner, last)))


def profile(images: int, runtime: str) -> dict[str, float]:
    """Build the six streams of some pictures in this process, and return phase -> CPU seconds."""
    clock = Clock()
    clock.seconds["start the interpreter"] = _START
    for name, modules in IMPORTS.items():
        if runtime == "torch" and "OpenVINO" in name:
            continue
        with clock.phase(name):
            import_all(modules)
    from benchmarks import extraction as benchmark
    from emofuse.cli import main as run_command

    for name, places in PHASES.items():
        for place in places:
            wrap(clock, name, place)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with clock.phase("draw the pictures of the benchmark"):
            benchmark.draw_images(work / "images", images)
            spec = benchmark.write_spec(work / "six.yaml", benchmark.six_streams(work))
        import sys

        sys.argv = ["emofuse", "cache", "build", "folder", "--data", str(work / "images"), "--split", "stratified"]
        sys.argv += ["--spec", str(spec), "--cache", str(work / "six.zarr"), "--workers", "0", "--runtime", runtime]
        try:
            run_command()
        except SystemExit as end:
            if end.code:
                raise
        clock.lap()
    del clock.seconds["draw the pictures of the benchmark"]
    return dict(clock.seconds)


def import_all(modules: tuple[str, ...]) -> None:
    """Import modules; `module:function` is also called, because it imports lazily."""
    for module in modules:
        if module == "openvino":
            from emofuse.streams.runtimes import import_openvino

            import_openvino()
        name, _, function = module.partition(":")
        imported = importlib.import_module(name)
        if function:
            getattr(imported, function)()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--runtime", choices=("auto", "torch", "openvino"), default="auto")
    arguments = parser.parse_args()
    seconds = profile(arguments.images, arguments.runtime)
    for name, value in seconds.items():
        print(f"{name:40} {value:7.2f} s {1000 * value / arguments.images:8.1f} ms an image")
    print(f"{'all':40} {sum(seconds.values()):7.2f} s")


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    main()
