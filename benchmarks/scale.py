"""Measure time and peak memory of a build without extraction, and of opening its cache, at millions of rows.

    python -m benchmarks.scale             # about 3 minutes
    python -m benchmarks.scale --smoke

A manifest as long as the dataset, in which every row is marked as bad, so that no picture is opened, and a stream that
looks at nothing. Each step is a process of its own, so that each has its own peak; what a process takes that only
imports the same modules is a step too. The finished cache is laid down by copying the chunks of its first block; the
real build is run where `--build-rows` allows it, since it writes a chunk or three per block and stream.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.null_stream import NullSpec
from benchmarks.results_file import write_result
from emofuse.cache.layout import StreamLayout, manifest_path, streams_dir
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_stream, create_cache
from emofuse.cache.writer import write_block
from emofuse.datasets.manifest import Manifest
from emofuse.extraction import BuildOptions, build_cache, plan_build
from emofuse.specs import CacheSpec
from emofuse.streams import stream_identity

ROWS = (10_000, 100_000, 1_000_000, 3_300_000)
STREAMS = 6
LABELS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
SPEC = CacheSpec(streams=tuple(NullSpec(name=f"null{index}") for index in range(STREAMS)))
MB = 1_000_000


def make_manifest(rows: int) -> Manifest:
    """Return a manifest with ids and paths as long as EmoSet's."""
    row = pl.int_range(rows, eager=True)
    label = pl.Series(LABELS).gather(row % len(LABELS))
    number = (row * 48_271 % 10_000_019).cast(pl.String).str.zfill(8)  # numbers in no order, none of them twice
    table = pl.select(
        sample_id=pl.format("{}_{}", label, number),
        path=pl.format("image/{}/{}_{}.jpg", label, label, number),
        split=pl.Series(["train", "train", "train", "val", "test"]).gather(row % 5),
        label=label,
        problem=pl.Series(["no picture"]).gather(row * 0),
    )
    return Manifest(table, LABELS, Path("/nowhere"), {"name": "scale", "kind": "csv"})


def lay_down(path: Path, manifest: Manifest) -> None:
    """Write a finished cache whose blocks are all copies of the first."""
    cache = create_cache(path, manifest, block_rows=SPEC.rows_of_a_block(len(manifest)))
    count = cache.block_slice(0).stop
    for spec in SPEC.streams:
        layout = StreamLayout(
            name=spec.name,
            kind=spec.kind,
            shape=(8,),
            dtype=np.dtype("float32"),
            identity=stream_identity(spec, SPEC),
            spec=spec.model_dump(mode="json"),
            decode=SPEC.decode.model_dump(mode="json"),
        )
        add_stream(path, layout)
        ones = np.ones(count, dtype=np.uint8)
        write_block(path, spec.name, 0, features=np.zeros((count, 8), np.float32), status=ones, flags=ones)
        for array in layout.number_arrays:
            folder = streams_dir(path) / spec.name / array
            data = (folder / layout.chunk_name(array, 0)).read_bytes()
            for block in range(1, cache.blocks):
                (folder / layout.chunk_name(array, block)).write_bytes(data)


def _imports(_: Path) -> None:
    """Do nothing, which leaves the cost of Python and the imports."""


def _read_manifest(path: Path) -> None:
    _ = Manifest.read(manifest_path(path)).ids_digest


def _plan_new(path: Path) -> None:
    manifest = Manifest.read(manifest_path(path))
    plan = plan_build(path.with_name("new.zarr"), manifest, SPEC)
    _expect(plan.rows == len(manifest))
    next(plan.tasks())


def _plan_finished(path: Path) -> None:
    _expect(not plan_build(path, Manifest.read(manifest_path(path)), SPEC).missing)


def _build_nothing(path: Path) -> None:
    manifest = Manifest.read(manifest_path(path))
    _expect(build_cache(path, manifest, SPEC, BuildOptions(workers=2, device="cpu")).rows == 0)


def _open(path: Path) -> None:
    open_cache(path)


def _open_and_read(path: Path) -> None:
    """Read all that a run reads of a cache except the features."""
    cache = open_cache(path)
    _ = cache.labels, cache.splits, cache.sample_ids
    for stream in cache.streams.values():
        stream.check_complete()


def _build(path: Path) -> None:
    """Build through worker processes, which open no picture."""
    target = path.with_name("built.zarr")
    shutil.rmtree(target, ignore_errors=True)
    manifest = Manifest.read(manifest_path(path))
    summary = build_cache(target, manifest, SPEC, BuildOptions(workers=2, device="cpu"))
    _expect(summary.rows == len(manifest))


def _expect(condition: bool) -> None:
    if not condition:
        raise RuntimeError("the step did something else than what it is timed for")


STEPS: Mapping[str, Callable[[Path], None]] = {
    "imports": _imports,
    "read_manifest": _read_manifest,
    "plan_new": _plan_new,
    "plan_finished": _plan_finished,
    "build_nothing": _build_nothing,
    "open": _open,
    "open_and_read_labels_ids_status": _open_and_read,
    "build_null": _build,
}


def measure_step(name: str, path: Path) -> dict[str, float]:
    """Run one step in its own process; return its seconds without imports and its peak of resident memory."""
    command = [sys.executable, "-m", "benchmarks.scale", "--step", name, "--cache", str(path)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def run_step(name: str, path: Path) -> None:
    """Run one step and print its seconds and peak memory."""
    started = time.perf_counter()
    STEPS[name](path)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": round(seconds, 3), "peak_mb": round(_peak_bytes() / MB)}))


def _peak_bytes() -> int:
    """Return the peak memory of this program; that of `getrusage` includes the process that started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def measure(rows: int, folder: Path, *, build_rows: int) -> dict[str, Any]:
    """Measure all steps at one number of rows."""
    path = folder / f"{rows}.zarr"
    manifest = make_manifest(rows)
    lay_down(path, manifest)
    del manifest
    folders = [entry for entry in path.rglob("*") if entry.is_dir()]
    steps = {name: measure_step(name, path) for name in STEPS if name != "build_null" or rows <= build_rows}
    result = {
        "rows": rows,
        "block_rows": open_cache(path).layout.block_rows,
        "files_in_the_fullest_folder": max(sum(1 for file in each.iterdir() if file.is_file()) for each in folders),
        "manifest_mb": round(manifest_path(path).stat().st_size / MB, 1),
        "steps": steps,
    }
    shutil.rmtree(path)
    return result


def main() -> None:
    """Measure every number of rows and write `results/scale.json` after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--build-rows", type=int, default=100_000, help="largest number that is really built")
    parser.add_argument("--smoke", action="store_true", help="2,000 rows alone: numbers mean nothing")
    parser.add_argument("--out", type=Path, help="folder of the result instead of benchmarks/results")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(arguments.step, arguments.cache)
        return
    curve, rows_to_measure = [], [2_000] if arguments.smoke else arguments.rows
    name = "scale_smoke" if arguments.smoke else "scale"
    with tempfile.TemporaryDirectory() as folder:
        for rows in rows_to_measure:
            curve.append(measure(rows, Path(folder), build_rows=arguments.build_rows))
            print(json.dumps(curve[-1]))
            where = {"folder": arguments.out} if arguments.out else {}
            write_result(name, {"streams": STREAMS, "curve": curve}, script="scale", **where)


if __name__ == "__main__":
    main()
