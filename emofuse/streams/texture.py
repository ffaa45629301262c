"""Local binary patterns of the face region (Ojala, Pietikainen & Maenpaa, TPAMI 2002), the paper's low-level stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from emofuse.specs.streams import StreamSpecBase, Value, Variant
from emofuse.status import Status
from emofuse.streams.base import NEEDS_FACE, VECTOR, Face, Rows, Sample

MARGIN = 0.1
"""The margin of the face region on each side of the mesh, as a fraction of the longer side of the mesh's box."""

RADII = (1, 2)
CODES = 256
LENGTH = len(RADII) * CODES
BINS = (CODES // 2, CODES, LENGTH)  # the numbers of bins that heads can see

# Rows and columns of the eight neighbours, clockwise from the top left; neighbour k has weight 2**k.
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


class LbpSpec(StreamSpecBase):
    """Local binary patterns of the face region: 256 bins at radius 1 and 256 at radius 2, 512 stored.

    Heads see all 512 bins, the 256 of radius 1, or 128 of radius 1 with codes merged in pairs (code >> 1).

    The face region is the square box around the landmarks, resized to `region_px`. A picture without a face gives the
    whole image (`whole_image`, flagged in the cache) or a row without features (`no_detection`).
    """

    needs: ClassVar[frozenset[str]] = NEEDS_FACE
    stored_shape: ClassVar[tuple[int, ...]] = (LENGTH,)
    variants: ClassVar[tuple[Variant, ...]] = (Variant("bins", BINS, CODES, place_in_every_run=0),)

    kind: Literal["lbp"] = "lbp"
    region_px: int = Field(128, ge=8)
    without_face: Literal["whole_image", "no_detection"] = "no_detection"

    def make(self, device: str) -> LbpStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return LbpStream(region_px=self.region_px, without_face=self.without_face)

    @classmethod
    def derive(cls, stored: npt.NDArray[Any], choice: Mapping[str, Value]) -> npt.NDArray[np.floating[Any]]:
        """Return histograms (n, bins) of the stored ones (n, 512)."""
        bins = int(choice["bins"])
        if bins < CODES:
            merged: npt.NDArray[np.float32] = stored[:, 0:CODES:2].astype(np.float32)
            merged += stored[:, 1:CODES:2]
            return merged
        return stored[:, :bins]


class LbpStream:
    """Local binary patterns of the face region -> two normalised histograms per image.

    Each of eight neighbours, clockwise from the top left (weight 1), sets one bit where it is >= the centre. Positions
    are integers: radius 1 is the 3x3 neighbourhood of the paper, radius 2 the pixels at distance 2 in each direction
    (corners two rows and two columns away). Border pixels without all eight neighbours are dropped.

    The region is the square around the mesh (see `face_region`), grey with OpenCV's weights, resized to a fixed size,
    so that a pattern covers the same part of every face. Without a face, `without_face` decides: the whole picture,
    squeezed to the same square and flagged, or a row without features.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (LENGTH,)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs = NEEDS_FACE
    flag_names: tuple[str, ...] = ("whole_image",)
    columns: tuple[str, ...] = tuple(f"r{radius}_{code:03d}" for radius in RADII for code in range(CODES))

    def __init__(self, *, region_px: int, without_face: Literal["whole_image", "no_detection"]) -> None:
        self._region_px = region_px
        self._without_face = without_face

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the histograms of n samples.

        Returns:
            features (n, 512) float32, codes of radius 1, then of radius 2, each half summing to 1; status (n,) uint8;
            flags (n,) uint8, bit 0 `whole_image`. A sample without a face is either flagged, or zeros and
            NO_DETECTION.
        """
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.OK)
        for index, sample in enumerate(samples):
            if sample.face is None and self._without_face == "no_detection":
                rows.status[index] = Status.NO_DETECTION
                continue
            rows.flags[index] = sample.face is None
            region = sample.image if sample.face is None else face_region(sample.image, sample.face)
            rows.features[index] = histograms(square_grey(region, self._region_px))
        return rows

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def face_region(image: npt.NDArray[np.uint8], face: Face) -> npt.NDArray[np.uint8]:
    """Return the square part of an (H, W, 3) picture around the mesh.

    Its side is the longer side of the mesh's box plus `MARGIN` on each side, at most the picture's shorter side. A
    square that would cross the edge is shifted into the picture.
    """
    height, width = image.shape[:2]
    low, high = face.points[:, :2].min(axis=0), face.points[:, :2].max(axis=0)
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


def lbp_codes(grey: npt.NDArray[np.uint8], radius: int) -> npt.NDArray[np.uint8]:
    """Return the LBP codes of the (H - 2 radius, W - 2 radius) pixels of a grey picture that have eight neighbours."""
    height, width = grey.shape
    centre = grey[radius : height - radius, radius : width - radius]
    codes = np.zeros(centre.shape, dtype=np.uint8)
    for bit, (down, right) in enumerate(_NEIGHBOURS):
        top, left = radius * (1 + down), radius * (1 + right)
        neighbour = grey[top : top + centre.shape[0], left : left + centre.shape[1]]
        codes |= (neighbour >= centre).view(np.uint8) << np.uint8(bit)
    return codes


def histograms(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the share of each code at radius 1, then at radius 2, (512,) float32, of a picture of at least 5 x 5."""
    shares = np.empty((len(RADII), CODES), dtype=np.float32)
    for half, radius in enumerate(RADII):
        codes = lbp_codes(grey, radius)
        shares[half] = np.bincount(codes.ravel(), minlength=CODES) / codes.size
    return shares.ravel()
