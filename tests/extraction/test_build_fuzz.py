"""Damaged pictures in real worker processes: more of them with EMOFUSE_TEST_FUZZ=20000, told of by benchmarks.fuzz."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from benchmarks import fuzz  # noqa: E402

COUNT = int(os.environ.get("EMOFUSE_TEST_FUZZ", "2000"))


def test_damaged_pictures_cost_their_rows_and_nothing_else(tmp_path, face):
    fuzz.write_dataset(tmp_path / "pictures", COUNT, seed=1)
    found = fuzz.run(tmp_path / "pictures", tmp_path / "features.zarr", face)
    assert found.pictures == COUNT
    for counts in found.counts.values():
        assert sum(counts.values()) == COUNT
        assert set(counts) <= {"ok", "no_detection", "unreadable", "failed"}
        assert counts["ok"] > COUNT // 20
    assert found.counts["lbp"]["unreadable"] > COUNT // 4
    assert found.deadly == {}
    assert found.peak_mb < 1200


def test_the_same_pictures_are_damaged_in_the_same_way_every_time(tmp_path):
    for name in ("a", "b"):
        fuzz.write_dataset(tmp_path / name, 40, seed=3)
    files = [[file.read_bytes() for file in sorted((tmp_path / name).rglob("*.*"))] for name in ("a", "b")]
    assert files[0] == files[1]
    whole = {data for _, data in fuzz.seeds()}
    assert sum(data in whole for data in files[0]) <= 4


@pytest.mark.parametrize("damage", fuzz._DAMAGES, ids=lambda damage: damage.__name__)
def test_every_damage_leaves_bytes_of_any_length(damage):
    for length in (0, 1, 2, 300):
        for seed in range(20):
            data = bytearray(range(256)) * 2
            del data[length:]
            damage(data, b"other" * 200, random.Random(seed))
            assert len(data) <= length + 4096 + 512


# Bombs: little files that say that they are huge pictures.


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000), 9)  # what there is of it; a decoder would go on with zeros
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def enlarged(form: str, suffix: bytes, place: int, layout: str, **options: object) -> bytes:
    """A small picture whose header says that it is 12,000 x 12,000."""
    file = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 40)).save(file, form, **options)
    data = bytearray(file.getvalue())
    at = data.index(suffix) + place
    struct.pack_into(layout, data, at, 12_000, 12_000)
    return bytes(data)


def tiff() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 40)).save(file, "TIFF", tiffinfo={256: 300, 257: 200})
    image = Image.open(io.BytesIO(file.getvalue()))
    assert image.size == (300, 200)
    data = file.getvalue()
    for tag, size in ((256, 300), (257, 200)):
        for kind, number in ((3, struct.pack("<HH", size, 0)), (4, struct.pack("<I", size))):
            entry = struct.pack("<HHI", tag, kind, 1) + number
            data = data.replace(entry, struct.pack("<HHII", tag, 4, 1, 12_000))
    return data


BOMBS = {
    "png": lambda: png(12_000, 12_000),
    "jpeg": lambda: enlarged("JPEG", b"\xff\xc0", 5, ">HH"),
    "gif": lambda: enlarged("GIF", b"GIF8", 6, "<HH"),
    "bmp": lambda: enlarged("BMP", b"BM", 18, "<II"),
    "webp": lambda: enlarged("WEBP", b"\x9d\x01\x2a", 3, "<HH"),
    "ppm": lambda: b"P6 12000 12000 255\n" + bytes(30_000),
    "tiff": tiff,
}

REFUSE = """
import resource, sys
from pathlib import Path
from emofuse.media.decode import read_image
from emofuse.errors import DecodeError
from emofuse.specs import DecodeSpec
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image(Path(sys.argv[1]), DecodeSpec())
except DecodeError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_are_refused_by_their_pixels_before_they_are_decoded(tmp_path, name):
    """144 million pixels would be 430 MB: neither that nor a part of it is ever taken."""
    (tmp_path / "bomb").write_bytes(BOMBS[name]())
    command = [sys.executable, "-c", REFUSE, str(tmp_path / "bomb")]
    reason, megabytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert reason == "12000 x 12000 = 144,000,000 pixels, more than max_pixels = 100,000,000"
    assert int(megabytes) < 60
