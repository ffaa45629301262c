"""The images or clips that a profile is measured on: the user's files, or images that are drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from emofuse.datasets.demo.generator import draw_sample
from emofuse.datasets.demo.truth import plan_samples
from emofuse.datasets.sources import Source
from emofuse.errors import DatasetError
from emofuse.predict import find_images, kinds_of_files
from emofuse.specs import CacheSpec
from emofuse.streams.reading import SampleReader

_JPEG_QUALITY = 95


def pick_images(data: Path, count: int, spec: CacheSpec) -> list[Path | Source]:
    """Pick up to `count` images of a folder, evenly over their sorted names and so over all labels.

    For a cache spec of clips or sounds, these are picked.

    Images that cannot be read are left out, because they would take no time.

    Raises:
        DatasetError: there is no such path, no image in it, or none of those picked can be read.
    """
    paths = find_images(data, kinds_of_files(spec))
    picked = [paths[index] for index in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]
    problems = {path: problem for path in picked if (problem := _problem(path, spec))}
    readable = [path for path in picked if path not in problems]
    if not readable:
        first = next(iter(problems))
        raise DatasetError(
            f"{data}: none of {len(picked)} files can be read; the first: {Path(str(first)).name}, {problems[first]}. "
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


def _problem(path: Path | Source, spec: CacheSpec) -> str:
    """Return why a file cannot be read; an empty text if it can."""
    needs: frozenset[str] = frozenset().union(*(stream.needs for stream in spec.streams))
    source = path if isinstance(path, Source) else Source(path)
    sample = SampleReader(needs, spec.decode, spec.clip).read(source, lambda *_: None, with_sums=False)
    return sample.picture_problem or sample.sound_problem or ""
