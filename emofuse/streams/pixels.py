"""The grey pixels of the aligned face, a map for networks that are trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from emofuse.specs.streams import StreamSpecBase
from emofuse.streams.base import Rows, Sample
from emofuse.streams.regions import describe_squares, needs_of_region


class PixelsSpec(StreamSpecBase):
    """The aligned face in grey, a map of 1 x `size_px` x `size_px` values from 0 (black) to 1 (white).

    With `region: image` it is the whole picture, squeezed to the square: for datasets whose pictures are faces already.
    """

    kind: Literal["pixels"] = "pixels"
    size_px: int = Field(48, ge=8, le=512)
    region: Literal["face", "image"] = "face"
    dtype: Literal["float16", "float32"] = "float16"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # other kinds need the same for all their specs
        """What the stream uses of a sample, as its region decides."""
        return needs_of_region(self.region)

    def make(self, device: str) -> PixelsStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return PixelsStream(size_px=self.size_px, region=self.region)


class PixelsStream:
    """The grey pixels of the aligned face -> a map (1, size_px, size_px) from 0 to 1.

    Grey has OpenCV's weights. The crop is resized by areas where it shrinks, and linearly where it grows.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    dimensions = ("channel", "y", "x")
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __init__(self, *, size_px: int, region: Literal["face", "image"]) -> None:
        self.needs = needs_of_region(region)
        self.shape = (1, size_px, size_px)
        self._region: Literal["face", "image"] = region

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the pixels of n samples.

        Returns:
            features (n, 1, size_px, size_px) float32; status (n,) uint8: NO_DETECTION without a face.
        """
        return describe_squares(self, samples, self._region, "no_detection", side_px=self.shape[1], describe=_as_shares)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _as_shares(square: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the grey values as a map (1, side, side) from 0 to 1."""
    shares: npt.NDArray[np.float32] = square.astype(np.float32) / 255
    return shares[None]
