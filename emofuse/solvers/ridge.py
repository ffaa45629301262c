"""Ridge regression with every penalty and its exact leave-one-out predictions from one eigendecomposition.

With centred targets Y and a centred kernel matrix K = Q diag(s) Q^T, the fit at penalty a is the linear smoother
H = 1/n + Q diag(s / (s + a)) Q^T. If row i is left out, its fitted value moves by the residual times h_ii / (1 - h_ii).
This is exact for every least-squares problem with a quadratic penalty (Allen's PRESS, Technometrics 1974).

With weights of rows, means are weighted, and rows and columns of K and the targets are multiplied by the roots of the
weights; 1/n becomes the outer product of the roots of their shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """A centred training problem in the eigenbasis of its kernel.

    Attributes:
        vectors: the eigenvectors (n, r), orthonormal columns.
        values: the eigenvalues (r,), each above 0.
        means: the row means (n,) of the kernel matrix before it was centred; empty after `from_features`.
        center: the mean (m,) of the features; empty after `from_kernel`.
        rotation: the rotation (m, r) with features = vectors sqrt(values) rotation^T; empty after `from_kernel`.
        weights: the weights of the rows, (n,), each above 0; None for equal ones.
    """

    vectors: Tensor
    values: Tensor
    means: Tensor
    center: Tensor
    rotation: Tensor
    weights: Tensor | None = None

    @classmethod
    def from_kernel(cls, kernel: Tensor, weights: Tensor | None = None) -> Spectrum:
        """Decompose a symmetric kernel matrix (n, n), which is overwritten, of rows with these weights (n,)."""
        means = kernel.mean(dim=1) if weights is None else kernel @ (weights / weights.sum())
        kernel -= means
        kernel -= means.unsqueeze(1)
        kernel += means.mean() if weights is None else means @ (weights / weights.sum())
        if weights is not None:
            kernel *= weights.sqrt()
            kernel *= weights.sqrt().unsqueeze(1)
        values, vectors = torch.linalg.eigh(kernel)
        kept = _above_rounding(values, len(kernel))
        empty = kernel.new_empty(0)
        return cls(vectors[:, kept].contiguous(), values[kept], means, empty, empty, weights)

    @classmethod
    def from_features(cls, features: Tensor, weights: Tensor | None = None) -> Spectrum:
        """Decompose the kernel features features^T of explicit features (n, m), m small, of rows with weights (n,)."""
        center = features.mean(dim=0) if weights is None else (weights / weights.sum()) @ features
        centred = features - center
        if weights is not None:
            centred = centred * weights.sqrt().unsqueeze(1)
        values, rotation = torch.linalg.eigh(centred.T @ centred)
        kept = _above_rounding(values, len(features))
        values, rotation = values[kept], rotation[:, kept].contiguous()
        return cls(centred @ (rotation / values.sqrt()), values, features.new_empty(0), center, rotation, weights)

    def leave_one_out(self, targets: Tensor, penalties: Sequence[float], groups: Tensor | None = None) -> Tensor:
        """Return the exact predictions (L, n, C) for each row by the fits to all other rows, at each of L penalties.

        Args:
            targets: (n, C).
            penalties: the L penalties.
            groups: (n,) int64; all rows of a group are left out together. -1 is a row that is a group of its own.
        """
        strengths = torch.tensor(penalties, dtype=self.values.dtype, device=self.values.device)
        shrunk = self.values.unsqueeze(1) / (self.values.unsqueeze(1) + strengths)  # (r, L)
        center, inside = self._inside(targets)
        both = (shrunk.unsqueeze(2) * inside.unsqueeze(1)).flatten(1)  # (r, L C)
        apart_from_center = (self.vectors @ both).view(len(targets), len(penalties), -1).transpose(0, 1)
        share: Tensor | float = 1 / len(targets)
        roots = None
        if self.weights is not None:
            roots, share = self.weights.sqrt().unsqueeze(1), (self.weights / self.weights.sum()).unsqueeze(1)
            apart_from_center = apart_from_center / roots
        fitted = center + apart_from_center
        leverage = (share + self.vectors.square() @ shrunk).clamp(max=1 - 1e-9)  # (n, L)
        left_out = targets - (targets - fitted) / (1 - leverage).T.unsqueeze(2)
        for rows in _places_of_groups(groups):
            vectors = self.vectors[rows]
            of_mean = share if isinstance(share, float) else share[rows].sqrt() @ share[rows].sqrt().T
            hat = of_mean + torch.einsum("gr,rl,hr->lgh", vectors, shrunk, vectors)
            apart = (1 + 1e-12) * torch.eye(len(rows), dtype=hat.dtype, device=hat.device) - hat
            scale: Tensor | float = 1.0 if roots is None else roots[rows]
            residual = torch.linalg.solve(apart, scale * (targets[rows] - fitted[:, rows])) / scale
            left_out[:, rows] = targets[rows] - residual
        return left_out

    def coefficients(self, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """Return the coefficients of the fit and its intercept b (C,).

        The coefficients are a (n, C) for a kernel and w (m, C) for features. The prediction for a new row is k a + b
        with its kernel k (n,) to the training rows, or x w + b.
        """
        center, inside = self._inside(targets)
        if len(self.rotation):
            weights = self.rotation @ (inside * (self.values.sqrt() / (self.values + penalty)).unsqueeze(1))
            return weights, center - self.center @ weights
        duals = self.vectors @ (inside / (self.values + penalty).unsqueeze(1))
        if self.weights is not None:
            duals = duals * self.weights.sqrt().unsqueeze(1)
        # A centred problem has duals that sum to 0. Vectors of the smallest values have a part along the null vector by
        # rounding; a weak penalty makes it so large that predictions would be far off.
        share = 1 / len(duals) if self.weights is None else (self.weights / self.weights.sum()).unsqueeze(1)
        duals = duals - share * duals.sum(dim=0)
        return duals, center - self.means @ duals

    def _inside(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean (C,) of the targets and what is left of them in the eigenbasis (r, C)."""
        if self.weights is None:
            center = targets.mean(dim=0)
            return center, self.vectors.T @ (targets - center)
        center = (self.weights / self.weights.sum()) @ targets
        return center, self.vectors.T @ (self.weights.sqrt().unsqueeze(1) * (targets - center))


def _places_of_groups(groups: Tensor | None) -> list[Tensor]:
    """Return the places of each group of two or more rows."""
    if groups is None:
        return []
    names, counts = torch.unique(groups, return_counts=True)
    shared = names[(counts > 1) & (names >= 0)].tolist()
    return [torch.nonzero(groups == name).squeeze(1) for name in shared]


def nystroem_map(kernel: Tensor) -> Tensor:
    """Return the map (m, r) from kernel values to m landmarks to features whose products approximate the kernel.

    Args:
        kernel: the kernel (m, m) of the landmarks among themselves (Williams & Seeger, NIPS 2000). A kernel of zeros
            has one feature, which is zero.
    """
    values, vectors = torch.linalg.eigh(kernel)
    kept = values > values[-1].clamp(min=0) * len(kernel) * torch.finfo(values.dtype).eps
    if not kept.any():
        return kernel.new_zeros(len(kernel), 1)
    mapping: Tensor = vectors[:, kept] / values[kept].sqrt()
    return mapping


def penalty_grid(spectrum: Spectrum, count: int) -> list[float]:
    """Return `count` penalties, evenly spaced in their logarithm, from 1e-6 to 1 times the kernel's total variance."""
    total = float(spectrum.values.sum())
    if total <= 0:
        return [1.0]
    exponents: Sequence[float] = torch.linspace(-6, 0, count, dtype=torch.float64).tolist()
    return [total * 10**exponent for exponent in exponents]


def _above_rounding(values: Tensor, count: int) -> Tensor:
    return values > values[-1].clamp(min=0) * count * torch.finfo(values.dtype).eps
