"""Time each step of extraction alone on one core, and the face mesh by threads and by processes."""

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

from benchmarks.empty_cache import STREAM, make_empty_cache
from emofuse.cache.writer import write_block
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
from emofuse.streams.runtimes import NetworkRuntimes, networks_on

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
"""The steps of an image for the paper's six streams."""

_BATCH = 32
_WRITTEN = (256, 2048)
_TIMED_BATCHES = 3
_MESH_ROUNDS = 3


def time_steps(paths: Sequence[Path]) -> dict[str, float]:
    """Return the milliseconds an image of each step alone, on one thread."""
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
    """Time other decoders of the same bytes, none of which notices that a file was cut off."""
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
    """Time the cutting of images, and networks on cut images, in the runtime of a build and in PyTorch."""
    import torch

    cpu = torch.device("cpu")
    random = RandomWeights(seed=0)
    steps: dict[str, float] = {}
    for runtime, ending in (("auto", ""), ("torch", ", torch")):
        runtimes = NetworkRuntimes(runtime, threads=1)
        with networks_on(runtimes):
            backbones: dict[str, Any] = {
                model: make_stream(BackboneSpec(model=model, weights=random)) for model in ("resnet50", "mobilenet_v2")
            }
            objects = make_stream(ObjectsSpec(weights=random))
        runtimes.compile_all()
        for model, stream in backbones.items():
            cut = partial(stream.preset.cut_all, device=cpu)
            steps.setdefault("resize and crop", each([SampleBatch([sample]) for sample in samples], cut))
            steps[f"{model} float32{ending}"] = time_stream(stream, samples, _BATCH, cut)
        steps[f"objects float32{ending}"] = time_stream(objects, samples, 8)
    return steps


def time_stream(
    stream: Stream, samples: Sequence[Sample], size: int, before: Callable[[SampleBatch], object] | None = None
) -> float:
    """Return the milliseconds an image in batches of a size, on which only `before` was called earlier."""
    batches = [SampleBatch(samples[first : first + size]) for first in range(0, len(samples) - size + 1, size)]
    batches = batches[: _TIMED_BATCHES + 1]
    for batch in batches:
        if before is not None:
            before(batch)
    return each(batches, stream.extract) / size


def time_chunk_write() -> float:
    """Return the milliseconds to write a row of 2048 values and its status, safe against a power failure."""
    rows, dim = _WRITTEN
    features, ones = np.random.default_rng(0).random((rows, dim)).astype(np.float16), np.ones(rows, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = make_empty_cache(Path(folder), rows, dim, block_rows=rows)

        def write(_: int) -> None:
            write_block(path, STREAM, 0, features=features, status=ones, flags=ones)

        return each(range(10), write) / rows


def time_meshes(paths: Sequence[Path]) -> dict[str, float]:
    """Return images a second of the mesh on all cores, by threads and by processes; the median of some rounds."""
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
    return {name: statistics.median(of_pool[1:]) for name, of_pool in rates.items()}  # the first round opens the models


_of_thread = threading.local()


def find_faces(paths: Sequence[Path]) -> int:
    """Decode pictures and find their faces with the models of the calling thread; return the number of pictures."""
    if not hasattr(_of_thread, "detector"):
        cv2.setNumThreads(1)
        _of_thread.detector = make_face_detector(FaceSpec())
    for path in paths:
        _of_thread.detector.detect(read_image(path, DecodeSpec()))
    return len(paths)


def each(items: Sequence[Any], function: Callable[[Any], object]) -> float:
    """Return the median milliseconds of a call, without the first one."""
    function(items[0])
    times = []
    for item in items[1:]:
        start = time.perf_counter()
        function(item)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
