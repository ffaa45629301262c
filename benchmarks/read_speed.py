"""Measure how fast emofuse, Zarr's own pipeline and zarrs read cached features, beside `np.load` of the same bytes.

    python -m benchmarks.read_speed        # about a minute
    python -m benchmarks.read_speed --smoke

All files lie in the page cache: that is the cost on a machine whose memory holds the features, and the least cost on
any other. Features are read as float16 arrays, as they are stored, and as float32, as heads take them. Contenders take
turns, so that other work of the machine slows all of them alike. All but np.load check the chunks' checksums.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zarr

from benchmarks.empty_cache import STREAM, make_empty_cache
from benchmarks.results_file import write_result
from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.reader import open_cache
from emofuse.cache.writer import write_block

BLOCK_ROWS = 256
ZARRS = "zarrs.ZarrsCodecPipeline"
GB = 1e9


def write_both(folder: Path, rows: int, dim: int) -> CachedStream:
    """Write the same numbers as a cached stream and as `features.npy`."""
    path = make_empty_cache(folder, rows, dim, BLOCK_ROWS)
    rng = np.random.default_rng(0)
    whole = np.empty((rows, dim), dtype=np.float16)
    for block, first in enumerate(range(0, rows, BLOCK_ROWS)):
        part = whole[first : first + BLOCK_ROWS]
        part[:] = rng.random(part.shape, dtype=np.float32)
        ones = np.ones(len(part), dtype=np.uint8)
        write_block(path, STREAM, block, features=part, status=ones, flags=ones)
    np.save(folder / "features.npy", whole)
    return open_cache(path).streams[STREAM]


def contenders(stream: CachedStream, npy: Path) -> dict[str, dict[str, Callable[[], npt.NDArray[Any]]]]:
    """Return question -> contender -> a function that reads the whole stream; the first one is the reference."""

    def by_zarr(pipeline: str | None) -> npt.NDArray[Any]:
        with zarr.config.set({} if pipeline is None else {"codec_pipeline.path": pipeline}):
            return np.asarray(zarr.open_array(stream.features.store, mode="r")[:, 0:1])[:, 0]

    has_zarrs = find_spec("zarrs") is not None
    stored: dict[str, Callable[[], npt.NDArray[Any]]] = {
        "np.load": lambda: np.load(npy),
        "emofuse": lambda: stream.read()[0],
        "zarr": lambda: by_zarr(None),
    }
    single: dict[str, Callable[[], npt.NDArray[Any]]] = {
        "np.load, astype": lambda: np.load(npy).astype(np.float32),
        "np.load, torch": lambda: torch.from_numpy(np.load(npy)).float().numpy(),
        "emofuse": lambda: stream.read(dtype=np.float32)[0],
        "zarr, astype": lambda: by_zarr(None).astype(np.float32),
    }
    if has_zarrs:
        stored["zarrs"] = lambda: by_zarr(ZARRS)
        single["zarrs, astype"] = lambda: by_zarr(ZARRS).astype(np.float32)
    return {"as stored, float16": stored, "for heads, float32": single}


def compare(
    readers: Mapping[str, Callable[[], npt.NDArray[Any]]], stored_bytes: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Return contender -> GB of stored bytes a second (median and best), and the ratio to the first contender.

    Raises:
        RuntimeError: a contender reads other numbers than the first one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    expected = next(iter(readers.values()))()
    for name, read in readers.items():
        if not np.array_equal(read(), expected):
            raise RuntimeError(f"{name} read other numbers")
    del expected
    for _ in range(repeats):
        for name, read in readers.items():
            started = time.perf_counter()
            array = read()
            seconds[name].append(time.perf_counter() - started)
            del array
    first = statistics.median(next(iter(seconds.values())))
    return {
        name: {
            "gb_per_s": float(f"{stored_bytes / GB / statistics.median(taken):.3g}"),
            "best_gb_per_s": float(f"{stored_bytes / GB / min(taken):.3g}"),
            "times_the_first": round(first / statistics.median(taken), 2),
        }
        for name, taken in seconds.items()
    }


def measure(rows: int, dim: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Answer both questions on a stream of this size."""
    stream = write_both(folder, rows, dim)
    stored_bytes = rows * dim * 2
    answers = {
        question: compare(readers, stored_bytes, repeats)
        for question, readers in contenders(stream, folder / "features.npy").items()
    }
    return {
        "rows": rows,
        "dim": dim,
        "block_rows": BLOCK_ROWS,
        "stored_mb": round(stored_bytes / 1e6),
        "repeats": repeats,
        "torch_threads": torch.get_num_threads(),
        "answers": answers,
    }


def main() -> None:
    """Measure and write `results/read_speed.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=51_200)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--smoke", action="store_true", help="few rows: numbers mean nothing")
    parser.add_argument("--out", type=Path, help="folder of the result instead of benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        size = (2048, 64, 2) if arguments.smoke else (arguments.rows, arguments.dim, arguments.repeats)
        result = measure(*size, Path(folder))
    for question, answers in result["answers"].items():
        for name, numbers in answers.items():
            print(f"{question:20} {name:16} {numbers['gb_per_s']:6.2f} GB/s  {numbers['times_the_first']:5.2f}")
    name = "read_speed_smoke" if arguments.smoke else "read_speed"
    write_result(name, result, script="read_speed", **({"folder": arguments.out} if arguments.out else {}))


if __name__ == "__main__":
    main()
