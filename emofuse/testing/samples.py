"""Example pictures, clips and sounds for the check of streams, some with a face."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources

import numpy as np

from emofuse.specs import FaceSpec
from emofuse.streams.base import Clip, Face, Sample, Sound
from emofuse.streams.faces import crop_face
from emofuse.streams.faces.blendshape_names import BLENDSHAPES


def example_samples() -> list[Sample]:
    """Return eight small seeded samples.

    The pictures have several shapes, five of them with a face and all that a detector may say of it: one tiny, one
    beyond the edge. Six samples have a sound:
    two voices, silence, a click of one sample, a short sound, and one beyond full scale. Each has a clip of three
    frames, in which its picture moves to the right.
    """
    return [_with_clip(sample) for sample in _pictures_and_sounds()]


def _pictures_and_sounds() -> list[Sample]:
    return [
        _sample(160, 120, seed=0, face_px=70, sound=example_sound(1.3, seed=0)),
        _sample(96, 200, seed=1, face_px=80, sound=Sound(np.zeros(11_025, dtype=np.float32), 22_050)),
        _sample(64, 64, seed=2, face_px=None, sound=None),
        _sample(240, 320, seed=3, face_px=24, sound=Sound(np.ones(1, dtype=np.float32), 16_000)),
        _sample(100, 100, seed=4, face_px=180, sound=example_sound(0.05, seed=1)),
        Sample(np.full((48, 64, 3), 127, dtype=np.uint8), sound=None),
        _sample(33, 57, seed=5, face_px=None, sound=example_sound(0.7, seed=2, gain=8.0)),
        _sample(224, 224, seed=6, face_px=130, sound=example_sound(2.2, seed=3)),
    ]


def example_sound(duration_s: float, *, seed: int = 0, gain: float = 0.3, rate_hz: int = 16_000) -> Sound:
    """Return a seeded sound like a voice: harmonics of a gliding pitch, in syllables, with a little noise."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(max(1, round(duration_s * rate_hz))) / rate_hz
    pitch_hz = rng.uniform(90, 220) * (1 + 0.15 * np.sin(2 * np.pi * 0.9 * time_s))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    voice = sum(np.sin(number * phase) / number for number in range(1, 12))
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time_s)
    samples = gain * (syllables * voice / 2 + 0.02 * rng.standard_normal(len(time_s)))
    return Sound(samples.astype(np.float32), rate_hz)


def example_face() -> Face:
    """Return the face that MediaPipe Face Mesh finds in scikit-image's astronaut photograph (NASA, public domain)."""
    table = resources.files("emofuse.testing").joinpath("face.csv").read_text(encoding="utf-8")
    return Face(np.array([line.split(",") for line in table.split()], dtype=np.float32))


def _with_clip(sample: Sample) -> Sample:
    frames = tuple(np.roll(sample.image, 5 * number, axis=1) for number in range(3))
    return replace(sample, clip=Clip(frames, np.array([0.02, 0.06, 0.1])))


def _sample(height: int, width: int, *, seed: int, face_px: int | None, sound: Sound | None) -> Sample:
    """Draw coarse coloured patches with fine noise, and a face `face_px` high in the middle, turned by the seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (height // 8 + 1, width // 8 + 1, 3))
    patches = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    image = (patches + rng.integers(0, 56, patches.shape)).astype(np.uint8)
    if face_px is None:
        return Sample(image, sound=sound)
    points = example_face().mesh
    points = (points - points.mean(axis=0)) * (face_px / np.ptp(points[:, 1]))
    angle = 0.1 * seed
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    middle = np.array([width / 2, height / 2, 0])
    transform = np.eye(4)
    transform[:3, :3] = np.diag([1, -1, -1]) @ turn.T @ np.diag([1, -1, -1])
    face = Face(
        (points @ turn + middle).astype(np.float32),
        blendshapes=rng.uniform(0, 1, len(BLENDSHAPES)).astype(np.float32),
        transform=transform.astype(np.float32),
    )
    return Sample(image, face, sound, crop=crop_face(image, face, FaceSpec(size_px=96)), faces=(face,))
