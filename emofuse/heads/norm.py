"""Batch norm over valid rows, for K heads at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from emofuse.heads.lanes import Lanes


class MaskedBatchNorm(nn.Module):
    """Batch norm (Ioffe & Szegedy, ICML 2015) over the valid rows of a batch alone, a lane and unit.

    Equal to `torch.nn.BatchNorm1d` on those rows: in training their mean and population variance normalise, and the
    running statistics move by `momentum` towards mean and unbiased variance; in evaluation the running statistics
    normalise. A batch with fewer than two valid rows has no variance: it is normalised by the running statistics and
    leaves them alone. Nothing here waits for the device.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, lanes: Lanes, dim: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.lanes = lanes
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(len(lanes), dim))
        self.bias = nn.Parameter(torch.zeros(len(lanes), dim))
        self.register_buffer("running_mean", torch.zeros(len(lanes), dim))
        self.register_buffer("running_var", torch.ones(len(lanes), dim))

    def forward(self, values: Tensor, valid: Tensor, missing: Tensor) -> Tensor:
        """Normalised rows, and another vector in place of those that are not valid.

        Args:
            values: (n, B, E), zeros where not valid.
            valid: (n, B) bool.
            missing: (n, E).

        Returns:
            (n, B, E).
        """
        values = values.to(self.weight.dtype)
        keep = valid.to(values.dtype)
        if self.training:
            mean, var, share = self._batch_statistics(values.detach(), keep)
        else:
            mean, var, share = self.running_mean, self.running_var, keep.new_zeros(len(keep), 1)
        rstd = torch.rsqrt(var + self.eps)
        normed: Tensor = _Normalise.apply(values, keep, mean, rstd, share, self.weight, self.bias, missing)
        return normed

    @torch.no_grad()
    def _batch_statistics(self, values: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What normalises a batch in training; moves the running statistics.

        Returns:
            mean (n, E), variance (n, E), and what share (n, 1) of them each valid row is: one over their number, or 0
            where there are too few and the running statistics serve.
        """
        count = keep.sum(1, keepdim=True)
        enough = count >= 2
        mean = _sum_rows(values, keep) / count.clamp(min=1)
        var = _sum_rows((values - mean.unsqueeze(1)).square_(), keep) / count.clamp(min=1)
        momentum = enough * torch.full_like(count, self.momentum)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var * (count / (count - 1).clamp(min=1)), momentum)
        share = torch.where(enough, 1 / count.clamp(min=1), 0.0)
        return torch.where(enough, mean, self.running_mean), torch.where(enough, var, self.running_var), share


class _Normalise(torch.autograd.Function):
    """y = x^ gain + bias in valid rows, x^ = (x - mean) rstd; `missing` in the others.

    Mean and variance are functions of x, too. With g = gain rstd, sums over valid rows and n of them, the derivative is
    (Ioffe & Szegedy, 2015, section 3, gathered)

        dx = g (dy - sum(dy) / n - x^ sum(dy x^) / n)

    and without the sums where mean and variance are given numbers: `share` is 1 / n or 0. Written out here, a batch
    norm reads and writes (n, B, E) about 12 times a step; autograd of the definition does it more than 20 times.
    """

    @staticmethod
    def forward(  # noqa: PLR0917  autograd follows tensors that are given one by one
        ctx: Any,
        values: Tensor,
        keep: Tensor,
        mean: Tensor,
        rstd: Tensor,
        share: Tensor,
        weight: Tensor,
        bias: Tensor,
        missing: Tensor,
    ) -> Tensor:
        normed = (values - mean.unsqueeze(1)).mul_(rstd.unsqueeze(1))
        ctx.save_for_backward(normed, keep, weight * rstd, share)
        scaled = torch.addcmul(bias.unsqueeze(1), normed, weight.unsqueeze(1))
        return torch.where(keep.unsqueeze(2) > 0, scaled, missing.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normed, keep, gain, share = ctx.saved_tensors
        of_bias, of_missing = torch.bmm(torch.stack([keep, 1 - keep], dim=1), grad).unbind(1)
        of_weight = _sum_rows(grad * normed, keep)
        of_values = grad - torch.addcmul((of_bias * share).unsqueeze(1), normed, (of_weight * share).unsqueeze(1))
        of_values.mul_(keep.unsqueeze(2)).mul_(gain.unsqueeze(1))
        return of_values, None, None, None, None, of_weight, of_bias, of_missing


def _sum_rows(values: Tensor, keep: Tensor) -> Tensor:
    """(n, E): sums over the rows of values (n, B, E) that are kept, keep (n, B); a matrix product reads them once."""
    return torch.bmm(keep.unsqueeze(1), values).squeeze(1)
