"""The embedding of every stream: a linear map of its features and a batch norm, for K heads at once.

The members of all streams stand side by side, L of them, and are normalised together: one operation where there would
be one a stream. On the CPU they are cut into chunks that stay in the caches from the matrix product to the end of the
norm, which goes through them several times; a GPU takes them in one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.layers import Projection, exact, product_dtype, slices
from emofuse.heads.members import HeadBatch, Members, key_of
from emofuse.heads.norm import (
    MaskedBatchNorm,
    Normed,
    NormState,
    RowMask,
    masked_batch_norm,
    move_running_statistics,
    normalise,
    normalise_back,
)
from emofuse.heads.stems import Shape, Stem, StemChoice, dim_of, make_stem
from emofuse.heads.stems.layers import MemberLinear

CHUNK_BYTES = 4 << 20
"""Of the values of a chunk on the CPU."""


class StreamEmbedding(nn.Module):
    """What one stream's embedding has learned. A learned vector takes the place of a missing stream.

    The vector starts at zero, the mean of all embeddings after batch norm. If no training row lacks the stream, nothing
    trains it: it follows that mean, which is the norm's bias (`follow_mean`).

    A stream that is no vector passes its stem first. One without weights gives vectors that all members of a fold
    share, as a stream of vectors does; behind one with weights each member has vectors of its own.
    """

    def __init__(self, members: Members, stream: str, shape: Shape, embed_dim: int, stems: StemChoice) -> None:
        super().__init__()
        self.members = members
        self.stem: Stem | None = make_stem(members, stream, shape, stems)
        self.shared = self.stem is None or self.stem.shared
        dim = dim_of(shape) if self.stem is None else self.stem.dim
        self.linear = (
            Projection(members, dim, embed_dim)
            if self.shared
            else MemberLinear(members, dim, embed_dim, shared=False, bias=False)
        )
        self.norm = MaskedBatchNorm(members, embed_dim)
        self.missing = nn.Parameter(torch.zeros(len(members), embed_dim))

    def forward(self, vectors: Tensor, valid: Tensor) -> Tensor:
        """(n, B, E) of a stem's vectors (n, B, D) and valid (F, B) bool, where each member has vectors of its own."""
        projected = self.linear(vectors)
        mine = self.members.of_folds(valid)
        with exact(projected.device):
            return masked_batch_norm(projected, mine, self.norm, self.missing, training=self.training)

    @torch.no_grad()
    def follow_mean(self, untrained: Tensor) -> None:
        """Sets the vector of these members, (n,) bool, to the mean of the embeddings that it stands for."""
        self.missing.copy_(torch.where(untrained.unsqueeze(1), self.norm.bias, self.missing))


class Embeddings(nn.Module):
    """The embedding of every stream, by name."""

    def __init__(
        self, members: Mapping[str, Members], dims: Mapping[str, Shape], embed_dim: int, stems: StemChoice | None = None
    ) -> None:
        super().__init__()
        self.streams = tuple(dims)
        for stream, shape in dims.items():
            embedding = StreamEmbedding(members[stream], stream, shape, embed_dim, stems or StemChoice())
            self.add_module(key_of(stream), embedding)
        self._masks: tuple[int, list[Tensor], Tensor] = (0, [], torch.empty(0))

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> dict[str, Tensor]:
        """Stream -> (n, B, E), n the members that have it. They share memory: nothing may change them in place."""
        every: dict[str, StreamEmbedding] = {stream: getattr(self, key_of(stream)) for stream in self.streams}
        vectors = {
            stream: batch.features[stream]
            if embedding.stem is None
            else embedding.stem(batch.features[stream], batch.steps.get(stream), noise)
            for stream, embedding in every.items()
        }
        shared = [stream for stream, embedding in every.items() if embedding.shared]
        embedded = self._embed_shared(shared, vectors, batch.valid) if shared else {}
        return {
            stream: embedded[stream] if embedding.shared else embedding(vectors[stream], batch.valid[stream])
            for stream, embedding in every.items()
        }

    def _embed_shared(
        self, streams: Sequence[str], vectors: Mapping[str, Tensor], valid_of: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The embeddings of streams whose vectors (F, B, D) are the same for all members of a fold."""
        own: list[StreamEmbedding] = [getattr(self, key_of(stream)) for stream in streams]
        valid = torch.stack([valid_of[stream] for stream in streams])
        masks = self._masks_of([embedding.members.folds for embedding in own], valid.shape[1])
        mask = RowMask.of(valid.flatten(0, 1), masks, own[0].norm.weight.dtype)
        embedded = _Embed.apply(
            own,
            [vectors[stream] for stream in streams],
            mask,
            self.training,
            *[embedding.linear.weight for embedding in own],
            *[embedding.norm.weight for embedding in own],
            *[embedding.norm.bias for embedding in own],
            *[embedding.missing for embedding in own],
        )
        return dict(zip(streams, embedded, strict=True))

    def _masks_of(self, member_folds: list[Tensor], folds: int) -> Tensor:
        """(L,) which of the masks (S x F, B) each member has; the same in every step until members leave."""
        known, before, masks = self._masks
        if known != folds or any(a is not b for a, b in zip(before, member_folds, strict=True)):
            masks = torch.cat([folds * index + own for index, own in enumerate(member_folds)])
            self._masks = (folds, member_folds, masks)
        return masks


@dataclass(frozen=True)
class _Piece:
    """Members of one stream and one fold.

    Attributes:
        stream: index.
        fold: index.
        own: where the members stand among the stream's.
        all: where they stand among all L.
    """

    stream: int
    fold: int
    own: slice
    all: slice


@dataclass(frozen=True)
class _Chunk:
    """Neighbouring members: those that are projected and normalised at a time."""

    pieces: Sequence[_Piece]

    @property
    def members(self) -> slice:
        """Where they stand among all L."""
        return slice(self.pieces[0].all.start, self.pieces[-1].all.stop)

    def of_streams(self, tensors: Sequence[Tensor]) -> Tensor:
        """(members of the chunk, ...) of a tensor (n, ...) for each stream."""
        parts = []
        for stream, pieces in groupby(self.pieces, key=lambda piece: piece.stream):
            own = [piece.own for piece in pieces]
            parts.append(tensors[stream][own[0].start : own[-1].stop])
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _chunks(members: Sequence[Members], most: int | None) -> Iterator[_Chunk]:
    """All members in chunks of up to `most`, or in one if None."""
    pieces: list[_Piece] = []
    held = first = 0
    for stream, own in enumerate(members):
        for fold, inside in slices(own.per_fold):
            start = inside.start
            while start < inside.stop:
                stop = inside.stop if most is None else min(inside.stop, start + most - held)
                pieces.append(_Piece(stream, fold, slice(start, stop), slice(first + start, first + stop)))
                held, start = held + stop - start, stop
                if held == most:
                    yield _Chunk(pieces)
                    pieces, held = [], 0
        first += len(own)
    if pieces:
        yield _Chunk(pieces)


class _Embed(torch.autograd.Function):
    """x (F, B, D), W (n, E, D) and the parameters of a norm, of every stream -> its embedding (n, B, E).

    With x (B, D) the rows of a fold and W (n, E, D) the weights of its members, x (W as (n E, D))^T is (B, n E): one
    matrix product for all of them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        own: Sequence[StreamEmbedding],
        features: Sequence[Tensor],
        mask: RowMask,
        training: bool,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        weights, *of_norms = (parameters[first : first + len(own)] for first in range(0, len(parameters), len(own)))
        norms = [embedding.norm for embedding in own]
        running = [norm.running_mean for norm in norms], [norm.running_var for norm in norms]
        state = NormState(*(torch.cat(list(parts)) for parts in (*of_norms, *running)))
        (members, wide), rows = state.weight.shape, features[0].shape[1]
        dtype = product_dtype(state.weight)
        features = [of_stream.to(dtype) for of_stream in features]
        values, out = state.weight.new_empty(rows, members, wide), state.weight.new_empty(members, rows, wide)
        chunks, normed = list(_chunks([embedding.members for embedding in own], _most_members(values))), []
        for chunk in chunks:
            for piece in chunk.pieces:
                weight = weights[piece.stream][piece.own].flatten(0, 1).to(dtype)
                _product(features[piece.stream][piece.fold], weight.T, values[:, piece.all].flatten(1))
            inside = chunk.members
            with exact(values.device):
                own_values = values[:, inside].transpose(0, 1)
                normed.append(
                    normalise(own_values, mask.slice(inside), state.slice(inside), out[inside], training=training)
                )
        found = Normed.joined(normed)
        if training:
            move_running_statistics(norms, found, mask, state)
        ctx.save_for_backward(values, state.weight, found.rstd, *features)
        ctx.own, ctx.chunks, ctx.mask, ctx.training = own, chunks, mask, training
        return torch.split(out, [len(embedding.members) for embedding in own])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, gains, rstd, *features = ctx.saved_tensors
        slopes = [_gradient_of(embedding.linear) for embedding in ctx.own]
        of_norms = []
        for chunk in ctx.chunks:
            inside = chunk.members
            own_values = values[:, inside]
            of_values = torch.empty(own_values.shape, dtype=values.dtype, device=values.device)
            of_norms.append(
                normalise_back(
                    chunk.of_streams(grads),
                    own_values.transpose(0, 1),
                    ctx.mask.slice(inside),
                    gains[inside],
                    rstd[inside],
                    out=of_values.transpose(0, 1),
                    training=ctx.training,
                )
            )
            for piece in chunk.pieces:
                rows = features[piece.stream][piece.fold]
                members = slice(piece.all.start - inside.start, piece.all.stop - inside.start)
                wide = of_values[:, members].flatten(1).T.to(rows.dtype)
                _product(wide, rows, slopes[piece.stream][piece.own].flatten(0, 1))
        sizes = [len(embedding.members) for embedding in ctx.own]
        joined = [torch.cat(parts) for parts in zip(*of_norms, strict=True)]
        return None, None, None, None, *slopes, *(part for whole in joined for part in torch.split(whole, sizes))


def _most_members(values: Tensor) -> int | None:
    """Members of a chunk of values (B, L, E); None for all."""
    if values.device.type != "cpu":
        return None
    return max(1, CHUNK_BYTES // max(1, values.shape[0] * values.shape[2] * values.itemsize))


def _gradient_of(linear: Projection) -> Tensor:
    """Where the gradient of the weights goes."""
    return torch.empty_like(linear.weight) if linear.gradient is None else linear.gradient


def _product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Writes a matrix product, rounded to the type of where it goes."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(torch.mm(left, right))
