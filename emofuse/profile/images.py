"""Pictures to measure on: the user's own, or a few drawn ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from emofuse.datasets.demo.generator import draw_sample
from emofuse.datasets.demo.truth import plan_samples
from emofuse.errors import DatasetError, DecodeError
from emofuse.media.decode import read_image
from emofuse.predict import find_images
from emofuse.specs import DecodeSpec

_JPEG_QUALITY = 95


def pick_images(data: Path, count: int, decode: DecodeSpec) -> list[Path]:
    """So many pictures of a folder, evenly over their sorted names (of all labels, then), or all if there are fewer.

    Those that cannot be read are left out: they would take no time.

    Raises:
        DatasetError: no such path, no picture in it, or none of those picked can be read.
    """
    found = find_images(data)
    picked = [found[index] for index in np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)]
    problems = {path: problem for path in picked if (problem := _problem(path, decode))}
    readable = [path for path in picked if path not in problems]
    if not readable:
        first = next(iter(problems))
        raise DatasetError(
            f"{data}: none of {len(picked)} pictures can be read; the first: {first.name}, {problems[first]}. "
            "Name a folder of pictures"
        )
    return readable


def draw_images(folder: Path, count: int) -> list[Path]:
    """Pictures of the demo dataset as JPEG files, most with a face and some without; nothing else of the dataset."""
    samples = [sample for sample in plan_samples(max(24, 2 * count), 0) if sample.damage is None][:count]
    paths = []
    for number, sample in enumerate(samples):
        picture, _ = draw_sample(sample, np.random.default_rng([0, number]))
        paths.append(folder / f"{number:05}.jpg")
        cv2.imwrite(str(paths[-1]), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return paths


def _problem(path: Path, decode: DecodeSpec) -> str:
    """Why a picture cannot be read, or ""."""
    try:
        read_image(path, decode)
    except DecodeError as error:
        return str(error)
    return ""
