"""A corpus of 24 clips for tests that build caches, and the spec of their caches."""

from __future__ import annotations

import shutil
from pathlib import Path

from clip_streams import GreySpec, LoudnessSpec, MotionSpec, PixelsSpec
from media_files import cut, frame, write_clip, write_sound

from emofuse.datasets import read_dataset
from emofuse.datasets.clips import ClipsSpec
from emofuse.datasets.manifest import Manifest
from emofuse.specs import CacheSpec, ClipSpec

ROWS = 24
DAMAGED, SILENT, SPAN = 5, 7, 9
STREAMS = (GreySpec(), PixelsSpec(), LoudnessSpec(), MotionSpec())
SPEC = CacheSpec(block_rows=6, clip=ClipSpec(frames=4), streams=STREAMS)


def write_corpus(root: Path) -> Path:
    """Write clips of three brightnesses by six speakers; row 5 is cut off, row 7 silent, row 9 a span of row 8's file.

    Rows from 18 on have their sounds in files of their own.
    """
    root.mkdir(parents=True, exist_ok=True)
    bases = [
        write_clip(
            root / f"base{shift}.mp4",
            frames=10,
            sound="aac",
            picture=lambda number, *size, shift=shift: frame(number + 10 * shift, *size),
        )
        for shift in range(3)
    ]
    silent = write_clip(root / "silent.mp4", frames=10)
    sound = write_sound(root / "tone.wav", seconds=0.4, rate_hz=8000)
    lines = ["path,label,group,audio_path,start_s,end_s"]
    for row in range(ROWS):
        clip, apart = f"{row:02}.mp4", f"{row:02}.wav" if row >= 18 else ""
        shutil.copy(silent if row == SILENT else bases[row % 3], root / clip)
        if apart:
            shutil.copy(sound, root / apart)
        if row == DAMAGED:
            cut(root / clip, 0.6).replace(root / clip)
        span = "08.mp4,{label},s{speaker},,0.1,0.3" if row == SPAN else f"{clip},{{label}},s{{speaker}},{apart},,"
        lines.append(span.format(label=("calm", "sad")[row % 2], speaker=row % 6))
    for base in (*bases, silent, sound):
        base.unlink()
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    return root


def read_corpus(root: Path) -> Manifest:
    return read_dataset(ClipsSpec(root=str(root)))
