"""Example pictures for the check of streams, some with a face."""

from __future__ import annotations

from importlib import resources

import numpy as np

from emofuse.streams.base import Face, Sample


def example_samples() -> list[Sample]:
    """Return eight small seeded pictures of several shapes, five of them with a face: one tiny, one beyond the edge."""
    return [
        _sample(160, 120, seed=0, face_px=70),
        _sample(96, 200, seed=1, face_px=80),
        _sample(64, 64, seed=2, face_px=None),
        _sample(240, 320, seed=3, face_px=24),
        _sample(100, 100, seed=4, face_px=180),
        Sample(np.full((48, 64, 3), 127, dtype=np.uint8)),
        _sample(33, 57, seed=5, face_px=None),
        _sample(224, 224, seed=6, face_px=130),
    ]


def example_face() -> Face:
    """Return the face that MediaPipe Face Mesh finds in scikit-image's astronaut photograph (NASA, public domain)."""
    table = resources.files("emofuse.testing").joinpath("face.csv").read_text(encoding="utf-8")
    return Face(np.array([line.split(",") for line in table.split()], dtype=np.float32))


def _sample(height: int, width: int, *, seed: int, face_px: int | None) -> Sample:
    """Draw coarse coloured patches with fine noise, and a face `face_px` high in the middle, turned by the seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (height // 8 + 1, width // 8 + 1, 3))
    patches = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    image = (patches + rng.integers(0, 56, patches.shape)).astype(np.uint8)
    if face_px is None:
        return Sample(image)
    points = example_face().points
    points = (points - points.mean(axis=0)) * (face_px / np.ptp(points[:, 1]))
    angle = 0.1 * seed
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    middle = np.array([width / 2, height / 2, 0])
    return Sample(image, Face((points @ turn + middle).astype(np.float32)))
