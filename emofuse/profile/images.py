"""The images that a profile is measured on: the user's images, or some that are drawn."""

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
    """Pick up to `count` images of a folder, evenly over their sorted names and so over all labels.

    Images that cannot be read are left out, because they would take no time.

    Raises:
        DatasetError: there is no such path, no image in it, or none of those picked can be read.
    """
    paths = find_images(data)
    picked = [paths[index] for index in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]
    problems = {path: problem for path in picked if (problem := _problem(path, decode))}
    readable = [path for path in picked if path not in problems]
    if not readable:
        first = next(iter(problems))
        raise DatasetError(
            f"{data}: none of {len(picked)} images can be read; the first: {first.name}, {problems[first]}. "
            "Name a folder of images"
        )
    return readable


def draw_images(folder: Path, count: int) -> list[Path]:
    """Draw images of the demo dataset into a folder as JPEG files, most with a face and some without."""
    samples = [sample for sample in plan_samples(max(24, 2 * count), 0) if sample.damage is None][:count]
    paths = []
    for number, sample in enumerate(samples):
        pixels, _ = draw_sample(sample, np.random.default_rng([0, number]))
        paths.append(folder / f"{number:05}.jpg")
        cv2.imwrite(str(paths[-1]), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return paths


def _problem(path: Path, decode: DecodeSpec) -> str:
    """Return why an image cannot be read; an empty text if it can."""
    try:
        read_image(path, decode)
    except DecodeError as error:
        return str(error)
    return ""
