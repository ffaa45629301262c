"""Tell where the CPU seconds of a build of the six streams go, phase by phase.

    python -m benchmarks.extraction_profile                # 64 images, about a minute on a quiet core
    python -m benchmarks.extraction_profile --images 96

One process builds as one worker would (`--workers 0`, one thread), and the functions of each phase are timed. Each
second counts once, for the innermost phase. Three builds are profiled: with PyTorch, with networks that OpenVINO
converts, and with networks that the build before has kept, in a folder of the script. CPU time is given, so that a busy
machine changes it little. A build of W workers takes what belongs to networks W times, imports once (workers are
forked), and shares what belongs to pictures.
"""

from __future__ import annotations

import time

_START = time.process_time()  # before imports: the interpreter has started

import argparse  # noqa: E402
import functools  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections import defaultdict  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Literal  # noqa: E402

Runtime = Literal["torch", "openvino"]

BUILDS: dict[str, Runtime] = {"PyTorch": "torch", "OpenVINO, first": "openvino", "OpenVINO, kept": "openvino"}
"""The title of a build -> its runtime, in the order in which they run."""
PHASES = {
    "read the dataset and plan": ("emofuse.extraction.run:plan_build",),
    "hash files of weights": ("emofuse.weights.resolve:_hash_of",),
    "make networks and read weights": (
        "emofuse.streams.networks.outputs:make_network",
        "emofuse.streams.networks.yolo:random_yolo",
        "emofuse.streams.networks.yolo:load_yolo",
        "emofuse.streams.networks.yolo:fused",
        "emofuse.streams.networks.classification:to_device",
    ),
    "measure shapes of outputs": ("emofuse.streams.networks.outputs:PictureNetwork.shape",),
    "convert networks": ("emofuse.streams.networks.compiled:converted_model",),
    "compile networks": ("emofuse.streams.networks.compiled:_compile",),
    "check compiled networks": ("emofuse.streams.networks.compiled:_check",),
    "keep compiled networks": ("emofuse.streams.networks.running:CompiledNetwork.keep",),
    "open kept networks": (
        "emofuse.streams.networks.shared_backbones:open_kept_network",
        "emofuse.streams.networks.detection:open_kept_network",
    ),
    "open Face Mesh": ("emofuse.streams.batches:make_face_detector",),
    "read and decode": ("emofuse.streams.extractor:SampleReader.read",),
    "face mesh": ("emofuse.streams.faces.finder:FaceFinder.detect",),
    "resize and crop": ("emofuse.streams.networks.squares:Square.cut_all",),
    "lbp": ("emofuse.streams.texture:LbpStream.extract",),
    "landmarks": ("emofuse.streams.landmarks:LandmarksStream.extract",),
    "action_units": ("emofuse.streams.action_units:ActionUnitsStream.extract",),
    "resnet50 and places365: networks": (
        "emofuse.streams.networks.shared_backbones:SharedBackbone._run",
        "emofuse.streams.networks.shared_backbones:SharedBackbone._run_compiled",
    ),
    "objects: letterbox": ("emofuse.streams.objects:ObjectsStream.extract",),
    "objects: network": ("emofuse.streams.networks.detection:YoloDetector.boxes",),
    "write blocks": ("emofuse.extraction.worker:write_block",),
}
IMPORTS = {
    "import the command line": ("emofuse.cli",),
    "import NumPy, OpenCV, Zarr, Polars, the worker": (
        "cv2",
        "emofuse.datasets",
        "emofuse.extraction.run",
        "emofuse.extraction.worker",
    ),
    "import MediaPipe": ("mediapipe.framework.calculator_pb2", "mediapipe.python.solution_base"),
    "import OpenVINO": ("emofuse.streams.runtimes:import_openvino",),
}
OF_TORCH = {
    "import PyTorch": ("torch",),
    "import torchvision": ("emofuse.streams.networks.classification",),
    "import ultralytics": ("emofuse.streams.networks.yolo:_ultralytics",),
}
"""What a build imports as well whose networks are not kept as compiled ones."""


_WITHOUT_TORCH = ("shared_backbones", "detection", "running", "squares")


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


def wrap(clock: Clock, name: str, place: str, *, only_imported: bool) -> None:
    """Time the function at `module:name` or `module:class.name` as a phase; maybe only if its module is imported."""
    module, _, path = place.partition(":")
    is_of_torch = module.startswith("emofuse.streams.networks") and module.rpartition(".")[2] not in _WITHOUT_TORCH
    if only_imported and is_of_torch:
        return
    owner: Any = importlib.import_module(module)
    *parents, last = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, last, clock.timed(name, getattr(owner, last)))


def profile(work: Path, runtime: Runtime) -> dict[str, float]:
    """Build the six streams of the pictures in a folder in this process, and return phase -> CPU seconds."""
    clock = Clock()
    clock.seconds["start the interpreter"] = _START
    for name, modules in IMPORTS.items():
        with clock.phase(name):
            import_all(modules)
    if runtime == "torch" or not is_converted(work, runtime):
        for name, modules in OF_TORCH.items():
            with clock.phase(name):
                import_all(modules)
    has_torch = "torch" in sys.modules
    for name, places in PHASES.items():
        for place in places:
            wrap(clock, name, place, only_imported=not has_torch)
    from emofuse.cli import main as run_command
    from emofuse.extraction import worker

    extractor: Any = worker.Extractor
    one_thread = {"Extractor": lambda *given, **options: extractor(*given, **{**options, "threads": 1})}
    vars(worker).update(one_thread)  # as one of several workers

    sys.argv = ["emofuse", "cache", "build", "folder", "--data", str(work / "images"), "--split", "stratified"]
    sys.argv += ["--spec", str(work / "six.yaml"), "--cache", str(work / f"{os.getpid()}.zarr"), "--workers", "0"]
    sys.argv += ["--runtime", runtime]
    try:
        run_command()
    except SystemExit as end:
        if end.code:
            raise
    clock.lap()
    if has_torch != ("torch" in sys.modules):
        raise SystemExit("PyTorch was imported although all networks are kept: the phases are wrong")
    return dict(clock.seconds)


def is_converted(work: Path, runtime: Runtime) -> bool:
    """Return whether all networks of the spec are kept as compiled ones."""
    from emofuse.extraction.ahead import kept_streams
    from emofuse.extraction.options import BuildOptions
    from emofuse.specs.files import read_cache_spec

    spec = read_cache_spec(work / "six.yaml")
    return {"resnet50", "places365", "objects"} <= kept_streams(spec, BuildOptions(device="cpu", runtime=runtime))


def import_all(modules: tuple[str, ...]) -> None:
    """Import modules; `module:function` is also called, because it imports lazily."""
    for module in modules:
        name, _, function = module.partition(":")
        imported = importlib.import_module(name)
        if function:
            getattr(imported, function)()


def profile_builds(images: int, out: Path, *, smoke: bool) -> None:
    """Print the phases of all builds, and write `extraction_profile.json` into a folder."""
    builds: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        here = [sys.executable, "-m", "benchmarks.extraction_profile", "--images", str(images), "--work", folder]
        subprocess.run([*here, "--prepare"], check=True)
        for title, runtime in BUILDS.items():
            print(f"\n{title}", flush=True)
            subprocess.run([*here, "--runtime", runtime], check=True, stderr=subprocess.DEVNULL)
            found = json.loads((Path(folder) / PHASES_FILE).read_text())
            builds[title] = {name: round(seconds, 2) for name, seconds in found.items()}
    from benchmarks.results_file import write_result

    name = "extraction_profile_smoke" if smoke else "extraction_profile"
    numbers = {"smoke": smoke, "images": images, "cpu_s": builds}
    print(write_result(name, numbers, script="extraction_profile", folder=out))


def prepare(work: Path, images: int) -> None:
    """Draw the pictures and write the spec and the weights, in a process of its own: it imports PyTorch."""
    from benchmarks import extraction as benchmark

    benchmark.draw_images(work / "images", images)
    benchmark.write_spec(work / "six.yaml", benchmark.six_streams(work))


def main(given: Sequence[str] | None = None) -> None:
    """Profile all builds, or one of them in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--smoke", action="store_true", help="a few pictures: numbers mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--runtime", choices=("torch", "openvino"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # one build, in a folder that --prepare has filled
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.work is None:
        profile_builds(8 if arguments.smoke else arguments.images, arguments.out, smoke=arguments.smoke)
        return
    os.environ[VARIABLE] = str(arguments.work / "compiled")
    if arguments.prepare:
        prepare(arguments.work, arguments.images)
        return
    seconds = profile(arguments.work, arguments.runtime)
    for name, value in seconds.items():
        if value >= 0.005:
            print(f"{name:48} {value:7.2f} s {1000 * value / arguments.images:8.1f} ms an image")
    print(f"{'all':48} {sum(seconds.values()):7.2f} s")
    (arguments.work / PHASES_FILE).write_text(json.dumps(seconds))


VARIABLE = "EMOFUSE_COMPILED_DIR"
RESULTS = Path(__file__).parent / "results"
PHASES_FILE = "phases.json"

if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    main()
