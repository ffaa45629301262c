"""Local binary patterns of the face region (Ojala, Pietikainen & Maenpaa, TPAMI 2002), the paper's low-level stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from emofuse.specs.streams import StreamSpecBase, Value, Variant
from emofuse.streams.base import VECTOR, Rows, Sample
from emofuse.streams.regions import FLAGS, Region, WithoutFace, describe_squares, needs_of_region

RADII = (1, 2)
CODES = 256
LENGTH = len(RADII) * CODES
BINS = (CODES // 2, CODES, LENGTH)  # the numbers of bins that heads can see

# Rows and columns of the eight neighbours, clockwise from the top left; neighbour k has weight 2**k.
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


class LbpSpec(StreamSpecBase):
    """Local binary patterns of the face region: 256 bins at radius 1 and 256 at radius 2, 512 stored.

    Heads see all 512 bins, the 256 of radius 1, or 128 of radius 1 with codes merged in pairs (code >> 1).

    The region is resized to `region_px` squared. It is the square box around the landmarks (`mesh`), the aligned face
    (`face`), or the whole picture (`image`). A picture without a face gives the whole picture (`whole_image`, flagged
    in the cache) or a row without features (`no_detection`).
    """

    added: ClassVar[frozenset[str]] = frozenset({"region"})
    stored_shape: ClassVar[tuple[int, ...]] = (LENGTH,)
    variants: ClassVar[tuple[Variant, ...]] = (Variant("bins", BINS, CODES, place_in_every_run=0),)

    kind: Literal["lbp"] = "lbp"
    region_px: int = Field(128, ge=8)
    region: Region = "mesh"
    without_face: WithoutFace = "no_detection"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # other kinds need the same for all their specs
        """What the stream uses of a sample, as its region decides."""
        return needs_of_region(self.region)

    def make(self, device: str) -> LbpStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return LbpStream(region_px=self.region_px, region=self.region, without_face=self.without_face)

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

    The region (see `emofuse.streams.regions`) is grey with OpenCV's weights and resized to a fixed size, so that a
    pattern covers the same part of every face. Without a face, `without_face` decides: the whole picture, squeezed to
    the same square and flagged, or a row without features.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (LENGTH,)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    flag_names: tuple[str, ...] = FLAGS
    columns: tuple[str, ...] = tuple(f"r{radius}_{code:03d}" for radius in RADII for code in range(CODES))

    def __init__(self, *, region_px: int, without_face: WithoutFace, region: Region = "mesh") -> None:
        self.needs = needs_of_region(region)
        self._region_px = region_px
        self._region: Region = region
        self._without_face: WithoutFace = without_face

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the histograms of n samples.

        Returns:
            features (n, 512) float32, codes of radius 1, then of radius 2, each half summing to 1; status (n,) uint8;
            flags (n,) uint8, bit 0 `whole_image`. A sample without a face is either flagged, or zeros and
            NO_DETECTION.
        """
        return describe_squares(
            self, samples, self._region, self._without_face, side_px=self._region_px, describe=histograms
        )

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


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
