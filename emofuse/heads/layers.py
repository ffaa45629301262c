"""Layers of K heads at once: linear maps, projections of features, and the layer that joins embeddings.

Values are (n, B, H) for n members and B rows. A linear map of all members is one `bmm`. A projection of the features,
which all members of a fold share, is one plain matrix product for each fold.

Two autograd functions are written by hand. They write the gradients of the weights into memory that stays from step to
step (`gradient`), in the layout that the optimizer reads. Autograd would ask for new memory and leave the gradient
transposed, to be copied. The comments at both quote the cost of plain autograd in their place. The figures are medians
of process CPU time of whole epochs, in alternating rounds of one run with one thread in float32, on 2026-11-29.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.dropout import Dropout, Noise
from emofuse.heads.members import Members, key_of


def products_in(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which matrix products take operands of this type; None keeps the type of the weights.

    bfloat16 keeps the exponent of float32 and 8 bits of mantissa. The hardware sums products in float32. Weights, their
    gradients for the optimizer, its moments, batch norm and the loss stay in float32.
    """
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype, cache_enabled=False)


def exact(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which matrix products keep the type of their operands, also within `products_in`."""
    cast = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if cast else nullcontext()


def product_dtype(weight: Tensor) -> torch.dtype:
    """Return the type of the operands of a product with this weight in the current context."""
    kind = weight.device.type
    cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # `meta` has no autocast
    return torch.get_autocast_dtype(kind) if cast else weight.dtype


class Linear(nn.Module):
    """A linear layer for each member.

    Attributes:
        gradient: the memory of the gradient of the weights, see `Projection`.

    Args:
        members: the members that have the layer.
        wide_in: the number of inputs.
        wide_out: the number of outputs.
        bias: whether the layer has a bias.
        fan_in: for each member the number of inputs that scales the initial weights; `wide_in` by default.
    """

    gradient: Tensor | None

    def __init__(
        self, members: Members, wide_in: int, wide_out: int, *, bias: bool = True, fan_in: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.members = members
        self.fan_in = (wide_in,) * len(members) if fan_in is None else tuple(fan_in)
        self.weight = nn.Parameter(torch.empty(len(members), wide_out, wide_in))
        self.bias = nn.Parameter(torch.empty(len(members), wide_out)) if bias else None
        self.gradient = None

    def forward(self, values: Tensor, onto: Tensor | None = None) -> Tensor:
        """Return (n, B, wide_out) of values (n, B, wide_in), added to `onto` (n, 1 or B, wide_out) if given."""
        if self.bias is not None:
            onto = self.bias.unsqueeze(1) if onto is None else onto + self.bias.unsqueeze(1)
        product: Tensor = _Multiply.apply(values, self.weight, onto, self.gradient)
        return product


class _Multiply(torch.autograd.Function):
    """x (n, B, in), W (n, out, in), b (n, 1 or B, out) or None -> x W^T + b (n, B, out).

    Plain `baddbmm`, here and in `Join`, costs 9 % more at the paper's widths (batch 64, 6 heads) and 8 % at the sizes
    of `pipelines/faces.yaml` (25 heads). That would take `benchmarks.heads` below 0.95.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, onto: Tensor | None, gradient: Tensor | None) -> Tensor:
        dtype = product_dtype(weight)
        values, cast = values.to(dtype), weight.to(dtype)
        ctx.save_for_backward(values, cast)
        ctx.gradient, ctx.dtype, ctx.onto = gradient, weight.dtype, None if onto is None else onto.shape
        if onto is None:
            return torch.bmm(values, cast.mT)
        if onto.dtype == dtype:
            return torch.baddbmm(onto, values, cast.mT)
        return onto + torch.bmm(values, cast.mT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        values, cast = ctx.saved_tensors
        of_onto = None if ctx.onto is None else grad.sum_to_size(ctx.onto)
        grad = grad.to(cast.dtype)
        return torch.bmm(grad, cast), _of_weight(grad, values, ctx.gradient, ctx.dtype), of_onto, None


def _of_weight(grad: Tensor, values: Tensor, gradient: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return (n, out, in) of grad (n, B, out) and inputs (n, B, in), written into `gradient` if there is one."""
    if gradient is None:
        return torch.bmm(grad.mT, values).to(dtype)
    if gradient.dtype == values.dtype:
        return torch.bmm(grad.mT, values, out=gradient)
    return gradient.copy_(torch.bmm(grad.mT, values))


class Vector(nn.Module):
    """A learned vector for each member.

    Args:
        members: the members that have the vector.
        dim: the width of the vector.
        fan_in: for each member the number of inputs that scales the initial numbers, as in a bias; `dim` by default.
        zero: whether the vector starts at zero, for one that may be used without ever having been trained.
    """

    def __init__(self, members: Members, dim: int, fan_in: Sequence[int] | None = None, *, zero: bool = False) -> None:
        super().__init__()
        self.members = members
        if not zero:
            self.fan_in = (dim,) * len(members) if fan_in is None else tuple(fan_in)
        self.weight = nn.Parameter((torch.zeros if zero else torch.empty)(len(members), dim))

    def forward(self) -> Tensor:
        """Return the vectors, (n, 1, dim), to be added to the values of all rows."""
        return self.weight.unsqueeze(1)


class Projection(nn.Module):
    """The first linear layer of a stream: one matrix product for all members of a fold, which share their rows.

    With x (B, D) the rows of a fold and W (n, E, D) the weights of its members, x (W as (n E, D))^T is (B, n E). There
    is no bias, because the batch norm that follows would remove it.

    Each fold scales its rows differently. Scaling the rows costs F B D operations in every step. Scaling the weights,
    W / scale, would read and write n E D weights and as many gradients, 40 times as much at 25 heads, 5 folds, B 64 and
    E 512. So each fold has its own rows (B, D), and its members are neighbours.

    Attributes:
        gradient: the memory for the gradient of the weights, (n, E, D), or None for new memory in every step. A caller
            that sets it must have used a gradient before the next backward pass.
    """

    gradient: Tensor | None

    def __init__(self, members: Members, dim: int, embed_dim: int) -> None:
        super().__init__()
        self.members = members
        self.fan_in = (dim,) * len(members)
        self.weight = nn.Parameter(torch.empty(len(members), embed_dim, dim))
        self.gradient = None

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, B, E) of features (F, B, D)."""
        if features.requires_grad:  # an analysis asks what the features contribute; training never does
            return torch.bmm(self.members.of_folds(features), self.weight.mT)
        projected: Tensor = _Project.apply(features, self.weight, self.members.per_fold, self.gradient)
        return projected.transpose(0, 1)


class _Project(torch.autograd.Function):
    """x (F, B, D), W (n, E, D) ordered by fold -> (B, n, E).

    Plain `functional.linear` on split weights costs 17 % more in 16 linear heads of six streams at batch 64.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, per_fold: Sequence[int], gradient: Tensor | None) -> Tensor:
        dtype = product_dtype(weight)
        features = features.to(dtype)
        ctx.save_for_backward(features)
        ctx.per_fold, ctx.gradient, ctx.shape, ctx.dtype = per_fold, gradient, weight.shape, weight.dtype
        out = features.new_empty(features.shape[1], *weight.shape[:2])
        for fold, members in slices(per_fold):
            wide = weight[members].flatten(0, 1).to(dtype)
            torch.mm(features[fold], wide.T, out=out[:, members].flatten(1))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        (features,) = ctx.saved_tensors
        out = ctx.gradient if ctx.gradient is not None else features.new_empty(ctx.shape, dtype=ctx.dtype)
        for fold, members in slices(ctx.per_fold):
            wide = grad[:, members].flatten(1).T
            if features.dtype == out.dtype:
                torch.mm(wide, features[fold], out=out[members].flatten(0, 1))
            else:
                out[members] = torch.mm(wide, features[fold]).view_as(out[members])
        return None, out, None, None


def slices(per_fold: Sequence[int]) -> list[tuple[int, slice]]:
    """Return the folds that have members, each with the slice of its members."""
    stops = [sum(per_fold[: fold + 1]) for fold in range(len(per_fold))]
    return [
        (fold, slice(stop - count, stop))
        for fold, (count, stop) in enumerate(zip(per_fold, stops, strict=True))
        if count
    ]


class Join(nn.Module):
    """A linear layer on the concatenated embeddings, for heads with different streams.

    `[W1 W2] [e1; e2] = W1 e1 + W2 e2`, so each stream adds its product to the members that have it. A member's layer is
    that of the single head with its streams, also in its initial weights.
    """

    def __init__(self, all_members: Members, members_of: Mapping[str, Members], embed_dim: int, wide_out: int) -> None:
        super().__init__()
        self.members_of = dict(members_of)
        self.bias = Vector(all_members, wide_out, [embed_dim * len(member.streams) for member in all_members.group])
        for stream, members in members_of.items():
            fan_in = [embed_dim * len(member.streams) for member in members.group]
            self.add_module(key_of(stream), Linear(members, embed_dim, wide_out, bias=False, fan_in=fan_in))

    def forward(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Return (K, B, wide_out) of the embeddings (n, B, E) of all streams."""
        total: Tensor = self.bias()
        for stream, members in self.members_of.items():
            layer, embedding = getattr(self, key_of(stream)), embeddings[stream]
            if members.complete:
                total = layer(embedding, onto=total)
            else:
                total = members.add(total.expand(-1, embedding.shape[1], -1), layer(embedding))
        return total


class HiddenLayers(nn.Module):
    """ReLU, dropout and a linear layer, repeated for each step from one width to the next.

    Args:
        members: the members that have the layers.
        widths: the widths of the values before the first ReLU, of the hidden layers and of the result.
        place: the name of these layers for the dropout.
    """

    def __init__(self, members: Members, widths: Sequence[int], place: str) -> None:
        super().__init__()
        self.dropout = nn.ModuleList(Dropout(members, [f"{place}.{index}"]) for index in range(len(widths) - 1))
        self.linear = nn.ModuleList(Linear(members, wide_in, wide_out) for wide_in, wide_out in pairwise(widths))

    def forward(self, values: Tensor, noise: Noise | None) -> Tensor:
        """Return (n, B, widths[-1]) of values (n, B, widths[0]), which are changed in place."""
        for dropout, linear in zip(self.dropout, self.linear, strict=True):
            values = linear(dropout(functional.relu(values, inplace=True), noise))
        return values
