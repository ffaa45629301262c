"""The generator of the demo of clips: it draws the planned clips and writes them with a table and their truth."""

from __future__ import annotations

import csv
import importlib
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.datasets.clips_demo import drawing, truth, voice
from emofuse.datasets.clips_demo.truth import DemoClip
from emofuse.datasets.generated import Identity, draw_all, read_truth, remove_records, write_json, write_once
from emofuse.errors import DatasetError
from emofuse.progress import step

GENERATOR_VERSION = 1  # increased whenever the same clips and seed give other files
TRUTH_FILE = "clips_demo.json"
NOUN = "clips_demo dataset"
TABLE_FILE = "clips.csv"
SECONDS = drawing.FRAMES / drawing.FRAMES_PER_S
_SPEAKERS_STREAM = 1 << 20  # the seeds of clips are below


def generate_clips_demo(root: Path, *, clips: int, seed: int) -> None:
    """Write the demo of clips: MP4 files with picture and sound, `clips.csv` and `clips_demo.json`.

    The same `clips` and `seed` give the same bytes on one machine. A root that already holds this dataset is not
    changed. A clip takes about 10 ms on one core.

    Args:
        root: the folder to make, which must not exist or must be empty.
        clips: the number of clips N.
        seed: the seed of all random choices, 0 or more.

    Raises:
        DatasetError: `root` holds something else, or PyAV is not installed.
    """
    identity = {"generator_version": GENERATOR_VERSION, "clips": clips, "seed": seed}
    write_once(root, TRUTH_FILE, NOUN, identity, lambda partial: _write_dataset(partial, identity))


def clips_demo_info(root: Path) -> dict[str, Any]:
    """Return the reachable accuracies of a generated demo as plain JSON, as `truth.describe_truth` defines them.

    Raises:
        DatasetError: `root` holds no demo of clips of this version.
    """
    data = read_truth(root, TRUTH_FILE, NOUN, version=GENERATOR_VERSION)
    return truth.describe_truth(data["lies"])


def write_clip(path: Path, frames: drawing.Frames, sound: npt.NDArray[np.float32]) -> None:
    """Write frames (T, H, W, 3) uint8 and a sound (n,) float32 as an MP4 file.

    Each frame is coded by itself and with the same quantiser, so that what a frame looks like does not depend on those
    before it.
    """
    av = _import_av()
    with av.open(str(path), "w", format="mp4") as container:
        options = {"g": "1", "qmin": "3", "qmax": "3"}
        video = container.add_stream("mpeg4", rate=drawing.FRAMES_PER_S, options=options)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=voice.RATE_HZ, layout="mono")
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        heard = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        heard.sample_rate = voice.RATE_HZ
        heard.pts = 0
        container.mux(audio.encode(heard))
        container.mux(audio.encode(None))


def _import_av() -> ModuleType:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        message = f"clips are written by PyAV: pip install 'emofuse[audio]' ({type(error).__name__}: {error})"
        raise DatasetError(message) from None


def _write_dataset(root: Path, identity: Identity) -> None:
    seed, count = identity["seed"], identity["clips"]
    clips = truth.plan_clips(count, seed)
    speakers = [_draw_speaker(seed, speaker) for speaker in range(truth.SPEAKERS)]
    (root / "clips").mkdir(exist_ok=True)

    def draw(index: int, clip: DemoClip) -> dict[str, Any]:
        rng = np.random.default_rng([seed, count, index + 1])  # the plan's own generator equals one with a 0
        frames, sound = _draw_clip(clip, *speakers[clip.speaker], rng)
        write_clip(root / _path(clip), frames, sound)
        return clip.as_json()

    with step("drawing the demo of clips", len(clips), "clips") as advance:
        records = draw_all(root, clips, draw, advance)
    with (root / TABLE_FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "group"])
        writer.writerows([_path(clip), clip.label, clip.speaker_id] for clip in clips)
    described = {
        truth.speaker_id(speaker): {"look": asdict(look), "voice": asdict(own)}
        for speaker, (look, own) in enumerate(speakers)
    }
    data = {**identity, "lies": dict(truth.LIES), "speakers": described, "samples": records}
    write_json(root / TRUTH_FILE, data, indent=1)
    remove_records(root)


def _path(clip: DemoClip) -> str:
    return f"clips/{clip.sample_id}.mp4"


def _draw_speaker(seed: int, speaker: int) -> tuple[drawing.Look, voice.Voice]:
    rng = np.random.default_rng([seed, _SPEAKERS_STREAM, speaker])
    return drawing.draw_look(rng), voice.draw_voice(rng)


def _draw_clip(
    clip: DemoClip, look: drawing.Look, own: voice.Voice, rng: np.random.Generator
) -> tuple[drawing.Frames, npt.NDArray[np.float32]]:
    frames = drawing.draw_frames(look, closes=clip.shown["mouth"] == 1, pales=clip.shown["blush"] == 1, rng=rng)
    return frames, voice.draw_sound(own, SECONDS, trembles=clip.shown["voice"] == 1, rng=rng)
