"""Layers of K heads at once: linear maps, the embedding of a stream, what joins embeddings.

Values are (n, B, H): n members, B rows. A matrix product over members is one `bmm`, a projection of the features, which
all members of a fold share, is one plain matrix product.
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
    """Matrix products with operands of this type, all else in the weights' own; None for the weights' own throughout.

    bfloat16 keeps the exponent of float32 and 8 bits of mantissa; products are summed in float32 by the hardware.
    Weights, gradients as the optimizer sees them, its moments, batch norm and the loss stay in float32.
    """
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype, cache_enabled=False)


def exact(device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in the operands' own type, also within `products_in`."""
    cast = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if cast else nullcontext()


def product_dtype(weight: Tensor) -> torch.dtype:
    """Type of the operands of a product with this weight, here and now."""
    kind = weight.device.type
    cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # there is none on `meta`
    return torch.get_autocast_dtype(kind) if cast else weight.dtype


class Linear(nn.Module):
    """A linear layer a member.

    Attributes:
        gradient: see `Projection`.

    Args:
        members: that have it.
        wide_in: inputs.
        wide_out: outputs.
        bias: whether it has one.
        fan_in: inputs a member by which the weights start; `wide_in` unless given.
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

    def forward(self, values: Tensor) -> Tensor:
        """(n, B, wide_out) of (n, B, wide_in)."""
        product: Tensor = _Multiply.apply(values, self.weight, self.bias, self.gradient)
        return product


class _Multiply(torch.autograd.Function):
    """x (n, B, in), W (n, out, in), b (n, out) or None -> x W^T + b (n, B, out)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None, gradient: Tensor | None) -> Tensor:
        dtype = product_dtype(weight)
        values, cast = values.to(dtype), weight.to(dtype)
        ctx.save_for_backward(values, cast)
        ctx.gradient, ctx.dtype, ctx.biased = gradient, weight.dtype, bias is not None
        if bias is None:
            return torch.bmm(values, cast.mT)
        if bias.dtype == dtype:
            return torch.baddbmm(bias.unsqueeze(1), values, cast.mT)
        return bias.unsqueeze(1) + torch.bmm(values, cast.mT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        values, cast = ctx.saved_tensors
        of_bias = grad.sum(1) if ctx.biased else None
        grad = grad.to(cast.dtype)
        return torch.bmm(grad, cast), _of_weight(grad, values, ctx.gradient, ctx.dtype), of_bias, None


def _of_weight(grad: Tensor, values: Tensor, gradient: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(n, out, in) of grad (n, B, out) and a layer's inputs (n, B, in), written into `gradient` if there is one."""
    if gradient is None:
        return torch.bmm(grad.mT, values).to(dtype)
    if gradient.dtype == values.dtype:
        return torch.bmm(grad.mT, values, out=gradient)
    return gradient.copy_(torch.bmm(grad.mT, values))


class Vector(nn.Module):
    """A learned vector a member.

    Args:
        members: that have it.
        dim: its width.
        fan_in: inputs a member of the linear layer like whose bias it starts; `dim` unless given.
        zero: it starts at zero instead, for what may be used without ever having been trained.
    """

    def __init__(self, members: Members, dim: int, fan_in: Sequence[int] | None = None, *, zero: bool = False) -> None:
        super().__init__()
        self.members = members
        if not zero:
            self.fan_in = (dim,) * len(members) if fan_in is None else tuple(fan_in)
        self.weight = nn.Parameter((torch.zeros if zero else torch.empty)(len(members), dim))

    def forward(self) -> Tensor:
        """(n, 1, dim), to be added to the values of all rows."""
        return self.weight.unsqueeze(1)


class Projection(nn.Module):
    """The first linear layer of a stream for all members: one matrix product a fold, for the batch is the same.

    With x (B, D) the rows of a fold and W (n, E, D) the weights of its members, x (W as (n E, D))^T is (B, n E). No
    bias: batch norm follows, which takes it away again.

    Folds see their rows through scalings of their own. To bring a scaling into the weights, W / scale, would cost every
    step a reading and a writing of n E D weights, and of as many gradients. To scale the rows costs F B D. At 25 heads,
    5 folds, B 64 and E 512 that is 1/40 of it. So each fold has its own (B, D) and its members stand side by side.

    Attributes:
        gradient: where the gradient of the weights is written, (n, E, D), or None for new memory each time. The memory
            is as large as the weights, and on the CPU to ask for it anew each step takes as long as the matrix product
            itself. Whoever sets it must be done with a gradient before the next backward pass.
    """

    gradient: Tensor | None

    def __init__(self, members: Members, dim: int, embed_dim: int) -> None:
        super().__init__()
        self.members = members
        self.fan_in = (dim,) * len(members)
        self.weight = nn.Parameter(torch.empty(len(members), embed_dim, dim))
        self.gradient = None

    def forward(self, features: Tensor) -> Tensor:
        """(n, B, E) of features (F, B, D)."""
        projected: Tensor = _Project.apply(features, self.weight, self.members.per_fold, self.gradient)
        return projected.transpose(0, 1)


class _Project(torch.autograd.Function):
    """x (F, B, D), W (n, E, D) ordered by fold -> (B, n, E)."""

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
    """(fold, its members) of every fold that has some."""
    stops = [sum(per_fold[: fold + 1]) for fold in range(len(per_fold))]
    return [
        (fold, slice(stop - count, stop))
        for fold, (count, stop) in enumerate(zip(per_fold, stops, strict=True))
        if count
    ]


class Join(nn.Module):
    """A linear layer on the embeddings side by side, for heads with different streams.

    [W1 W2] [e1; e2] = W1 e1 + W2 e2: each stream adds its share to the members that have it. So a member's layer is
    exactly that of the head with its streams alone, which also starts as one with that many inputs.
    """

    def __init__(self, everyone: Members, members: Mapping[str, Members], embed_dim: int, wide_out: int) -> None:
        super().__init__()
        self.members_of = dict(members)
        self.bias = Vector(everyone, wide_out, [embed_dim * len(member.streams) for member in everyone.group])
        for stream, own in members.items():
            fan_in = [embed_dim * len(member.streams) for member in own.group]
            self.add_module(key_of(stream), Linear(own, embed_dim, wide_out, bias=False, fan_in=fan_in))

    def forward(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """(K, B, wide_out) of stream -> (n, B, E)."""
        own: list[Linear] = [getattr(self, key_of(stream)) for stream in self.members_of]
        inputs = [embeddings[stream] for stream in self.members_of]
        total: Tensor = _Join.apply(self.bias.weight, own, *inputs, *[layer.weight for layer in own])
        return total


class _Join(torch.autograd.Function):
    """b (K, out), and for each stream e (n, B, E) and W (n, out, E) -> b + the sum of e W^T, each in its own members.

    The products are added to one tensor (K, B, out) that is there once.
    """

    @staticmethod
    def forward(ctx: Any, bias: Tensor, own: Sequence[Linear], *tensors: Tensor) -> Tensor:
        dtype = product_dtype(bias)
        cast = [tensor.to(dtype) for tensor in tensors]
        ctx.save_for_backward(*cast)
        ctx.own = own
        total = bias.unsqueeze(1).repeat(1, tensors[0].shape[1], 1)
        for layer, values, weight in zip(own, cast, cast[len(own) :], strict=False):
            if layer.members.complete and dtype == total.dtype:
                torch.baddbmm(total, values, weight.mT, out=total)
            elif layer.members.complete:
                total.add_(torch.bmm(values, weight.mT))
            else:
                total.index_add_(0, layer.members.positions, torch.bmm(values, weight.mT).to(total.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        of_values, of_weights, of_bias = [], [], grad.sum(1)
        dtype, grad = grad.dtype, grad.to(saved[0].dtype)
        for layer, values, weight in zip(ctx.own, saved, saved[len(ctx.own) :], strict=False):
            mine = layer.members.pick(grad)
            of_values.append(torch.bmm(mine, weight))
            of_weights.append(_of_weight(mine, values, layer.gradient, dtype))
        return of_bias, None, *of_values, *of_weights


class HiddenLayers(nn.Module):
    """ReLU, dropout, linear, as often as there are steps from one width to the next.

    Args:
        members: that have them.
        widths: of the values before the first ReLU, of the hidden layers, and of the result.
        place: name of these layers for the dropout.
    """

    def __init__(self, members: Members, widths: Sequence[int], place: str) -> None:
        super().__init__()
        self.dropout = nn.ModuleList(Dropout(members, [f"{place}.{index}"]) for index in range(len(widths) - 1))
        self.linear = nn.ModuleList(Linear(members, wide_in, wide_out) for wide_in, wide_out in pairwise(widths))

    def forward(self, values: Tensor, noise: Noise | None) -> Tensor:
        """(n, B, widths[-1]) of (n, B, widths[0]), which are changed in place."""
        for dropout, linear in zip(self.dropout, self.linear, strict=True):
            values = linear(dropout(functional.relu(values, inplace=True), noise))
        return values
