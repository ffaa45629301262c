"""Each step of extraction alone on one core, and the face mesh by threads and by processes."""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

from emofuse.cache.layout import StreamLayout
from emofuse.cache.structure import add_stream, create_cache
from emofuse.cache.writer import write_block
from emofuse.datasets.manifest import Manifest
from emofuse.media.decode import read_image
from emofuse.specs import (
    ActionUnitsSpec,
    BackboneSpec,
    DecodeSpec,
    FaceSpec,
    LandmarksSpec,
    LbpSpec,
    ObjectsSpec,
    RandomWeights,
    StreamSpec,
)
from emofuse.streams import make_stream
from emofuse.streams.base import Sample, SampleBatch, Stream
from emofuse.streams.faces import make_face_detector

FACE_STREAMS: tuple[StreamSpec, ...] = (LbpSpec(), LandmarksSpec(), ActionUnitsSpec())
SIX_STREAMS = (
    "read and decode",
    "face mesh",
    "lbp",
    "landmarks",
    "action_units",
    "resize and crop",
    "resnet50 float32",
    "resnet50 float32",  # the network of Places365
    "objects float32",
    "chunk write",
)
"""The steps that an image of the paper's six streams takes."""

_BATCHES, _OBJECT_BATCHES = (1, 4, 16, 32), (1, 4, 8)
_WRITTEN = (256, 2048)
_TIMED_BATCHES = 3
_MESH_ROUNDS = 3


def time_steps(paths: Sequence[Path]) -> dict[str, float]:
    """Milliseconds an image of each step alone, on one thread."""
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    steps = {
        "read": each(paths, Path.read_bytes),
        "read and decode": each(paths, lambda path: read_image(path, DecodeSpec())),
    }
    steps |= time_decoders([path.read_bytes() for path in paths])
    images = [read_image(path, DecodeSpec()) for path in paths]
    detector = make_face_detector(FaceSpec())
    steps["face mesh"] = each(images, detector.detect)
    samples = [Sample(image, detector.detect(image)) for image in images]
    detector.close()
    for spec in FACE_STREAMS:
        steps[spec.name] = time_stream(make_stream(spec), samples, 32)
    return steps | time_networks(samples) | {"chunk write": time_chunk_write()}


def time_decoders(files: Sequence[bytes]) -> dict[str, float]:
    """Other decoders of the same bytes, none of which tells a file that was cut off from a whole one."""
    import torch
    from PIL import Image
    from torchvision.io import decode_jpeg

    def halved(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (image.width // 2, image.height // 2))
        return np.asarray(image)

    return {
        "decode, OpenCV": each(files, lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)),
        "decode, torchvision": each(
            files, lambda data: decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        ),
        "decode, Pillow at half scale": each(files, halved),
    }


def time_networks(samples: Sequence[Sample]) -> dict[str, float]:
    """Networks at the batch that they choose themselves and at others, their squares cut before; the cutting alone."""
    import torch

    cpu = torch.device("cpu")
    random = RandomWeights(seed=0)
    steps = {}
    for precision in ("float32", "bfloat16"):
        for model in ("resnet50", "mobilenet_v2"):
            spec = BackboneSpec(model=model, weights=random, precision=precision)
            stream: Any = make_stream(spec)
            cut = partial(stream._preset.cut_all, device=cpu)  # noqa: SLF001 - timed apart from the network
            steps.setdefault("resize and crop", each([SampleBatch([sample]) for sample in samples], cut))
            steps[f"{model} {precision}"] = time_stream(stream, samples, 32, cut)
            for size in _BATCHES if precision == "float32" else ():
                stream._batch = size  # noqa: SLF001
                steps[f"{model} {precision}, batch {size}"] = time_stream(stream, samples, 32, cut)
        objects: Any = make_stream(ObjectsSpec(weights=random, precision=precision))
        steps[f"objects {precision}"] = time_stream(objects, samples, 8)
        for size in _OBJECT_BATCHES if precision == "float32" else ():
            objects._batch = size  # noqa: SLF001
            steps[f"objects {precision}, batch {size}"] = time_stream(objects, samples, 8)
    return steps


def time_stream(
    stream: Stream, samples: Sequence[Sample], size: int, before: Callable[[SampleBatch], object] | None = None
) -> float:
    """Milliseconds an image in batches of a size, of which nothing is prepared but by `before`."""
    batches = [SampleBatch(samples[first : first + size]) for first in range(0, len(samples) - size + 1, size)]
    batches = batches[: _TIMED_BATCHES + 1]
    for batch in batches:
        if before is not None:
            before(batch)
    return each(batches, stream.extract) / size


def time_chunk_write() -> float:
    """Milliseconds a row of 2048 values and its status, with all that keeps a block whole when the power fails."""
    rows, dim = _WRITTEN
    nothing = pl.Series([None] * rows, dtype=pl.String)
    ids = pl.int_range(rows, eager=True).cast(pl.String)
    table = pl.DataFrame({"sample_id": ids, "path": ids, "split": nothing, "label": nothing, "problem": nothing})
    features, ones = np.random.default_rng(0).random((rows, dim)).astype(np.float16), np.ones(rows, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.zarr"
        create_cache(path, Manifest(table, ("a", "b"), Path(folder), {"name": "steps"}), block_rows=rows)
        add_stream(path, StreamLayout("resnet50", "backbone", (dim,), features.dtype, identity={"kind": "backbone"}))

        def write(_: int) -> None:
            write_block(path, "resnet50", 0, features=features, status=ones, flags=ones)

        return each(range(10), write) / rows


def time_meshes(paths: Sequence[Path]) -> dict[str, float]:
    """Images a second of the mesh on all cores, by threads of one process and by processes; median of some rounds."""
    count = os.cpu_count() or 1
    cut = [list(paths[first::count]) for first in range(count)]
    pools: dict[str, Executor] = {
        "one thread": ThreadPoolExecutor(1),
        f"{count} threads": ThreadPoolExecutor(count),
        f"{count} processes": ProcessPoolExecutor(count, mp_context=get_context("spawn")),
    }
    rates: dict[str, list[float]] = {name: [] for name in pools}
    for _ in range(_MESH_ROUNDS + 1):
        for name, pool in pools.items():
            start = time.perf_counter()
            shares = [future.result() for future in [pool.submit(find_faces, part) for part in cut]]
            rates[name].append(sum(shares) / (time.perf_counter() - start))
    for pool in pools.values():
        pool.shutdown()
    return {name: statistics.median(found[1:]) for name, found in rates.items()}  # the first round opens the models


_own = threading.local()


def find_faces(paths: Sequence[Path]) -> int:
    """Decodes pictures and finds their faces, with the models of the thread that calls; gives how many pictures."""
    if not hasattr(_own, "detector"):
        cv2.setNumThreads(1)
        _own.detector = make_face_detector(FaceSpec())
    for path in paths:
        _own.detector.detect(read_image(path, DecodeSpec()))
    return len(paths)


def each(items: Sequence[Any], function: Callable[[Any], object]) -> float:
    """Median milliseconds of a call, the first one not counted."""
    function(items[0])
    times = []
    for item in items[1:]:
        start = time.perf_counter()
        function(item)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
