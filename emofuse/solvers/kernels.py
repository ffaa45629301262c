"""Kernels of one stream, and of several streams as their weighted sum.

A stream's kernel compares two rows by that stream alone. `linear` is x.z / D and `cosine` is the cosine of the angle.
`rbf` is exp(-gamma |x - z|^2) with gamma = factor / (2 median^2), where the median is that of the distances between
training rows (the median heuristic). A row without the stream has kernel 0 with every row: its other streams decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KernelKind = Literal["linear", "rbf", "cosine"]
MEDIAN_ROWS = 1000
"""The number of training rows, evenly spaced, over which the median distance is taken."""


@dataclass(frozen=True)
class Kernel:
    """The kernel of one stream.

    Attributes:
        kind: the formula: `linear`, `rbf` or `cosine`.
        gamma: the coefficient of `rbf`, per squared unit of the standardised features.
        scale: the factor of all values: 1 over the mean kernel of training rows with themselves for `linear`, else 1.
    """

    kind: KernelKind
    gamma: float
    scale: float

    @classmethod
    def fit(cls, kind: KernelKind, rows: Tensor, *, factor: float = 1.0) -> Kernel:
        """Fit the kernel of a stream to its training rows (n, D). A stream without any row has kernel 0."""
        if not len(rows):
            return cls(kind, 1.0, 0.0)
        gamma = factor / (2 * _median_squared_distance(rows)) if kind == "rbf" else 1.0
        if kind == "linear":
            mean = float(rows.square().sum(dim=1).mean()) / max(1, rows.shape[1])
            return cls(kind, gamma, 1 / mean if mean > 0 else 0.0)
        return cls(kind, gamma, 1.0)

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the kernel values (n, m) of rows (n, D) and (m, D)."""
        if self.kind == "rbf":
            values = _squared_distances(left, right).mul_(-self.gamma).exp_()
        elif self.kind == "cosine":
            values = _unit(left) @ _unit(right).T
        else:
            values = (left @ right.T).div_(max(1, left.shape[1]))
        return values if self.scale == 1.0 else values.mul_(self.scale)


@dataclass(frozen=True)
class StreamRows:
    """Rows of one stream.

    Attributes:
        features: the standardised features (n, D), zeros in rows that are not valid.
        valid: whether each row has the stream, bool (n,).
    """

    features: Tensor
    valid: Tensor

    def pick(self, rows: Tensor) -> StreamRows:
        """Return the chosen rows, int64 (m,)."""
        return StreamRows(self.features[rows], self.valid[rows])


def stream_kernel(kernel: Kernel, left: StreamRows, right: StreamRows) -> Tensor:
    """Return the kernel values (n, m) of one stream, 0 where either row lacks it."""
    values = kernel.between(left.features, right.features)
    for valid in (left.valid.unsqueeze(1), right.valid):
        if not bool(valid.all()):
            # In place, unless an analysis asks for the derivative of the values.
            values = values * valid.to(values.dtype) if values.requires_grad else values.mul_(valid.to(values.dtype))
    return values


def weighted_sum(parts: Mapping[str, Tensor], streams: Sequence[str]) -> Tensor:
    """Return the mean (n, m) of the kernels of these streams, summed in the order of their names."""
    ordered = sorted(streams)
    total = parts[ordered[0]].clone()
    for name in ordered[1:]:
        total += parts[name]
    return total.div_(len(ordered))


def _median_squared_distance(rows: Tensor) -> float:
    """Return the median squared distance between different rows, or 1 if all rows are equal."""
    count = min(len(rows), MEDIAN_ROWS)
    some = rows[torch.linspace(0, len(rows) - 1, count, device=rows.device).round().long()]
    upper = torch.triu_indices(count, count, offset=1, device=rows.device)
    distances = _squared_distances(some, some)[upper[0], upper[1]]
    if not len(distances):
        return 1.0
    median = float(distances.median())
    return median if median > 0 else 1.0


def _squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Return the squared Euclidean distances (n, m), none below 0."""
    product = left @ right.T
    sizes = left.square().sum(dim=1, keepdim=True) + right.square().sum(dim=1)
    return product.mul_(-2).add_(sizes).clamp_(min=0)


def _unit(rows: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    unit: Tensor = rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny)
    return unit
