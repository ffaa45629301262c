"""Batch norm over valid rows, for many members at once: its parameters, and its arithmetic forward and back.

Batch norm (Ioffe & Szegedy, ICML 2015) over the valid rows of a batch alone, a member and unit; equal to
`torch.nn.BatchNorm1d` on those rows. In training their mean and population variance normalise, and the running
statistics move by `MOMENTUM` towards mean and unbiased variance; in evaluation the running statistics normalise. A
batch with fewer than two valid rows has no variance: it is normalised by the running statistics and leaves them alone.
Nothing here waits for a GPU.

Written out by hand, because it is the part of a step that is neither a matrix product nor the optimizer. Where all rows
are valid it goes through (n, B, E) 8 times forward and 10 times back, reading or writing, in memory that is there
already; autograd of the definition would take new memory for each of its many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emofuse.heads.members import Members

EPS, MOMENTUM = 1e-5, 0.1


class MaskedBatchNorm(nn.Module):
    """Parameters and running statistics of n members; `emofuse.heads.embedding` normalises with them."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, members: Members, dim: int) -> None:
        super().__init__()
        self.members = members
        self.weight = nn.Parameter(torch.ones(len(members), dim))
        self.bias = nn.Parameter(torch.zeros(len(members), dim))
        self.register_buffer("running_mean", torch.zeros(len(members), dim))
        self.register_buffer("running_var", torch.ones(len(members), dim))


def masked_batch_norm(
    values: Tensor, valid: Tensor, norm: MaskedBatchNorm, missing: Tensor, *, training: bool
) -> Tensor:
    """The same norm by plain autograd, for values whose derivative stems ask for; moves the running statistics.

    Args:
        values: (n, B, E), finite.
        valid: (n, B) bool.
        norm: of the n members.
        missing: (n, E), what takes the place of rows that are not valid.
        training: by the batch's own statistics where it has some.
    """
    values, keep = values.to(norm.weight.dtype), valid.unsqueeze(2)
    mean, var = norm.running_mean.unsqueeze(1), norm.running_var.unsqueeze(1)
    if training:
        count = keep.sum(1, keepdim=True)
        enough, rows = count >= 2, count.clamp(min=1)
        own_mean = torch.where(keep, values, 0.0).sum(1, keepdim=True) / rows
        own_var = torch.where(keep, (values - own_mean).square(), 0.0).sum(1, keepdim=True) / rows
        with torch.no_grad():
            momentum = (MOMENTUM * enough.to(values.dtype)).squeeze(1)
            unbiased = (own_var * (count / (count - 1).clamp(min=1))).squeeze(1)
            new_mean = torch.lerp(norm.running_mean, own_mean.squeeze(1), momentum)
            new_var = torch.lerp(norm.running_var, unbiased, momentum)
        mean, var = torch.where(enough, own_mean, mean), torch.where(enough, own_var, var)
    normed = (values - mean) * torch.rsqrt(var + EPS) * norm.weight.unsqueeze(1) + norm.bias.unsqueeze(1)
    if training:
        norm.running_mean.copy_(new_mean)
        norm.running_var.copy_(new_var)
    return torch.where(keep, normed, missing.unsqueeze(1))


@dataclass(frozen=True)
class RowMask:
    """Which rows each of n members has, and what follows from their number.

    Attributes:
        keep: (n, 1, B) 1 in valid rows, else 0.
        share: (n, 1) what part of the statistics each valid row is: one over their number, or 0 where there are fewer
            than two and the running statistics serve.
        momentum: (n, 1) of the running statistics, 0 where they stay.
        unbiased: (n, 1) what makes a population variance an unbiased one.
        whole: whether every row is known to be valid; false if some is not, or if to find out would wait for a GPU.
    """

    keep: Tensor
    share: Tensor
    momentum: Tensor
    unbiased: Tensor
    whole: bool

    @classmethod
    def of(cls, valid: Tensor, members: Tensor, dtype: torch.dtype) -> RowMask:
        """Of valid (M, B) bool, the masks that there are, and members (n,) int64, which of them each member has."""
        keep = valid.to(dtype)
        count = keep.sum(1, keepdim=True)
        enough = (count >= 2).to(dtype)
        share = enough / count.clamp(min=1)
        unbiased = count / (count - 1).clamp(min=1)
        rows = torch.cat([keep, share, MOMENTUM * enough, unbiased], dim=1).index_select(0, members)
        keep, share, momentum, unbiased = torch.split(rows, [valid.shape[1], 1, 1, 1], dim=1)
        whole = valid.device.type == "cpu" and bool(valid.all())
        return cls(keep.contiguous().unsqueeze(1), share, momentum, unbiased, whole)

    def slice(self, members: slice) -> RowMask:
        """Of some of the members."""
        return RowMask(
            self.keep[members], self.share[members], self.momentum[members], self.unbiased[members], self.whole
        )

    def sum(self, values: Tensor) -> Tensor:
        """(n, E): sums of values (n, B, E) over the valid rows. A matrix product reads them once."""
        return torch.bmm(self.keep, values).squeeze(1)


@dataclass(frozen=True)
class NormState:
    """Parameters and running statistics of n members side by side, each (n, E)."""

    weight: Tensor
    bias: Tensor
    missing: Tensor
    running_mean: Tensor
    running_var: Tensor

    def slice(self, members: slice) -> NormState:
        """Of some of the members."""
        parts = (self.weight, self.bias, self.missing, self.running_mean, self.running_var)
        return NormState(*(part[members] for part in parts))


@dataclass(frozen=True)
class Normed:
    """What normalised a batch: each (n, E)."""

    mean: Tensor
    var: Tensor
    rstd: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Normed]) -> Normed:
        """Of the members of all parts, one after another."""
        names = ("mean", "var", "rstd")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def normalise(values: Tensor, mask: RowMask, state: NormState, out: Tensor, *, training: bool) -> Normed:
    """Y = (x - mean) rstd weight + bias in valid rows, `missing` in the others. Moves no running statistics.

    Args:
        values: (n, B, E), zeros where not valid; x - mean when this returns.
        mask: which rows are valid.
        state: parameters and running statistics.
        out: (n, B, E), where y is written.
        training: by the batch's own statistics where it has some.
    """
    mean, var = state.running_mean, state.running_var
    if training:
        some = mask.share > 0
        mean = torch.where(some, mask.sum(values) * mask.share, mean)
    values.sub_(mean.unsqueeze(1))
    if training:
        var = torch.where(some, mask.sum(values.square()) * mask.share, var)
    rstd = torch.rsqrt(var + EPS)
    torch.addcmul(state.bias.unsqueeze(1), values, (state.weight * rstd).unsqueeze(1), out=out)
    if not mask.whole:
        torch.where(mask.keep.mT > 0, out, state.missing.unsqueeze(1), out=out)
    return Normed(mean, var, rstd)


def normalise_back(
    grad: Tensor, centered: Tensor, mask: RowMask, weight: Tensor, rstd: Tensor, *, out: Tensor, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of `normalise`.

    Mean and variance are functions of x, too. With x^ = (x - mean) rstd, g = weight rstd, sums over valid rows and n of
    them, the derivative is (Ioffe & Szegedy, 2015, section 3, gathered)

        dx = g (dy - sum(dy) / n - x^ sum(dy x^) / n)

    and without the sums where mean and variance are given numbers. In rows that are not valid it is left as it comes:
    the features there are zeros, so nothing asks for it.

    Args:
        grad: (n, B, E) of y.
        centered: (n, B, E), x - mean.
        mask: which rows are valid.
        weight: (n, E).
        rstd: (n, E).
        out: (n, B, E), where the derivative of x is written.
        training: as it was forward.

    Returns:
        Derivatives of weight, bias and `missing`, each (n, E).
    """
    of_bias = mask.sum(grad)
    of_missing = torch.zeros_like(of_bias) if mask.whole else torch.bmm(1 - mask.keep, grad).squeeze(1)
    gain = weight * rstd
    of_weight = mask.sum(torch.mul(grad, centered, out=out)) * rstd
    if training:
        less = -gain * mask.share
        torch.addcmul((less * of_bias).unsqueeze(1), centered, (less * of_weight * rstd).unsqueeze(1), out=out)
        out.addcmul_(grad, gain.unsqueeze(1))
    else:
        torch.mul(grad, gain.unsqueeze(1), out=out)
    return of_weight, of_bias, of_missing


@torch.no_grad()
def move_running_statistics(norms: Sequence[MaskedBatchNorm], normed: Normed, mask: RowMask, state: NormState) -> None:
    """Moves the running statistics of some norms, whose members stand side by side, towards those of a batch."""
    sizes = [len(norm.members) for norm in norms]
    mean = torch.lerp(state.running_mean, normed.mean, mask.momentum)
    var = torch.lerp(state.running_var, normed.var * mask.unbiased, mask.momentum)
    torch._foreach_copy_([norm.running_mean for norm in norms], torch.split(mean, sizes))
    torch._foreach_copy_([norm.running_var for norm in norms], torch.split(var, sizes))
