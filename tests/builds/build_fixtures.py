"""Fixtures of the tests that build caches: images, their manifest, builds in this process and in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from PIL import Image

from emofuse.datasets import read_dataset
from emofuse.datasets.manifest import Manifest
from emofuse.extraction import BuildOptions
from emofuse.specs import FolderSpec, StratifiedSplit

if TYPE_CHECKING:
    from refusing_store import RefusingStore

ROWS = 40


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Forty pictures in two labels; the picture of row r has red r, every third one is wide, row 9 is no picture."""
    root = tmp_path_factory.mktemp("images")
    for row in range(ROWS):
        path = root / ("fear" if row < ROWS // 2 else "joy") / f"{row:02}.png"
        path.parent.mkdir(exist_ok=True)
        size = (9, 6) if row % 3 == 0 else (6, 9)
        Image.new("RGB", size, (row, 2 * row, 200)).save(path)
    (root / "fear" / "09.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="session")
def manifest(images) -> Manifest:
    return read_dataset(FolderSpec(root=images, split=StratifiedSplit()))


@pytest.fixture
def in_process() -> BuildOptions:
    return BuildOptions(workers=0, device="cpu")


@pytest.fixture
def contents() -> Callable[[Path], dict[str, object]]:
    """Every file of a cache; of the root's metadata all but the time of creation."""

    def read(cache: Path) -> dict[str, object]:
        files: dict[str, object] = {
            str(file.relative_to(cache)): file.read_bytes() for file in sorted(cache.rglob("*")) if file.is_file()
        }
        root = json.loads((cache / "zarr.json").read_text())
        del root["attributes"]["emofuse"]["created"]
        return {**files, "zarr.json": root}

    return read


@pytest.fixture
def start_build(images, tmp_path) -> Iterator[Callable[..., psutil.Process]]:
    """Starts a build in a process group of its own, as a terminal would; kills what is left of it at the end."""
    from cheap_streams import DELAY
    from processes import children_of

    script = Path(__file__).parent / "build_script.py"
    started = []

    def start(cache: Path, *, delay_s: float = 0, deadly: tuple[str, ...] = ()) -> psutil.Process:
        environment = {**os.environ, DELAY: str(delay_s)}
        command = [sys.executable, str(script), str(images), str(cache), "2", *deadly]
        with (tmp_path / "output.txt").open("w") as output:
            process = subprocess.Popen(
                command, env=environment, start_new_session=True, stdout=output, stderr=subprocess.STDOUT
            )
        started.append(psutil.Process(process.pid))
        return started[-1]

    yield start
    for process in started:
        for left in (*children_of(process), process):
            if left.is_running():
                left.kill()


@pytest.fixture
def refusing_store(s3_bucket) -> Callable[..., AbstractContextManager[RefusingStore]]:
    """Puts a store that refuses requests before the real one for a while: `refusing_store(refuses, status, code)`."""
    from refusing_store import serve

    from emofuse import stores

    @contextmanager
    def between(
        refuses: Callable[[int], bool], status: str = "503 Slow Down", code: str = "SlowDown"
    ) -> Iterator[RefusingStore]:
        with pytest.MonkeyPatch.context() as patch, serve(refuses, status, code) as (store, address):
            patch.setenv("AWS_ENDPOINT_URL", address)
            # Pauses grow to seconds; a test waits for none of them.
            patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
            stores.forget_connections()
            yield store
        stores.forget_connections()

    return between
