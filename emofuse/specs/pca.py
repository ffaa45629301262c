"""The principal components that heads see of a stream, as a spec writes them (see `emofuse.scaling.projection`)."""

from __future__ import annotations

from typing import Any

PCA = "pca"
"""The key of a stream's principal components among its variants; every kind of stream can have it."""


def pca_problem(value: Any) -> str | None:
    """Return what is wrong with the principal components of a stream; None for an allowed value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a share of the variance such as 0.95, or a number of components, got {value!r}"
    if isinstance(value, int):
        return None if value >= 1 else f"must be at least 1 component, got {value}"
    return None if 0 < value < 1 else f"a share of the variance is above 0 and below 1, got {value:g}"
