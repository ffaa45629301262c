"""Local phase quantisation of the face region (Ojansivu & Heikkila, ICISP 2008)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from emofuse.specs.streams import StreamSpecBase
from emofuse.streams.base import VECTOR, Rows, Sample
from emofuse.streams.regions import FLAGS, Region, WithoutFace, describe_squares, needs_of_region

CODES = 256
WINDOW_PX = 7
CORRELATION = 0.9
"""The assumed correlation of two pixels at a distance of 1; at distance d it is 0.9 ** d."""

FLAT = 1e-6
"""A response, in grey levels from 0 to 255, must exceed this value to set its bit. The rounding of a flat patch, whose
response is 0, stays far below it, and the responses of patterns lie far above it."""


class LpqSpec(StreamSpecBase):
    """Local phase quantisation of the face region: a histogram of 256 codes.

    The region is that of `lbp`, grey, resized to `region_px` squared. A picture without a face gives the whole picture
    (`whole_image`, flagged in the cache) or a row without features (`no_detection`).
    """

    stored_shape: ClassVar[tuple[int, ...]] = (CODES,)

    kind: Literal["lpq"] = "lpq"
    region_px: int = Field(128, ge=8)
    region: Region = "mesh"
    without_face: WithoutFace = "no_detection"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # other kinds need the same for all their specs
        """What the stream uses of a sample, as its region decides."""
        return needs_of_region(self.region)

    def make(self, device: str) -> LpqStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return LpqStream(region_px=self.region_px, region=self.region, without_face=self.without_face)


class LpqStream:
    """Signs of local phases -> a normalised histogram of 256 codes per image.

    Each pixel has the Fourier coefficients of its 7 x 7 window at the four frequencies (a, 0), (0, a), (a, a) and
    (a, -a) with a = 1/7. Their real and imaginary parts are decorrelated, under the assumption that pixels correlate
    with 0.9 ** distance. Bit b of the code is set where the decorrelated value b is positive. A blur that is symmetric
    changes no sign. Border pixels without a whole window are dropped.

    The decorrelation is a singular value decomposition, whose vectors have arbitrary signs: here the first entry of
    each that is over half of its largest is positive. A value within `FLAT` of 0 sets no bit, so that a flat patch has
    the code 0.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (CODES,)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    flag_names: tuple[str, ...] = FLAGS
    columns: tuple[str, ...] = tuple(f"code_{code:03d}" for code in range(CODES))

    def __init__(self, *, region_px: int, region: Region, without_face: WithoutFace) -> None:
        self.needs = needs_of_region(region)
        self._region_px = region_px
        self._region: Region = region
        self._without_face: WithoutFace = without_face

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the histograms of n samples.

        Returns:
            features (n, 256) float32, each row summing to 1; status (n,) uint8; flags (n,) uint8, bit 0 `whole_image`.
            A sample without a face is either flagged, or zeros and NO_DETECTION.
        """
        return describe_squares(
            self, samples, self._region, self._without_face, side_px=self._region_px, describe=histogram
        )

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def histogram(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the share of each code, (256,) float32, of a grey picture of at least 7 x 7."""
    codes = lpq_codes(grey)
    return (np.bincount(codes.ravel(), minlength=CODES) / codes.size).astype(np.float32)


def lpq_codes(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the codes of the (H - 6, W - 6) pixels of a grey picture (H, W) that have a whole window."""
    constant, wave = _filters()
    picture = grey.astype(np.float64)
    down, right = (_filtered(picture, each, axis=0) for each in (constant, wave))
    coefficients = (
        _filtered(down, wave, axis=1),
        _filtered(right, constant, axis=1),
        _filtered(right, wave, axis=1),
        _filtered(right, wave.conj(), axis=1),
    )
    parts = np.stack([part for each in coefficients for part in (each.real, each.imag)])
    decorrelated = np.tensordot(_decorrelation(), parts, axes=1)
    bits = (decorrelated > FLAT).astype(np.uint8) << np.arange(8, dtype=np.uint8)[:, None, None]
    codes: npt.NDArray[np.uint8] = np.bitwise_or.reduce(bits, axis=0)
    return codes


def _filters() -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128]]:
    """Return the filters of frequency 0 and of frequency 1/7 over the window, (7,) each."""
    offsets = np.arange(WINDOW_PX) - WINDOW_PX // 2
    return np.ones(WINDOW_PX, dtype=np.complex128), np.exp(-2j * np.pi * offsets / WINDOW_PX)


def _filtered(
    values: npt.NDArray[Any], weights: npt.NDArray[np.complex128], *, axis: int
) -> npt.NDArray[np.complex128]:
    """Return the weighted sums of 7 neighbours along an axis of (H, W), for the positions that have all of them."""
    count = values.shape[axis] - WINDOW_PX + 1
    sums: npt.NDArray[np.complex128] = sum(
        weight * np.take(values, range(first, first + count), axis=axis) for first, weight in enumerate(weights)
    )
    return sums


@cache
def _decorrelation() -> npt.NDArray[np.float64]:
    """Return the matrix (8, 8) that decorrelates the real and imaginary parts of the four coefficients."""
    constant, wave = _filters()
    windows = (
        np.outer(constant, wave),
        np.outer(wave, constant),
        np.outer(wave, wave),
        np.outer(wave, wave.conj()),
    )
    parts = np.stack([part.ravel() for each in windows for part in (each.real, each.imag)])
    down, right = np.divmod(np.arange(WINDOW_PX**2), WINDOW_PX)
    distances = np.hypot(down[:, None] - down, right[:, None] - right)
    # Equal singular values have no unique vectors: the weights of the authors' code set them apart.
    apart = np.diag(1 + 1e-6 * np.arange(7, -1, -1))
    covariance = apart @ parts @ CORRELATION**distances @ parts.T @ apart
    vectors = np.linalg.svd(covariance)[2].T
    sizes = np.abs(vectors)
    first_large = (sizes > sizes.max(axis=0) / 2).argmax(axis=0)  # the largest of all is not unique
    signs: npt.NDArray[np.float64] = np.sign(vectors[first_large, np.arange(8)])
    fixed: npt.NDArray[np.float64] = (vectors * signs).T
    return fixed
