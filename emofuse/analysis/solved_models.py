"""Models of subsets of streams that are solved, not trained, so that all subsets of a cache are a matter of seconds.

There are two models of each subset of streams, and the better one answers:

    kernel fusion   kernel ridge regression on the mean of the streams' kernels (`emofuse.probe`)
    product         the product of the probabilities that each stream gives alone, each to a power: what Bayes' rule
                    says where streams are independent in each class

The better one is that whose predictions of left-out training rows have the smaller cross-entropy. Rows to be answered
play no role in the choice. Scores of classes are scaled by a matrix (`emofuse.solvers.matrix_scaling`), which is fitted
on left-out predictions too. Numbers and several labels have kernel fusion alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.probe import FoldKernels
from emofuse.solvers.kernels import KernelKind
from emofuse.solvers.matrix_scaling import fit_matrix_scaling

Floats = npt.NDArray[np.float64]
KERNELS: tuple[tuple[KernelKind, float], ...] = (("rbf", 1.0), ("rbf", 0.25), ("linear", 1.0))
"""The kernels from which each stream gets that with the best left-out predictions by the stream alone."""
_SPREAD_OF_POWERS = 0.5
"""The standard deviation of the prior of the logarithm of each power."""


class SubsetModels:
    """The models of one fold.

    Args:
        kernels: the kernels of its streams.
        has_classes: whether rows have a class or a distribution over classes.
    """

    def __init__(self, kernels: FoldKernels, *, has_classes: bool) -> None:
        self._kernels, self._has_classes = kernels, has_classes
        self._alone: dict[str, tuple[Tensor, Tensor]] = {}

    def solve(self, streams: Sequence[str]) -> Floats:
        """Return the outputs (v, C) of the rows to be answered, from these streams."""
        if not self._has_classes:
            return self._kernels.solve(streams)
        fused = self._scaled(streams)
        if len(streams) > 1:
            product = _product([self._of_stream(name) for name in streams], self._kernels.targets)
            fused = min(fused, product, key=lambda logits: _loss(logits[0], self._kernels.targets))
        return self._kernels.outputs(fused[1])

    def _of_stream(self, name: str) -> tuple[Tensor, Tensor]:
        if name not in self._alone:
            self._alone[name] = self._scaled([name])
        return self._alone[name]

    def _scaled(self, streams: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the logits of left-out training rows (n, C) and of rows to be answered (v, C)."""
        fit = self._kernels.fit(streams)
        scale = fit_matrix_scaling(fit.left_out, self._kernels.targets)
        return scale(fit.left_out), scale(fit.scores)


def _product(alone: Sequence[tuple[Tensor, Tensor]], targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of the product of the streams' probabilities, each to the power that fits left-out rows best.

    Two streams that say the same get smaller powers, so that a cue does not count twice.

    Args:
        alone: for each of S streams its logits (n, C) of left-out training rows and (v, C) of rows to be answered.
        targets: what the training rows teach, (n, C).
    """
    left_out, answered = (torch.stack(parts) for parts in zip(*alone, strict=True))
    exponents = targets.new_zeros(len(alone), 1, 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([exponents], max_iter=50, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = (exponents.exp() * left_out).sum(dim=0)
        fit = -(targets * torch.log_softmax(logits, dim=1)).sum()
        total: Tensor = fit + exponents.square().sum() / (2 * _SPREAD_OF_POWERS**2)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    powers = exponents.detach().exp()
    return (powers * left_out).sum(dim=0), (powers * answered).sum(dim=0)


def _loss(logits: Tensor, targets: Tensor) -> float:
    return float(-(targets * torch.log_softmax(logits, dim=1)).sum(dim=1).mean())
