"""Histograms of oriented gradients of the face region (Dalal & Triggs, CVPR 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from emofuse.specs.streams import StreamSpecBase
from emofuse.streams.base import VECTOR, Rows, Sample
from emofuse.streams.regions import FLAGS, Region, WithoutFace, describe_regions, needs_of_region

WIDTH_PX, HEIGHT_PX = 64, 128
CELL_PX, BLOCK_CELLS, BINS = 8, 2, 9
LENGTH = (WIDTH_PX // CELL_PX - 1) * (HEIGHT_PX // CELL_PX - 1) * BLOCK_CELLS**2 * BINS


class HogSpec(StreamSpecBase):
    """Histograms of oriented gradients of the face region, 3780 values: OpenCV's default descriptor.

    The region is that of `lbp`, grey, resized to 64 x 128 pixels (width x height). A picture without a face gives the
    whole picture (`whole_image`, flagged in the cache) or a row without features (`no_detection`).
    """

    added: ClassVar[frozenset[str]] = frozenset({"region"})
    stored_shape: ClassVar[tuple[int, ...]] = (LENGTH,)

    kind: Literal["hog"] = "hog"
    region: Region = "mesh"
    without_face: WithoutFace = "no_detection"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # other kinds need the same for all their specs
        """What the stream uses of a sample, as its region decides."""
        return needs_of_region(self.region)

    def make(self, device: str) -> HogStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return HogStream(region=self.region, without_face=self.without_face)


class HogStream:
    """Histograms of oriented gradients -> 3780 values per image.

    Cells have 8 x 8 pixels and nine unsigned orientations. Blocks have 2 x 2 cells, overlap by one cell and are
    normalised by L2-Hys. Blocks are ordered column by column of the window, as in OpenCV.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (LENGTH,)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    flag_names: tuple[str, ...] = FLAGS
    columns: tuple[str, ...] = ()

    def __init__(self, *, without_face: WithoutFace, region: Region = "mesh") -> None:
        self.needs = needs_of_region(region)
        self._region: Region = region
        self._without_face: WithoutFace = without_face

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the descriptors of n samples.

        Returns:
            features (n, 3780) float32, from 0 to 1; status (n,) uint8; flags (n,) uint8, bit 0 `whole_image`. A sample
            without a face is either flagged, or zeros and NO_DETECTION.
        """
        return describe_regions(self, samples, self._region, self._without_face, describe)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def describe(region: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the descriptor (3780,) float32 of an (H, W, 3) RGB region."""
    import cv2

    grey = cv2.cvtColor(region, cv2.COLOR_RGB2GRAY)
    method = cv2.INTER_AREA if grey.shape[0] >= HEIGHT_PX and grey.shape[1] >= WIDTH_PX else cv2.INTER_LINEAR
    window = cv2.resize(grey, (WIDTH_PX, HEIGHT_PX), interpolation=method)
    return np.asarray(cv2.HOGDescriptor().compute(window), dtype=np.float32).ravel()
