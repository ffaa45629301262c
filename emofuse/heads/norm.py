"""Batch norm over valid rows for many members at once: its parameters, its forward and its backward pass.

Batch norm (Ioffe & Szegedy, ICML 2015) uses only the valid rows of a batch, separately for each member and unit. It
equals `torch.nn.BatchNorm1d` on those rows. In training it normalises by their mean and population variance and moves
the running statistics by `MOMENTUM` towards the mean and the unbiased variance. In evaluation it normalises by the
running statistics. A batch with fewer than two valid rows has no variance, so it is normalised by the running
statistics and does not change them. Nothing here waits for a GPU.

`normalise` and `normalise_back` are written by hand; `emofuse.heads.embedding` says what they save. If all rows are
valid, they pass through (n, B, E) 8 times forward and 10 times backward, in memory that exists already. Autograd of the
definition would take new memory for each of its many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from emofuse.heads.members import Members

EPS, MOMENTUM = 1e-5, 0.1


class MaskedBatchNorm(nn.Module):
    """The parameters and running statistics of n members. `emofuse.heads.embedding` normalises with them."""

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
    """Normalise by plain autograd, for values whose derivative a stem needs, and move the running statistics.

    Args:
        values: the values (n, B, E), finite.
        valid: whether each row is valid, bool (n, B).
        norm: the parameters of the n members.
        missing: the vectors (n, E) for rows that are not valid.
        training: whether to normalise by the statistics of the batch where it has enough rows.
    """
    values, keep = values.to(norm.weight.dtype), valid.unsqueeze(2)
    mean, var = norm.running_mean.unsqueeze(1), norm.running_var.unsqueeze(1)
    if training:
        count = keep.sum(1, keepdim=True)
        enough, rows = count >= 2, count.clamp(min=1)
        batch_mean = torch.where(keep, values, 0.0).sum(1, keepdim=True) / rows
        batch_var = torch.where(keep, (values - batch_mean).square(), 0.0).sum(1, keepdim=True) / rows
        with torch.no_grad():
            momentum = (MOMENTUM * enough.to(values.dtype)).squeeze(1)
            unbiased = (batch_var * (count / (count - 1).clamp(min=1))).squeeze(1)
            new_mean = torch.lerp(norm.running_mean, batch_mean.squeeze(1), momentum)
            new_var = torch.lerp(norm.running_var, unbiased, momentum)
        mean, var = torch.where(enough, batch_mean, mean), torch.where(enough, batch_var, var)
    normed = (values - mean) * torch.rsqrt(var + EPS) * norm.weight.unsqueeze(1) + norm.bias.unsqueeze(1)
    if training:
        norm.running_mean.copy_(new_mean)
        norm.running_var.copy_(new_var)
    return torch.where(keep, normed, missing.unsqueeze(1))


@dataclass(frozen=True)
class RowMask:
    """The valid rows of each of n members, and the factors that follow from their number.

    Attributes:
        keep: 1 in valid rows, else 0, (n, 1, B).
        share: one over the number of valid rows, (n, 1). It is 0 with fewer than two: the running statistics are used.
        momentum: the momentum of the running statistics, (n, 1), 0 where they stay.
        unbiased: the factor that makes a population variance unbiased, (n, 1).
        whole: whether all rows are known to be valid. False if one is not, or if the answer would wait for a GPU.
        is_zero: whether features are zeros in rows that are not valid.
    """

    keep: Tensor
    share: Tensor
    momentum: Tensor
    unbiased: Tensor
    whole: bool
    is_zero: bool = True

    @classmethod
    def of(cls, valid: Tensor, members: Tensor | None, dtype: torch.dtype) -> RowMask:
        """Build the mask from the M different masks, bool (M, B), and the index of each member's mask, int64 (n,).

        Without indices, each member has a mask of its own, which may leave out rows whose features are not zeros.
        """
        keep = valid.to(dtype)
        count = keep.sum(1, keepdim=True)
        enough = (count >= 2).to(dtype)
        share = enough / count.clamp(min=1)
        unbiased = count / (count - 1).clamp(min=1)
        rows = torch.cat([keep, share, MOMENTUM * enough, unbiased], dim=1)
        rows = rows if members is None else rows.index_select(0, members)
        keep, share, momentum, unbiased = torch.split(rows, [valid.shape[1], 1, 1, 1], dim=1)
        whole = valid.device.type == "cpu" and bool(valid.all())
        return cls(keep.contiguous().unsqueeze(1), share, momentum, unbiased, whole, is_zero=members is not None)

    def slice(self, members: slice) -> RowMask:
        """Return the masks of some of the members."""
        return replace(
            self,
            keep=self.keep[members],
            share=self.share[members],
            momentum=self.momentum[members],
            unbiased=self.unbiased[members],
        )

    def sum(self, values: Tensor) -> Tensor:
        """Return the sums (n, E) of values (n, B, E) over the valid rows. A matrix product reads them once."""
        return torch.bmm(self.keep, values).squeeze(1)


@dataclass(frozen=True)
class NormState:
    """The parameters and running statistics of n members, each (n, E)."""

    weight: Tensor
    bias: Tensor
    missing: Tensor
    running_mean: Tensor
    running_var: Tensor

    def slice(self, members: slice) -> NormState:
        """Return the state of some of the members."""
        parts = (self.weight, self.bias, self.missing, self.running_mean, self.running_var)
        return NormState(*(part[members] for part in parts))


@dataclass(frozen=True)
class Normed:
    """The statistics that normalised a batch, each (n, E)."""

    mean: Tensor
    var: Tensor
    rstd: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Normed]) -> Normed:
        """Concatenate the statistics of the members of all parts."""
        names = ("mean", "var", "rstd")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def normalise(values: Tensor, mask: RowMask, state: NormState, out: Tensor, *, training: bool) -> Normed:
    """Write y = (x - mean) rstd weight + bias in valid rows and `missing` in the others.

    The running statistics do not change, see `move_running_statistics`.

    Args:
        values: the values x (n, B, E), zeros where not valid. They are overwritten by x - mean.
        mask: the valid rows.
        state: the parameters and running statistics.
        out: the memory (n, B, E) for y.
        training: whether to normalise by the statistics of the batch where it has enough rows.

    Returns:
        The statistics that were used.
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
    """Compute the derivatives of `normalise`.

    Mean and variance depend on x. With x^ = (x - mean) rstd, g = weight rstd and sums over the n valid rows, the
    derivative is (Ioffe & Szegedy, 2015, section 3, simplified)

        dx = g (dy - sum(dy) / n - x^ sum(dy x^) / n)

    Where the running statistics were used, both sums are left out. In rows that are not valid the result has no meaning
    and no effect where the features are zeros; elsewhere it is set to zero (`RowMask.is_zero`).

    Args:
        grad: the derivative of y, (n, B, E).
        centered: x - mean, (n, B, E).
        mask: the valid rows.
        weight: the weight, (n, E).
        rstd: the reciprocal deviation, (n, E).
        out: the memory (n, B, E) for the derivative of x.
        training: the value of the forward pass.

    Returns:
        The derivatives of weight, bias and `missing`, each (n, E).
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
    if not mask.is_zero:
        out.mul_(mask.keep.mT)
    return of_weight, of_bias, of_missing


@torch.no_grad()
def move_running_statistics(norms: Sequence[MaskedBatchNorm], normed: Normed, mask: RowMask, state: NormState) -> None:
    """Move the running statistics of these norms, whose members are concatenated, towards those of a batch."""
    sizes = [len(norm.members) for norm in norms]
    mean = torch.lerp(state.running_mean, normed.mean, mask.momentum)
    var = torch.lerp(state.running_var, normed.var * mask.unbiased, mask.momentum)
    torch._foreach_copy_([norm.running_mean for norm in norms], torch.split(mean, sizes))
    torch._foreach_copy_([norm.running_var for norm in norms], torch.split(var, sizes))
