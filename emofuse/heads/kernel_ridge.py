"""Kernel ridge regression as a head: kernel values to its support rows, one set of coefficients, one temperature.

It is solved (`emofuse.training.exact`) instead of trained, so it is always a single head. Its tensors have the axis of
members of the other heads with length one, so that saved weights and predictions are handled in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.members import HeadBatch, key_of
from emofuse.solvers.kernels import Kernel, KernelKind, StreamRows, stream_kernel, weighted_sum


class KernelRidgeHead(nn.Module):
    """Logits = factor * (k(x) coefficients + bias), where k(x) is the mean over streams of kernels to M support rows.

    Kernels and their sums are computed in float64, as they were when the coefficients were solved: in float32 the
    coefficients of both signs leave a rounding of 2e-5 in a probability of 672 rows and five streams.

    Args:
        kind: the kind of the kernel of every stream.
        dims: the width D of each stream.
        support_rows: the number M of support rows, which are training rows or landmarks.
        classes: the number C of classes.
    """

    factor: Tensor

    def __init__(self, kind: KernelKind, dims: Mapping[str, int], support_rows: int, classes: int) -> None:
        super().__init__()
        self.kind = kind
        self.streams = tuple(dims)
        self.coefficients = nn.Parameter(torch.empty(1, support_rows, classes))
        self.bias = nn.Parameter(torch.empty(1, classes))
        self.register_buffer("factor", torch.ones(1))
        self._supports = {name: _Support(dim, support_rows) for name, dim in dims.items()}
        self.support = nn.ModuleDict({key_of(name): support for name, support in self._supports.items()})

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:  # noqa: ARG002  all heads are called alike
        """Return the logits (1, B, C)."""
        parts = {}
        for name, support in self._supports.items():
            rows = StreamRows(batch.features[name][0].double(), batch.valid[name][0])
            kernel = Kernel(self.kind, float(support.gamma), float(support.scale))
            supports = StreamRows(support.features[0].double(), support.valid[0] > 0)
            parts[name] = stream_kernel(kernel, rows, supports)
        kernel_values = weighted_sum(parts, self.streams)
        logits: Tensor = self.factor * (kernel_values @ self.coefficients[0].double() + self.bias[0])
        return logits.float().unsqueeze(0)


class _Support(nn.Module):
    """The support rows of one stream: standardised features (1, M, D), valid (1, M) 1 or 0, and the kernel."""

    features: Tensor
    valid: Tensor
    gamma: Tensor
    scale: Tensor

    def __init__(self, dim: int, rows: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.empty(1, rows, dim))
        self.register_buffer("valid", torch.empty(1, rows))
        self.register_buffer("gamma", torch.ones(1))
        self.register_buffer("scale", torch.ones(1))


def support_rows_of(weights: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return the number M of support rows of saved weights.

    Raises:
        KeyError: the weights belong to another head.
    """
    return int(weights["coefficients"].shape[0])
