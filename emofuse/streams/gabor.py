"""Responses of the face region to Gabor filters of five scales and eight orientations (Daugman, JOSA A 1985)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from emofuse.specs.streams import StreamSpecBase
from emofuse.streams.base import VECTOR, Rows, Sample
from emofuse.streams.regions import FLAGS, Region, WithoutFace, describe_squares, needs_of_region

SCALES, ORIENTATIONS = 5, 8
FILTERS = SCALES * ORIENTATIONS
LENGTH = 2 * FILTERS
WAVELENGTHS_PX = tuple(4 * 2 ** (scale / 2) for scale in range(SCALES))
REACH = 4
"""The half width of a filter in standard deviations of its Gaussian, rounded up to whole pixels."""

Complex = npt.NDArray[np.complex64]


class GaborSpec(StreamSpecBase):
    """Mean and standard deviation of the magnitude of 40 Gabor filters on the face region, 80 values.

    The region is that of `lbp`, grey, resized to `region_px` squared. A picture without a face gives the whole picture
    (`whole_image`, flagged in the cache) or a row without features (`no_detection`).
    """

    stored_shape: ClassVar[tuple[int, ...]] = (LENGTH,)

    kind: Literal["gabor"] = "gabor"
    region_px: int = Field(128, ge=8, le=1024)
    region: Region = "mesh"
    without_face: WithoutFace = "no_detection"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # other kinds need the same for all their specs
        """What the stream uses of a sample, as its region decides."""
        return needs_of_region(self.region)

    def make(self, device: str) -> GaborStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return GaborStream(region_px=self.region_px, region=self.region, without_face=self.without_face)


class GaborStream:
    """Magnitudes of 40 Gabor filters -> their means and standard deviations over the region, 80 values.

    A filter is a complex wave under a round Gaussian whose sum is 1. The wavelengths are 4, 5.7, 8, 11.3 and 16 pixels,
    the standard deviation of the Gaussian is one wavelength, and the crests of wave k are turned by k * 22.5 degrees
    from the vertical. The magnitude is that of the even and the odd response (phases 0 and 90 degrees): half the
    amplitude of a wave that fits the filter, with white as 1. The region is mirrored at its edges, without repeating
    the edge.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (LENGTH,)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    flag_names: tuple[str, ...] = FLAGS
    columns: tuple[str, ...] = tuple(
        f"{part}_scale{scale}_{180 * turn / ORIENTATIONS:g}deg"
        for part in ("mean", "std")
        for scale in range(SCALES)
        for turn in range(ORIENTATIONS)
    )

    def __init__(self, *, region_px: int, region: Region, without_face: WithoutFace) -> None:
        self.needs = needs_of_region(region)
        self._region_px = region_px
        self._region: Region = region
        self._without_face: WithoutFace = without_face

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the responses of n samples.

        Returns:
            features (n, 80) float32: the means of the 40 filters, scale by scale, then their standard deviations;
            status (n,) uint8; flags (n,) uint8, bit 0 `whole_image`. A sample without a face is either flagged, or
            zeros and NO_DETECTION.
        """
        return describe_squares(
            self, samples, self._region, self._without_face, side_px=self._region_px, describe=describe
        )

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def describe(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the means and standard deviations (80,) float32 of the magnitudes on a square grey picture."""
    magnitudes = np.concatenate([np.abs(responses(grey, scale)) for scale in range(SCALES)])
    features: npt.NDArray[np.float32] = np.empty(LENGTH, dtype=np.float32)
    features[:FILTERS], features[FILTERS:] = magnitudes.mean(axis=(1, 2)), magnitudes.std(axis=(1, 2))
    return features


def responses(grey: npt.NDArray[np.uint8], scale: int) -> Complex:
    """Return the responses (8, H, H) of a square grey picture (H, H) to the filters of one scale.

    A Gabor filter under a round Gaussian is the product of a filter along x and one along y. Each is a matrix that
    contains the mirrored edges, so that the responses are two products of matrices.
    """
    along_x, along_y = _matrices(len(grey), scale)
    picture = (grey.astype(np.float32) / 255).astype(np.complex64)
    filtered: Complex = along_y @ (picture @ along_x)
    return filtered


@lru_cache(maxsize=2 * SCALES)
def _matrices(side_px: int, scale: int) -> tuple[Complex, Complex]:
    """Return the filters of one scale along x, (8, H, H) applied from the right, and along y, applied from the left."""
    wavelength = WAVELENGTHS_PX[scale]
    reach = int(np.ceil(REACH * wavelength))
    offsets = np.arange(-reach, reach + 1)
    gauss = np.exp(-(offsets**2) / (2 * wavelength**2))
    gauss /= gauss.sum()
    turns = np.arange(ORIENTATIONS)[:, None] * np.pi / ORIENTATIONS
    waves = [np.exp(2j * np.pi / wavelength * part(turns) * offsets) * gauss for part in (np.cos, np.sin)]
    mirrored = np.pad(np.arange(side_px), reach, mode="reflect")
    along = np.zeros((2, ORIENTATIONS, side_px, side_px), dtype=np.complex128)
    for target in range(side_px):
        sources = mirrored[target : target + len(offsets)]
        for axis, wave in enumerate(waves):
            np.add.at(along[axis, :, target].T, sources, wave.T)
    x, y = along.astype(np.complex64)
    return np.ascontiguousarray(x.transpose(0, 2, 1)), y
