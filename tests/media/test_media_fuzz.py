"""Clips and sounds with random damage give frames and samples, or one reason in one line; nothing else is raised."""

from __future__ import annotations

import numpy as np
import pytest
from media_files import write_clip, write_sound

from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError
from emofuse.media.audio import read_sound
from emofuse.media.video import read_clip
from emofuse.specs import ClipSpec, DecodeSpec

FILES = {
    "a.mp4": {"sound": "aac"},
    "a.flv": {"codec": "flv", "sound": "libmp3lame"},
    "a.webm": {"codec": "libvpx", "sound": "libopus", "sound_hz": 48000},
    "a.avi": {"codec": "mpeg4"},
    "a.wav": None,
    "a.flac": None,
    "a.ogg": None,
    "a.mp3": None,
}
TRIES = 60


def damaged(data, rng):
    """The bytes with a few flipped, a part zeroed, repeated, or left out; most often in the header."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(len(data)) if rng.random() < 0.5 else rng.integers(min(len(data), 2000)))
        length = int(rng.integers(1, 40))
        match int(rng.integers(4)):
            case 0:
                data[place] ^= int(rng.integers(1, 256))
            case 1:
                data[place : place + length] = bytes(min(length, len(data) - place))
            case 2:
                del data[place : place + length]
            case _:
                data[place:place] = data[place : place + length]
    return bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_decoded_or_refused_with_one_line(tmp_path, name):
    path = tmp_path / name
    if FILES[name] is None:
        write_sound(path, seconds=0.5, channels=2)
    else:
        write_clip(path, frames=12, **FILES[name])
    whole = path.read_bytes()
    rng = np.random.default_rng(sum(name.encode()))
    reasons = []
    span = Source(path, start_s=0.1, end_s=0.3)
    for _ in range(TRIES):
        path.write_bytes(damaged(whole, rng))
        for read in (
            lambda: read_sound(Source(path)).samples,
            lambda: read_clip(Source(path), ClipSpec(frames=3), DecodeSpec(max_pixels=1_000_000)).frames[0],
            lambda: read_clip(span, ClipSpec(frames=2, every=2), DecodeSpec()).frames[0],
        ):
            try:
                result = read()
            except DecodeError as error:
                reasons.append(str(error))
            else:
                assert result.size > 0
    assert reasons
    assert not [reason for reason in reasons if "\n" in reason or len(reason) > 300]
