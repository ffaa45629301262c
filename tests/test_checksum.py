"""The checksum is CRC32C, whichever library computes it."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse import checksum
from emofuse.checksum import crc32c


@pytest.fixture(params=["installed", "without awscrt"], autouse=True)
def _library(request, monkeypatch):
    monkeypatch.setattr(checksum, "_WORTH_LOADING", 0)
    if request.param == "without awscrt":
        monkeypatch.setattr(checksum, "_fast", lambda: None)
    elif checksum._fast() is None:
        pytest.skip("awscrt is not installed")


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_the_published_values(data, expected):
    """Of RFC 3720, B.4, and the catalogue of CRCs."""
    assert crc32c(data) == expected


def test_an_array_has_the_checksum_of_its_bytes_and_stays_writable():
    whole = np.random.default_rng(0).integers(0, 256, 100_003).astype(np.uint8)
    for array in (whole, whole[7:50_001]):
        assert crc32c(array) == crc32c(array.tobytes())
        assert array.flags.writeable


def test_one_flipped_bit_changes_it():
    data = bytearray(b"feature" * 1000)
    before = crc32c(bytes(data))
    data[3000] ^= 1
    assert crc32c(bytes(data)) != before
