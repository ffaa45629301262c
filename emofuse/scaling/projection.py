"""Principal components of a standardised stream, fitted on the training rows of a run or fold alone, in float64.

`features: {streams: {resnet50: {pca: 0.95}}}` keeps as many components as hold this share of the variance, and
`pca: 64` keeps 64. A component is a direction of the standardised features, so that the unit of a column has no
influence. The components are not whitened: they keep their variances. Of a sequence every step is projected, of a map
every position (its channels).

The fit is that of scikit-learn's `PCA` on the standardised training rows that have the stream: the same components in
the same order, each with the sign that makes its largest coefficient positive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.errors import TrainingError

Floats = npt.NDArray[np.float64]
Part = tuple[int, Floats]
"""The index of a set of rows, and the standardised vectors (n, D) of some of its rows."""
MOST_BYTES = 4 << 30
"""The largest matrix that a fit may hold: D x D for D features, or n x D for fewer rows than features."""
_LEAST_VARIANCE = 1e-12
"""A component with less than this part of the largest variance holds rounding alone, and is left at zero."""


@dataclass(frozen=True)
class Projection:
    """The components of one stream.

    Attributes:
        components: the k components, each a direction of the standardised features, (k, D) float32.
        offset: the projection of the mean of the training rows, which is subtracted, (k,) float32.
        variances: the share of the variance that each component holds, (k,) float32.
    """

    components: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]
    variances: npt.NDArray[np.float32]

    @property
    def width(self) -> int:
        """The number k of components."""
        return len(self.components)

    @classmethod
    def empty(cls, dim: int, width: int) -> Self:
        """Return the projection of a stream that no row has: all components are zero."""
        return cls(np.zeros((width, dim), np.float32), np.zeros(width, np.float32), np.zeros(width, np.float32))

    def apply(self, standardised: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
        """Return rows (n, *shape) projected along an axis of `shape`, counted from the end."""
        vectors = np.moveaxis(standardised, axis, -1)
        projected = vectors @ self.components.T.astype(vectors.dtype) - self.offset
        return np.ascontiguousarray(np.moveaxis(projected, -1, axis), dtype=np.float32)


def shape_after(shape: tuple[int, ...], axis: int, width: int) -> tuple[int, ...]:
    """Return the shape of a row after its projection along an axis, counted from the end."""
    place = len(shape) + axis
    return (*shape[:place], width, *shape[place + 1 :])


def fit_projections(
    stream: str, passes: Callable[[], Iterator[Part]], counts: Sequence[int], dim: int, wanted: float
) -> list[Projection]:
    """Fit the components of several sets of rows in one pass over their vectors.

    The memory is that of one matrix for each set: D x D, or n x D for a set of n < D vectors.

    Args:
        stream: the name of the stream, for messages.
        passes: starts a pass: it yields parts of all sets, in any order of the sets. Vectors are standardised.
        counts: the number n of vectors of each set.
        dim: the number D of features.
        wanted: the share of the variance, below 1, or the number of components.

    Raises:
        TrainingError: a set with fewer vectors than components, or features too wide for the memory.
    """
    few = [count for count in counts if isinstance(wanted, int) and 0 < count < wanted]
    if few:
        raise TrainingError(
            f"stream {stream!r}: pca: {wanted} components need at least as many training rows, and a fold has "
            f"{min(few)}. Ask for fewer, or for a share of the variance such as 0.95"
        )
    largest = max((min(count, dim) for count in counts), default=0) * dim * 8
    if largest > MOST_BYTES:
        raise TrainingError(
            f"stream {stream!r}: pca of {dim} features needs a matrix of {largest / 1e9:.3g} GB for each fold, and may "
            f"hold {MOST_BYTES / 1e9:.3g} GB. Leave pca out of this stream"
        )
    sums = [np.zeros(dim) for _ in counts]
    moments = [np.zeros((dim, dim)) if count > dim else np.zeros((0, 0)) for count in counts]
    rows: list[list[Floats]] = [[] for _ in counts]
    for place, vectors in passes():
        sums[place] += vectors.sum(axis=0)
        if counts[place] > dim:
            moments[place] += vectors.T @ vectors
        else:
            rows[place].append(vectors)
    fitted = []
    for place, count in enumerate(counts):
        if count == 0:
            fitted.append(Projection.empty(dim, wanted if isinstance(wanted, int) else 1))
            continue
        mean = sums[place] / count
        if count > dim:
            variances, directions = _of_covariance(moments[place] / count - np.outer(mean, mean))
        else:
            variances, directions = _of_rows(np.concatenate(rows[place]) - mean)
        fitted.append(_chosen(variances, directions, mean, wanted))
    return fitted


def _of_covariance(covariance: Floats) -> tuple[Floats, Floats]:
    """Return the variances (D,), the largest first, and the directions (D, D) as rows."""
    variances, directions = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.maximum(variances[::-1], 0), directions[:, ::-1].T


def _of_rows(centered: Floats) -> tuple[Floats, Floats]:
    """Return the variances (n,), the largest first, and the directions (n, D) as rows, of fewer rows than features."""
    _, lengths, directions = np.linalg.svd(centered, full_matrices=False)
    return np.square(lengths) / len(centered), directions


def _chosen(variances: Floats, directions: Floats, mean: Floats, wanted: float) -> Projection:
    """Return the components that are kept, each with its largest coefficient positive."""
    total = variances.sum()
    shares = variances / total if total > 0 else np.zeros_like(variances)
    if isinstance(wanted, int):
        width = wanted
    elif total == 0:
        width = 1
    else:  # as scikit-learn counts: the first number of components whose share is above the wanted one
        width = min(int(np.searchsorted(np.cumsum(shares), wanted, side="right")) + 1, len(shares))
    kept, of_kept = directions[:width], shares[:width]
    signs = np.sign(kept[np.arange(width), np.abs(kept).argmax(axis=1)])
    kept = np.where((variances[:width] > _LEAST_VARIANCE * max(total, 1e-300))[:, None], kept * signs[:, None], 0.0)
    return Projection(kept.astype(np.float32), (kept @ mean).astype(np.float32), of_kept.astype(np.float32))


def saved_projection(arrays: Any, name: str) -> Projection | None:
    """Return the projection that was saved under a name; None if there was none."""
    if f"{name}.components" not in arrays:
        return None
    return Projection(arrays[f"{name}.components"], arrays[f"{name}.offset"], arrays[f"{name}.variances"])


def projection_arrays(projection: Projection | None, name: str) -> dict[str, npt.NDArray[np.float32]]:
    """Return the arrays of a projection by the names under which they are saved."""
    return {} if projection is None else {f"{name}.{key}": array for key, array in vars(projection).items()}
