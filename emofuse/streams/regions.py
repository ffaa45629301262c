"""The part of a picture that a texture sees: the square around the mesh, the aligned face, or the whole picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from emofuse.status import Status
from emofuse.streams.base import NEEDS_CROP, NEEDS_FACE, NEEDS_IMAGE, Face, Rows, Sample, SampleBatch, Stream

Region = Literal["mesh", "face", "image"]
WithoutFace = Literal["whole_image", "no_detection"]

FLAGS = ("whole_image",)
"""The flags of streams that describe a region."""

MARGIN = 0.1
"""The margin of the square around the mesh on each side, as a fraction of the longer side of the mesh's box."""


def needs_of_region(region: Region) -> frozenset[str]:
    """Return what a stream of this region uses of a sample."""
    return {"mesh": NEEDS_FACE, "face": NEEDS_CROP, "image": NEEDS_IMAGE}[region]


def describe_regions(
    stream: Stream,
    samples: Sequence[Sample],
    region: Region,
    without_face: WithoutFace,
    describe: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.floating[Any]]],
) -> Rows:
    """Return the rows of a stream that describes one region (H, W, 3) of every sample.

    A sample without a face is described whole and flagged (bit 0 `whole_image`), or it is a row of zeros with
    NO_DETECTION. With the region `image` no row is flagged.
    """
    return _describe_each(stream, samples, region, without_face, lambda _, picture: describe(picture))


def describe_squares(
    stream: Stream,
    samples: Sequence[Sample],
    region: Region,
    without_face: WithoutFace,
    *,
    side_px: int,
    describe: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.floating[Any]]],
) -> Rows:
    """Return the rows of a stream that describes the grey square (side_px, side_px) of one region of every sample.

    Streams of the same region and side share the squares of a batch. Without a face it is as in `describe_regions`.
    """
    squares: dict[int, npt.NDArray[np.uint8]] = SampleBatch.of(samples).once(("grey squares", region, side_px), dict)

    def describe_square(index: int, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating[Any]]:
        if index not in squares:
            squares[index] = square_grey(picture, side_px)
            squares[index].flags.writeable = False  # several streams see it
        return describe(squares[index])

    return _describe_each(stream, samples, region, without_face, describe_square)


def _describe_each(
    stream: Stream,
    samples: Sequence[Sample],
    region: Region,
    without_face: WithoutFace,
    describe: Callable[[int, npt.NDArray[np.uint8]], npt.NDArray[np.floating[Any]]],
) -> Rows:
    """Return the rows of a stream whose features `describe` computes from a sample's index and its region (H, W, 3)."""
    rows = Rows.empty_of(stream, len(samples), Status.OK)
    for index, sample in enumerate(samples):
        cut = cut_region(sample, region)
        if cut is None and without_face == "no_detection":
            rows.status[index] = Status.NO_DETECTION
            continue
        rows.flags[index] = cut is None
        rows.features[index] = describe(index, sample.image if cut is None else cut)
    return rows


def cut_region(sample: Sample, region: Region) -> npt.NDArray[np.uint8] | None:
    """Return the region of a sample, (H, W, 3) uint8; None where no face was found and the region needs one."""
    match region:
        case "image":
            return sample.image
        case "face":
            return sample.crop
        case "mesh":
            return None if sample.face is None else face_region(sample.image, sample.face)


def face_region(image: npt.NDArray[np.uint8], face: Face) -> npt.NDArray[np.uint8]:
    """Return the square part of an (H, W, 3) picture around the mesh.

    Its side is the longer side of the mesh's box plus `MARGIN` on each side, at most the picture's shorter side. A
    square that would cross the edge is shifted into the picture.
    """
    height, width = image.shape[:2]
    low, high = face.mesh[:, :2].min(axis=0), face.mesh[:, :2].max(axis=0)
    with_margin = float(np.max(high - low)) * (1 + 2 * MARGIN)
    side = int(np.clip(round(with_margin), 1, min(height, width)))
    left, top = np.rint((low + high) / 2 - side / 2)
    left, top = int(np.clip(left, 0, width - side)), int(np.clip(top, 0, height - side))
    return image[top : top + side, left : left + side]


def square_grey(region: npt.NDArray[np.uint8], side_px: int) -> npt.NDArray[np.uint8]:
    """Convert an (H, W, 3) RGB region to grey, (side_px, side_px).

    Pixels are averaged over areas where both sides shrink, and interpolated linearly otherwise.
    """
    import cv2

    grey = cv2.cvtColor(region, cv2.COLOR_RGB2GRAY)
    method = cv2.INTER_AREA if min(grey.shape) >= side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (side_px, side_px), interpolation=method), dtype=np.uint8)
