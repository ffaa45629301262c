"""Standardisation of streams, fitted on the training rows of a run or fold alone, in float64.

`Scaling` is the fitted result. Its moments are computed in passes over blocks of rows, from memory or from a cache, and
outliers are left out of them. A stream may be projected to its principal components after that (`projection`).
"""

from emofuse.scaling.projection import (
    Projection,
    fit_projections,
    projection_arrays,
    saved_projection,
    shape_after,
)
from emofuse.scaling.standardise import LEAST_ROWS, LIMIT, Scaling, check_finite, with_projections
from emofuse.scaling.vectors import RowBlocks, blocks_of, feature_axis, vectors_of

__all__ = [
    "LEAST_ROWS",
    "LIMIT",
    "Projection",
    "RowBlocks",
    "Scaling",
    "blocks_of",
    "check_finite",
    "feature_axis",
    "fit_projections",
    "projection_arrays",
    "saved_projection",
    "shape_after",
    "vectors_of",
    "with_projections",
]
