"""Layers of K heads at once: linear maps, the embedding of a stream, what joins embeddings.

Values are (n, B, H): n lanes, B rows. A matrix product over lanes is one `bmm`, a projection of the features, which all
lanes of a fold share, is one plain matrix product.
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
from emofuse.heads.lanes import Batch, Lanes, key_of
from emofuse.heads.norm import MaskedBatchNorm


def products_in(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products with operands of this type, all else in the weights' own; None for the weights' own throughout.

    bfloat16 keeps the exponent of float32 and 8 bits of mantissa; products are summed in float32 by the hardware.
    Weights, gradients as the optimizer sees them, its moments, batch norm and the loss stay in float32.
    """
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype, cache_enabled=False)


def product_dtype(weight: Tensor) -> torch.dtype:
    """Type of the operands of a product with this weight, here and now."""
    kind = weight.device.type
    cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # there is none on `meta`
    return torch.get_autocast_dtype(kind) if cast else weight.dtype


class Linear(nn.Module):
    """A linear layer a lane.

    Attributes:
        gradient: see `Projection`.

    Args:
        lanes: that have it.
        wide_in: inputs.
        wide_out: outputs.
        bias: whether it has one.
        fan_in: inputs a lane by which the weights start; `wide_in` unless given.
    """

    gradient: Tensor | None

    def __init__(
        self, lanes: Lanes, wide_in: int, wide_out: int, *, bias: bool = True, fan_in: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.lanes = lanes
        self.fan_in = (wide_in,) * len(lanes) if fan_in is None else tuple(fan_in)
        self.weight = nn.Parameter(torch.empty(len(lanes), wide_out, wide_in))
        self.bias = nn.Parameter(torch.empty(len(lanes), wide_out)) if bias else None
        self.gradient = None

    def forward(self, values: Tensor) -> Tensor:
        """(n, B, wide_out) of (n, B, wide_in)."""
        product: Tensor = _Multiply.apply(values, self.weight, self.gradient)
        return product if self.bias is None else product + self.bias.unsqueeze(1)


class _Multiply(torch.autograd.Function):
    """x (n, B, in), W (n, out, in) -> x W^T (n, B, out)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, gradient: Tensor | None) -> Tensor:
        dtype = product_dtype(weight)
        values, cast = values.to(dtype), weight.to(dtype)
        ctx.save_for_backward(values, cast)
        ctx.gradient, ctx.dtype = gradient, weight.dtype
        return torch.bmm(values, cast.mT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        values, cast = ctx.saved_tensors
        out = ctx.gradient if ctx.gradient is not None else torch.empty_like(cast, dtype=ctx.dtype)
        if cast.dtype == out.dtype:
            torch.bmm(grad.mT, values, out=out)
        else:
            out.copy_(torch.bmm(grad.mT, values))
        return torch.bmm(grad, cast), out, None


class Vector(nn.Module):
    """A learned vector a lane; starts like the bias of a linear layer of that many inputs."""

    def __init__(self, lanes: Lanes, dim: int, fan_in: Sequence[int] | None = None) -> None:
        super().__init__()
        self.lanes = lanes
        self.fan_in = (dim,) * len(lanes) if fan_in is None else tuple(fan_in)
        self.weight = nn.Parameter(torch.empty(len(lanes), dim))

    def forward(self) -> Tensor:
        """(n, 1, dim), to be added to the values of all rows."""
        return self.weight.unsqueeze(1)


class Projection(nn.Module):
    """The first linear layer of a stream for all lanes: one matrix product a fold, for the batch is the same.

    With x (B, D) the rows of a fold and W (n, E, D) the weights of its lanes, x (W as (n E, D))^T is (B, n E). No bias:
    batch norm follows, which takes it away again.

    Folds see their rows through scalings of their own. To bring a scaling into the weights, W / scale, would cost every
    step a reading and a writing of n E D weights, and of as many gradients. To scale the rows costs F B D. At 25 heads,
    5 folds, B 64 and E 512 that is 1/40 of it. So each fold has its own (B, D) and its lanes stand side by side.

    Attributes:
        gradient: where the gradient of the weights is written, (n, E, D), or None for new memory each time. The memory
            is as large as the weights, and on the CPU to ask for it anew each step takes as long as the matrix product
            itself. Whoever sets it must be done with a gradient before the next backward pass.
    """

    gradient: Tensor | None

    def __init__(self, lanes: Lanes, dim: int, embed_dim: int) -> None:
        super().__init__()
        self.lanes = lanes
        self.fan_in = (dim,) * len(lanes)
        self.weight = nn.Parameter(torch.empty(len(lanes), embed_dim, dim))
        self.gradient = None

    def forward(self, features: Tensor) -> Tensor:
        """(n, B, E) of features (F, B, D)."""
        projected: Tensor = _Project.apply(features, self.weight, self.lanes.per_fold, self.gradient)
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
        for fold, lanes in _slices(per_fold):
            wide = weight[lanes].flatten(0, 1).to(dtype)
            torch.mm(features[fold], wide.T, out=out[:, lanes].flatten(1))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        (features,) = ctx.saved_tensors
        out = ctx.gradient if ctx.gradient is not None else features.new_empty(ctx.shape, dtype=ctx.dtype)
        for fold, lanes in _slices(ctx.per_fold):
            wide = grad[:, lanes].flatten(1).T
            if features.dtype == out.dtype:
                torch.mm(wide, features[fold], out=out[lanes].flatten(0, 1))
            else:
                out[lanes] = torch.mm(wide, features[fold]).view_as(out[lanes])
        return None, out, None, None


def _slices(per_fold: Sequence[int]) -> list[tuple[int, slice]]:
    """(fold, its lanes) of every fold that has some."""
    stops = [sum(per_fold[: fold + 1]) for fold in range(len(per_fold))]
    return [
        (fold, slice(stop - count, stop))
        for fold, (count, stop) in enumerate(zip(per_fold, stops, strict=True))
        if count
    ]


class StreamEmbedding(nn.Module):
    """One stream's features -> its embedding; a learned vector takes the place of a missing one.

    The vector starts at zero, which is the mean of all embeddings after batch norm.
    """

    def __init__(self, lanes: Lanes, dim: int, embed_dim: int) -> None:
        super().__init__()
        self.lanes = lanes
        self.linear = Projection(lanes, dim, embed_dim)
        self.norm = MaskedBatchNorm(lanes, embed_dim)
        self.missing = nn.Parameter(torch.zeros(len(lanes), embed_dim))

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """(n, B, E) of features (F, B, D) and valid (F, B) bool."""
        embedding: Tensor = self.norm(self.linear(features), self.lanes.of_folds(valid), self.missing)
        return embedding


class Embeddings(nn.Module):
    """The embedding of every stream, by name."""

    def __init__(self, lanes: Mapping[str, Lanes], dims: Mapping[str, int], embed_dim: int) -> None:
        super().__init__()
        self.streams = tuple(dims)
        for stream, dim in dims.items():
            self.add_module(key_of(stream), StreamEmbedding(lanes[stream], dim, embed_dim))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Stream -> (n, B, E), n the lanes that have it."""
        return {name: getattr(self, key_of(name))(batch.features[name], batch.valid[name]) for name in self.streams}


class Join(nn.Module):
    """A linear layer on the embeddings side by side, for heads with different streams.

    [W1 W2] [e1; e2] = W1 e1 + W2 e2: each stream adds its share to the lanes that have it. So a lane's layer is exactly
    that of the head with its streams alone, which also starts as one with that many inputs.
    """

    def __init__(self, everyone: Lanes, lanes: Mapping[str, Lanes], embed_dim: int, wide_out: int) -> None:
        super().__init__()
        self.lanes_of = dict(lanes)
        self.bias = Vector(everyone, wide_out, [embed_dim * len(lane.streams) for lane in everyone.group])
        for stream, own in lanes.items():
            fan_in = [embed_dim * len(lane.streams) for lane in own.group]
            self.add_module(key_of(stream), Linear(own, embed_dim, wide_out, bias=False, fan_in=fan_in))

    def forward(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """(K, B, wide_out) of stream -> (n, B, E)."""
        rows = next(iter(embeddings.values())).shape[1]
        total: Tensor = self.bias().expand(-1, rows, -1)
        for stream, own in self.lanes_of.items():
            total = own.add(total, getattr(self, key_of(stream))(embeddings[stream]))
        return total


class HiddenLayers(nn.Module):
    """ReLU, dropout, linear, as often as there are steps from one width to the next.

    Args:
        lanes: that have them.
        widths: of the values before the first ReLU, of the hidden layers, and of the result.
        place: name of these layers for the dropout.
    """

    def __init__(self, lanes: Lanes, widths: Sequence[int], place: str) -> None:
        super().__init__()
        self.dropout = nn.ModuleList(Dropout(lanes, [f"{place}.{index}"]) for index in range(len(widths) - 1))
        self.linear = nn.ModuleList(Linear(lanes, wide_in, wide_out) for wide_in, wide_out in pairwise(widths))

    def forward(self, values: Tensor, noise: Noise | None) -> Tensor:
        """(n, B, widths[-1]) of (n, B, widths[0])."""
        for dropout, linear in zip(self.dropout, self.linear, strict=True):
            values = linear(dropout(functional.relu(values), noise))
        return values
