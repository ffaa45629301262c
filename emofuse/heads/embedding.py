"""The embeddings of all streams: a linear map of the features and a batch norm, for K heads at once.

The L members of all streams are normalised together, by one operation instead of one for each stream. On the CPU they
are processed in chunks, which stay in the caches from the matrix product to the end of the norm. A GPU takes all
members at once.

The forward and backward pass are written by hand. Plain autograd (`masked_batch_norm` after `functional.linear`) costs
26 % more at the paper's widths (batch 64, 6 heads), 30 % and 32 % at embed_dim 64 (64 heads at batch 64, 32 heads at
batch 1024) and 41 % at the sizes of `pipelines/faces.yaml` (25 heads of five folds). Chunks save less: without them,
batches of 1024 rows cost 5 to 7 % more, which would take `benchmarks.heads` below 0.95, and batches of 64 rows at most
4 %. The figures are medians of process CPU time as in `emofuse.heads.layers`, on 2026-11-29.
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
"""The size of the values of a chunk on the CPU."""


class StreamEmbedding(nn.Module):
    """The parameters of one stream's embedding. Rows that lack the stream get a learned vector.

    The learned vector starts at zero, the mean of all embeddings after batch norm. If no training row lacks the stream,
    the vector gets no gradient and follows that mean, which is the bias of the norm (`follow_mean`).

    A stream that is not a vector first passes its stem. All members of a fold share the vectors of a stem without
    weights. Each member has different vectors after a stem with weights.
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

    def forward(self, vectors: Tensor, has_stream: Tensor) -> Tensor:
        """Embed vectors (n, B, D) that differ between members; `has_stream` is bool (n, B). Returns (n, B, E)."""
        projected = self.linear(vectors)
        with exact(projected.device):
            return masked_batch_norm(projected, has_stream, self.norm, self.missing, training=self.training)

    @torch.no_grad()
    def follow_mean(self, untrained: Tensor) -> None:
        """Set the vector of these members, bool (n,), to the mean embedding."""
        self.missing.copy_(torch.where(untrained.unsqueeze(1), self.norm.bias, self.missing))


class Embeddings(nn.Module):
    """The embeddings of all streams of a head."""

    def __init__(
        self,
        members_of: Mapping[str, Members],
        dims: Mapping[str, Shape],
        embed_dim: int,
        stems: StemChoice | None = None,
    ) -> None:
        super().__init__()
        self.streams = tuple(dims)
        for stream, shape in dims.items():
            embedding = StreamEmbedding(members_of[stream], stream, shape, embed_dim, stems or StemChoice())
            self.add_module(key_of(stream), embedding)
        self._masks: tuple[int, list[Tensor], Tensor] = (0, [], torch.empty(0))

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> dict[str, Tensor]:
        """Return the embedding (n, B, E) of each stream for the n members that have it.

        Rows are mixed if `batch.mix` says so. The embeddings share memory, so they must not be changed in place.
        """
        embeddings: dict[str, StreamEmbedding] = {stream: getattr(self, key_of(stream)) for stream in self.streams}
        vectors = {
            stream: batch.features[stream]
            if embedding.stem is None
            else embedding.stem(
                batch.features[stream],
                batch.steps.get(stream),
                noise,
                None if embedding.shared else batch.has_stream(stream, embedding.members),
            )
            for stream, embedding in embeddings.items()
        }
        # Features have a gradient in an analysis of what they contribute, and never in training.
        shared = [
            stream
            for stream, embedding in embeddings.items()
            if embedding.shared and not batch.features[stream].requires_grad
        ]
        embedded = self._embed_shared(shared, vectors, batch) if shared else {}
        for stream, embedding in embeddings.items():
            if stream not in embedded:
                embedded[stream] = embedding(vectors[stream], batch.has_stream(stream, embedding.members))
        return {stream: batch.mixed(embedded[stream], embedding.members) for stream, embedding in embeddings.items()}

    def _embed_shared(
        self, streams: Sequence[str], vectors: Mapping[str, Tensor], batch: HeadBatch
    ) -> dict[str, Tensor]:
        """Embed streams whose vectors (F, B, D) are the same for all members of a fold."""
        embeddings: list[StreamEmbedding] = [getattr(self, key_of(stream)) for stream in streams]
        dtype = embeddings[0].norm.weight.dtype
        if batch.seen:
            mask = RowMask.of(torch.cat([batch.seen[stream] for stream in streams]), None, dtype)
        else:
            valid = torch.stack([batch.valid[stream] for stream in streams])
            masks = self._masks_of([embedding.members.folds for embedding in embeddings], valid.shape[1])
            mask = RowMask.of(valid.flatten(0, 1), masks, dtype)
        embedded = _Embed.apply(
            embeddings,
            [vectors[stream] for stream in streams],
            mask,
            self.training,
            *[embedding.linear.weight for embedding in embeddings],
            *[embedding.norm.weight for embedding in embeddings],
            *[embedding.norm.bias for embedding in embeddings],
            *[embedding.missing for embedding in embeddings],
        )
        return dict(zip(streams, embedded, strict=True))

    def _masks_of(self, member_folds: list[Tensor], folds: int) -> Tensor:
        """Return the index of the mask (S x F, B) of each of the L members, which is kept until members leave."""
        known, before, masks = self._masks
        if known != folds or any(a is not b for a, b in zip(before, member_folds, strict=True)):
            masks = torch.cat([folds * stream + of_stream for stream, of_stream in enumerate(member_folds)])
            self._masks = (folds, member_folds, masks)
        return masks


@dataclass(frozen=True)
class _Piece:
    """Members of one stream and one fold.

    Attributes:
        stream: the index of the stream.
        fold: the index of the fold.
        in_stream: the slice of the members among those of the stream.
        in_all: the slice of the members among all L.
    """

    stream: int
    fold: int
    in_stream: slice
    in_all: slice


@dataclass(frozen=True)
class _Chunk:
    """Neighbouring members that are projected and normalised together."""

    pieces: Sequence[_Piece]

    @property
    def members(self) -> slice:
        """Return the slice of the members among all L."""
        return slice(self.pieces[0].in_all.start, self.pieces[-1].in_all.stop)

    def of_streams(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the part (members of the chunk, ...) of one tensor (n, ...) for each stream."""
        parts = []
        for stream, pieces in groupby(self.pieces, key=lambda piece: piece.stream):
            inside = [piece.in_stream for piece in pieces]
            parts.append(tensors[stream][inside[0].start : inside[-1].stop])
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _chunks(members_of: Sequence[Members], most: int | None) -> Iterator[_Chunk]:
    """Yield the members of all streams in chunks of up to `most` members, or in one chunk if None."""
    pieces: list[_Piece] = []
    size = first = 0
    for stream, members in enumerate(members_of):
        for fold, of_fold in slices(members.per_fold):
            start = of_fold.start
            while start < of_fold.stop:
                stop = of_fold.stop if most is None else min(of_fold.stop, start + most - size)
                pieces.append(_Piece(stream, fold, slice(start, stop), slice(first + start, first + stop)))
                size, start = size + stop - start, stop
                if size == most:
                    yield _Chunk(pieces)
                    pieces, size = [], 0
        first += len(members)
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
        embeddings: Sequence[StreamEmbedding],
        features: Sequence[Tensor],
        mask: RowMask,
        training: bool,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        weights, *of_norms = (
            parameters[first : first + len(embeddings)] for first in range(0, len(parameters), len(embeddings))
        )
        norms = [embedding.norm for embedding in embeddings]
        running = [norm.running_mean for norm in norms], [norm.running_var for norm in norms]
        state = NormState(*(torch.cat(list(parts)) for parts in (*of_norms, *running)))
        (members, wide), rows = state.weight.shape, features[0].shape[1]
        dtype = product_dtype(state.weight)
        features = [of_stream.to(dtype) for of_stream in features]
        values, out = state.weight.new_empty(rows, members, wide), state.weight.new_empty(members, rows, wide)
        chunks, normed = list(_chunks([embedding.members for embedding in embeddings], _most_members(values))), []
        for chunk in chunks:
            for piece in chunk.pieces:
                weight = weights[piece.stream][piece.in_stream].flatten(0, 1).to(dtype)
                _product(features[piece.stream][piece.fold], weight.T, values[:, piece.in_all].flatten(1))
            inside = chunk.members
            with exact(values.device):
                of_chunk = values[:, inside].transpose(0, 1)
                normed.append(
                    normalise(of_chunk, mask.slice(inside), state.slice(inside), out[inside], training=training)
                )
        statistics = Normed.joined(normed)
        if training:
            move_running_statistics(norms, statistics, mask, state)
        ctx.save_for_backward(values, state.weight, statistics.rstd, *features)
        ctx.embeddings, ctx.chunks, ctx.mask, ctx.training = embeddings, chunks, mask, training
        return torch.split(out, [len(embedding.members) for embedding in embeddings])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, gains, rstd, *features = ctx.saved_tensors
        slopes = [_gradient_of(embedding.linear) for embedding in ctx.embeddings]
        of_norms = []
        for chunk in ctx.chunks:
            inside = chunk.members
            of_chunk = values[:, inside]
            of_values = torch.empty(of_chunk.shape, dtype=values.dtype, device=values.device)
            of_norms.append(
                normalise_back(
                    chunk.of_streams(grads),
                    of_chunk.transpose(0, 1),
                    ctx.mask.slice(inside),
                    gains[inside],
                    rstd[inside],
                    out=of_values.transpose(0, 1),
                    training=ctx.training,
                )
            )
            for piece in chunk.pieces:
                rows = features[piece.stream][piece.fold]
                members = slice(piece.in_all.start - inside.start, piece.in_all.stop - inside.start)
                wide = of_values[:, members].flatten(1).T.to(rows.dtype)
                _product(wide, rows, slopes[piece.stream][piece.in_stream].flatten(0, 1))
        sizes = [len(embedding.members) for embedding in ctx.embeddings]
        joined = [torch.cat(parts) for parts in zip(*of_norms, strict=True)]
        return None, None, None, None, *slopes, *(part for whole in joined for part in torch.split(whole, sizes))


def _most_members(values: Tensor) -> int | None:
    """Return the number of members of a chunk of values (B, L, E), or None for all."""
    if values.device.type != "cpu":
        return None
    return max(1, CHUNK_BYTES // max(1, values.shape[0] * values.shape[2] * values.itemsize))


def _gradient_of(linear: Projection) -> Tensor:
    """Return the memory for the gradient of the weights."""
    return torch.empty_like(linear.weight) if linear.gradient is None else linear.gradient


def _product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write a matrix product to `out`, rounded to its type."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(torch.mm(left, right))
