"""Histograms of oriented gradients of the face region (Dalal & Triggs, CVPR 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from emofuse.specs.streams import StreamSpecBase
from emofuse.status import Status
from emofuse.streams.base import NEEDS_FACE, VECTOR, Rows, Sample
from emofuse.streams.texture import face_region

WIDTH_PX, HEIGHT_PX = 64, 128
CELL_PX, BLOCK_CELLS, BINS = 8, 2, 9
LENGTH = (WIDTH_PX // CELL_PX - 1) * (HEIGHT_PX // CELL_PX - 1) * BLOCK_CELLS**2 * BINS


class HogSpec(StreamSpecBase):
    """Histograms of oriented gradients of the face region, 3780 values: OpenCV's default descriptor.

    The face region is that of `lbp`, grey, resized to 64 x 128 pixels (width x height). A picture without a face gives
    the whole image (`whole_image`, flagged in the cache) or a row without features (`no_detection`).
    """

    needs: ClassVar[frozenset[str]] = NEEDS_FACE
    stored_shape: ClassVar[tuple[int, ...]] = (LENGTH,)

    kind: Literal["hog"] = "hog"
    without_face: Literal["whole_image", "no_detection"] = "no_detection"

    def make(self, device: str) -> HogStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return HogStream(without_face=self.without_face)


class HogStream:
    """Histograms of oriented gradients -> 3780 values per image.

    Cells have 8 x 8 pixels and nine unsigned orientations. Blocks have 2 x 2 cells, overlap by one cell and are
    normalised by L2-Hys. Blocks are ordered column by column of the window, as in OpenCV.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (LENGTH,)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs = NEEDS_FACE
    flag_names: tuple[str, ...] = ("whole_image",)
    columns: tuple[str, ...] = ()

    def __init__(self, *, without_face: Literal["whole_image", "no_detection"]) -> None:
        self._without_face = without_face

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the descriptors of n samples.

        Returns:
            features (n, 3780) float32, from 0 to 1; status (n,) uint8; flags (n,) uint8, bit 0 `whole_image`. A sample
            without a face is either flagged, or zeros and NO_DETECTION.
        """
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.OK)
        for index, sample in enumerate(samples):
            if sample.face is None and self._without_face == "no_detection":
                rows.status[index] = Status.NO_DETECTION
                continue
            rows.flags[index] = sample.face is None
            region = sample.image if sample.face is None else face_region(sample.image, sample.face)
            rows.features[index] = describe(region)
        return rows

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def describe(region: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the descriptor (3780,) float32 of an (H, W, 3) RGB region."""
    import cv2

    grey = cv2.cvtColor(region, cv2.COLOR_RGB2GRAY)
    method = cv2.INTER_AREA if grey.shape[0] >= HEIGHT_PX and grey.shape[1] >= WIDTH_PX else cv2.INTER_LINEAR
    window = cv2.resize(grey, (WIDTH_PX, HEIGHT_PX), interpolation=method)
    return np.asarray(cv2.HOGDescriptor().compute(window), dtype=np.float32).ravel()
