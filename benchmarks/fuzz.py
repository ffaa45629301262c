"""Send thousands of damaged pictures through decoding and all CPU streams in worker processes.

    python -m benchmarks.fuzz --count 2000

Pictures of every format that emofuse reads are damaged at random, the same way every time for one seed: bits and bytes
changed, cut off, parts taken out, doubled or taken from another file, lengths in headers made absurd. They become a
dataset, whose cache is built with two worker processes. The result holds the statuses of their rows, how many pictures
ended their process, and the memory of the processes.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
from PIL import Image

from benchmarks.results_file import write_result
from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.extraction import BuildOptions, build_cache
from emofuse.specs import ActionUnitsSpec, CacheSpec, FolderSpec, LandmarksSpec, LbpSpec, StratifiedSplit
from emofuse.upkeep.problems import list_problems

MEMORY_BYTES = 2_000_000_000
BLOCK_TIMEOUT_S = 300
_BLOCK_ROWS = 64
_DEADLY = "its process|took longer|took more"


def seeds() -> list[tuple[str, bytes]]:
    """Return whole pictures to damage, with their suffixes: a face and noise, in every format."""
    from skimage.data import astronaut

    face = Image.fromarray(astronaut()[:200, 120:320])
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    made: list[tuple[str, bytes]] = []

    def add(image: Image.Image, suffix: str, form: str, **options: Any) -> None:
        file = io.BytesIO()
        with suppress(KeyError, OSError):  # a format that this Pillow cannot write
            image.save(file, form, **options)
            made.append((suffix, file.getvalue()))

    for image in (face, noise):
        add(image, ".jpg", "JPEG", quality=85)
        add(image, ".jpg", "JPEG", progressive=True, quality=60)
        add(image, ".jpg", "JPEG", exif=_turned())
        add(image.convert("CMYK"), ".jpg", "JPEG")
        add(image, ".png", "PNG")
        add(image.convert("P"), ".png", "PNG", transparency=3)
        add(image.convert("RGBA"), ".png", "PNG")
        add(image.convert("L").convert("I;16"), ".png", "PNG")
        add(image, ".webp", "WEBP")
        add(image, ".webp", "WEBP", lossless=True)
        add(image, ".gif", "GIF", save_all=True, append_images=[image.rotate(90)])
        add(image, ".bmp", "BMP")
        add(image, ".tif", "TIFF")
        add(image, ".tif", "TIFF", compression="tiff_lzw")
        add(image.convert("F"), ".tif", "TIFF")
        add(image, ".ppm", "PPM")
        add(image, ".jpg", "AVIF")  # the suffix of a file does not matter
    return made


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def damaged(data: bytes, other: bytes, draws: random.Random) -> bytes:
    """Return a picture with one to three damages."""
    picture = bytearray(data)
    for _ in range(draws.choice((1, 1, 1, 2, 3))):
        draws.choice(_DAMAGES)(picture, other, draws)
    return bytes(picture)


def _flip_bits(data: bytearray, _: bytes, draws: random.Random) -> None:
    for _ in range(draws.choice((1, 3, 30)) if data else 0):
        data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)


def _flip_bits_of_the_header(data: bytearray, _: bytes, draws: random.Random) -> None:
    for _ in range(draws.choice((1, 3)) if data else 0):
        data[draws.randrange(min(len(data), 256))] ^= 1 << draws.randrange(8)


def _absurd_lengths(data: bytearray, _: bytes, draws: random.Random) -> None:
    for _ in range(draws.choice((1, 4))):
        at, size = draws.randrange(max(1, min(len(data), 256))), draws.choice((2, 4))
        data[at : at + size] = draws.choice((b"\xff", b"\x7f", b"\x00", b"\x80")) * size


def _cut_off(data: bytearray, _: bytes, draws: random.Random) -> None:
    del data[draws.randrange(len(data) + 1) :]


def _take_out(data: bytearray, _: bytes, draws: random.Random) -> None:
    start = draws.randrange(len(data) + 1)
    del data[start : start + draws.choice((1, 16, 1024))]


def _double(data: bytearray, _: bytes, draws: random.Random) -> None:
    start = draws.randrange(len(data) + 1)
    data[start:start] = data[start : start + draws.choice((1, 64, 4096))]


def _splice(data: bytearray, other: bytes, draws: random.Random) -> None:
    start = draws.randrange(len(data) + 1)
    data[start : start + 512] = other[start : start + 512]


def _zeros(data: bytearray, _: bytes, draws: random.Random) -> None:
    start = draws.randrange(len(data) + 1)
    data[start:] = bytes(len(data) - start)


_DAMAGES: Sequence[Callable[[bytearray, bytes, random.Random], None]] = (
    _flip_bits,
    _flip_bits_of_the_header,
    _absurd_lengths,
    _cut_off,
    _take_out,
    _double,
    _splice,
    _zeros,
)


def write_dataset(folder: Path, count: int, seed: int, more: Sequence[Path] = ()) -> None:
    """Write damaged pictures in two labels; `more` are files to damage besides those of `seeds`."""
    whole = seeds() + [(file.suffix, file.read_bytes()) for file in more if file.stat().st_size < 2_000_000]
    draws = random.Random(seed)  # noqa: S311 - no secret
    for number in range(count):
        suffix, data = whole[number % len(whole)]
        path = folder / ("joy" if number % 2 else "fear") / f"{number:06}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damaged(data, draws.choice(whole)[1], draws) or b"?")


@dataclass(frozen=True)
class FuzzResult:
    """The result of a build of damaged pictures.

    Attributes:
        pictures: the number of pictures.
        seconds: the time of the build.
        counts: stream -> status in lower case -> the number of rows.
        deadly: row -> reason, of rows that ended their process, took too long or too much memory.
        reasons: the most frequent reasons of unreadable pictures, without their numbers.
        peak_mb: the largest memory of one extraction process.
    """

    pictures: int
    seconds: float
    counts: Mapping[str, Mapping[str, int]]
    deadly: Mapping[int, str]
    reasons: Mapping[str, int]
    peak_mb: float


def run(folder: Path, cache: Path, face: Mapping[str, str], workers: int = 2) -> FuzzResult:
    """Build the cache of a folder of damaged pictures, and measure the memory of the processes meanwhile."""
    manifest = read_dataset(FolderSpec(root=folder, split=StratifiedSplit()), on_bad_rows="keep")
    streams = (LbpSpec(without_face="whole_image"), LandmarksSpec(), ActionUnitsSpec())
    spec = CacheSpec(block_rows=_BLOCK_ROWS, face=dict(face), streams=streams)
    options = BuildOptions(workers=workers, device="cpu", block_timeout_s=BLOCK_TIMEOUT_S, memory_bytes=MEMORY_BYTES)
    started = time.perf_counter()
    with _Watch() as watch:
        build_cache(cache, manifest, spec, options)
    seconds = time.perf_counter() - started
    built = open_cache(cache)
    problems = list_problems(built)
    deadly = problems.filter(problems["reason"].str.contains(_DEADLY))
    unreadable = problems.filter((problems["status"] == "unreadable") & (problems["stream"] == "lbp"))["reason"]
    kinds = Counter(unreadable.str.replace_all(r"\d[\d,]*", "N").to_list())
    return FuzzResult(
        pictures=len(manifest),
        seconds=seconds,
        counts={name: {each: n for each, n in stream.counts().items() if n} for name, stream in built.streams.items()},
        deadly=dict(zip(deadly["row"].to_list(), deadly["reason"].to_list(), strict=True)),
        reasons=dict(kinds.most_common(20)),
        peak_mb=watch.peak_bytes / 1e6,
    )


class _Watch:
    """Measure, ten times a second, the memory of the processes that this process started."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.1):
            for child in me.children(recursive=True):
                with suppress(psutil.Error):
                    self.peak_bytes = max(self.peak_bytes, child.memory_info().rss)


def main() -> None:
    """Write `benchmarks/results/fuzz.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", type=Path, help="folder of further pictures to damage")
    parser.add_argument("--detector", default="face_mesh", help="of faces")
    arguments = parser.parse_args()
    more = sorted(file for file in arguments.more.iterdir() if file.is_file()) if arguments.more else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "pictures", arguments.count, arguments.seed, more)
        result = run(folder / "pictures", folder / "features.zarr", {"detector": arguments.detector})
    numbers = {**vars(result), "deadly": {str(row): reason for row, reason in result.deadly.items()}}
    print(write_result("fuzz", numbers))
    print(f"{result.pictures} pictures in {result.seconds:.0f} s, {len(result.deadly)} ended their process")
    print(f"at most {result.peak_mb:.0f} MB in a process; {dict(result.counts)}")


if __name__ == "__main__":
    main()
