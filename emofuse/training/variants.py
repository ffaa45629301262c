"""Give heads the streams of a cache, from memory, or block by block where they do not fit.

A *feature variant* is a stream as some heads see it: LBP with 128 bins and with 256 are two variants of the stream
`lbp`. Every stored stream is read once and every variant derived once, for any number of runs that see it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import SpecError
from emofuse.features import Choice, cached_streams, chosen_pca, chosen_variant, derive, derived_shape, fixed_columns
from emofuse.heads.members import variant_of
from emofuse.progress import step
from emofuse.scaling import Scaling, feature_axis, vectors_of, with_projections
from emofuse.specs import FeaturesSpec
from emofuse.specs.runs import variant_problems
from emofuse.status import Status, Step
from emofuse.training.streaming import Blocks, Window, widest_window

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

_ITEM_BYTES = np.dtype(np.float32).itemsize


@dataclass(frozen=True)
class FeatureVariant:
    """One stream as some heads see it.

    Attributes:
        stream: the name of the stream in the cache.
        kind: the kind of the stream's spec.
        choice: the choice among the variants of its kind; () for kinds that are seen as stored.
        shape: the shape of a row: (D,) of a vector, (T, D), (C, H, W) or (T, C, H, W).
        is_sequence: whether the first axis of a row is time.
        pca: the share of the variance, or the number of principal components, that heads see of it; None for all
            features. `shape` is that before the projection, which is fitted on the training rows of each fold.
    """

    stream: str
    kind: str
    choice: Choice
    shape: tuple[int, ...]
    is_sequence: bool = False
    pca: float | int | None = None

    @property
    def plain(self) -> FeatureVariant:
        """The same variant before its projection, as it is read."""
        return self if self.pca is None else replace(self, pca=None)

    @property
    def dim(self) -> int:
        """The number of values of a row, D of a vector."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """The name within a group of heads: `resnet50`, `lbp@128`, `resnet50@pca0.95`."""
        components = () if self.pca is None else (f"pca{self.pca}",)
        chosen = (*(value for _, value in self.choice), *components)
        return variant_of(self.stream, *chosen) if chosen else self.stream


_HeldKey = FeatureVariant | tuple[FeatureVariant, int] | str
"""The key of an array in memory: a variant, a variant and its number of views, or the name of a stream as stored."""


class CachedFeatures:
    """The features of a cache in all their variants.

    Args:
        cache: the cache, of which only the streams are kept and no label.
        held_bytes: the bytes of features that stay in memory; those least recently used are dropped first.
    """

    def __init__(self, cache: Cache, held_bytes: int) -> None:
        self.rows = len(cache)
        self._layout = cache.layout
        self._where = cache.path
        self._streams = dict(cache.streams)
        self._held_bytes = held_bytes
        self._held: OrderedDict[_HeldKey, npt.NDArray[Any]] = OrderedDict()
        self._status: dict[str, npt.NDArray[np.uint8]] = {}
        self._unreadable: dict[frozenset[str], npt.NDArray[np.bool_]] = {}
        self._steps: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}

    def of(self, spec: FeaturesSpec) -> tuple[FeatureVariant, ...]:
        """Return the variants that a run sees, in the order of its streams.

        Raises:
            SpecError: streams that are not in the cache, or variants that they do not have.
        """
        streams = cached_streams(self._streams, spec.streams, self._where)
        problems = variant_problems(spec, {name: stream.kind for name, stream in streams.items()})
        if problems:
            raise SpecError(str(self._where), problems)
        variants = []
        for name, stream in streams.items():
            choice = chosen_variant(stream.kind, name, spec)
            shape = derived_shape(stream.kind, stream.shape, choice)
            pca = chosen_pca(name, spec)
            width = shape[feature_axis(shape)]
            if isinstance(pca, int) and pca > width:
                problems.append(f"features.streams.{name}.pca: {pca} components of {width} features; ask for fewer")
            variants.append(FeatureVariant(name, stream.kind, choice, shape, stream.is_sequence, pca))
        if problems:
            raise SpecError(str(self._where), problems)
        return tuple(variants)

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of all streams of the cache."""
        return tuple(self._streams)

    def whole_streams(self, kind: str) -> list[str]:
        """Return the names of the complete streams of this kind."""
        streams = self._streams.items()
        return [name for name, stream in streams if stream.kind == kind and stream.counts()["pending"] == 0]

    def spans(self, rows: int) -> Iterator[slice]:
        """Yield spans of about `rows` rows until all rows are covered; each span consists of whole blocks."""
        step = max(1, rows // self._layout.block_rows) * self._layout.block_rows
        for start in range(0, self.rows, step):
            yield slice(start, min(start + step, self.rows))

    def digest(self, variant: FeatureVariant) -> str:
        """Return the digest of the stored stream."""
        return self._streams[variant.stream].digest

    def status(self, variant: FeatureVariant) -> npt.NDArray[np.uint8]:
        """Return (N,) uint8 of `Status`.

        Raises:
            IncompleteCacheError: blocks of the stream have not been computed yet.
        """
        if variant.stream not in self._status:
            stream = self._streams[variant.stream]
            stream.check_complete()
            self._status[variant.stream] = stream.status[:, 0]
        return self._status[variant.stream]

    def valid(self, variant: FeatureVariant) -> npt.NDArray[np.bool_]:
        """Return (N,) bool, whether the row has the stream."""
        valid: npt.NDArray[np.bool_] = self.status(variant) == Status.OK
        return valid

    def steps(self, variant: FeatureVariant, views: int = 1) -> npt.NDArray[np.bool_] | None:
        """Return (V x N, T) bool of a sequence, view after view, whether the step is there; None for other streams.

        Raises:
            IncompleteCacheError: blocks of a view have not been computed yet.
            CacheError: a chunk is damaged.
        """
        if not variant.is_sequence:
            return None
        key = (variant.stream, views)
        if key not in self._steps:
            masks = [self._streams[variant.stream].read_mask(view) for view in range(views)]
            self._steps[key] = np.concatenate([mask for mask in masks if mask is not None]) == Step.OK
        return self._steps[key]

    def unreadable(self, names: Iterable[str]) -> npt.NDArray[np.bool_]:
        """Return (N,) bool, the rows whose picture none of these streams could read.

        A picture without a face, or one that a stream failed on, is readable. Imported streams have no pictures, and no
        row is unreadable if all streams are imported.
        """
        from_pictures = frozenset(name for name in names if not self._streams[name].layout.is_imported)
        if from_pictures not in self._unreadable:
            unreadable = np.full(self.rows, bool(from_pictures))
            for name in from_pictures:
                unreadable &= self._streams[name].status[:, 0] == Status.UNREADABLE
            self._unreadable[from_pictures] = unreadable
        return self._unreadable[from_pictures]

    def augment(self, variant: FeatureVariant) -> Mapping[str, Any] | None:
        """Return how the augmented views of the stored stream were drawn, plain JSON; None without views."""
        return self._streams[variant.stream].layout.augment

    def nbytes(self, variants: Sequence[FeatureVariant], views: int = 1) -> int:
        """Return the bytes of these variants in memory, as they are before projections."""
        read = dict.fromkeys(variant.plain for variant in variants)
        return views * self.rows * sum(variant.dim for variant in read) * _ITEM_BYTES

    def window(self, memory_bytes: int) -> Window:
        """Return how far rows are shuffled when they are streamed: as far as all streams of the cache together allow.

        Args:
            memory_bytes: the memory for the windows and for the block that is being read.

        Raises:
            TrainingError: the memory does not hold a window of one block.
        """
        dims, block_rows = [stream.dim for stream in self._streams.values()], self._layout.block_rows
        reading = 2 * block_rows * max(dims) * _ITEM_BYTES  # as stored and as derived
        return widest_window(block_rows, sum(dims), memory_bytes, _ITEM_BYTES, reading)

    def every_view(self, variant: FeatureVariant, views: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the first `views` views, one after the other: features (V x N, *shape) float32, valid (V x N,).

        Raises:
            IncompleteCacheError: blocks of a view have not been computed yet.
            CacheError: a chunk is damaged.
        """
        variant = variant.plain
        if views == 1:
            return self.whole(variant), self.valid(variant)
        stream, key = self._streams[variant.stream], (variant, views)
        stream.check_complete(views)
        if key not in self._held:
            stored = (stream.read(view, np.float32)[0] for view in range(views))
            with step(f"reading features of {variant.stream}"):
                self._keep(key, np.concatenate([derive(variant.kind, of_view, variant.choice) for of_view in stored]))
        self._held.move_to_end(key)
        return self._held[key], stream.status[:, :views].T.ravel() == Status.OK

    def whole(self, variant: FeatureVariant) -> npt.NDArray[np.float32]:
        """Return (N, *shape) float32, zeros where the row does not have the stream.

        Raises:
            IncompleteCacheError: blocks of the stream have not been computed yet.
            CacheError: a chunk is damaged.
        """
        variant = variant.plain
        if variant in self._held:
            self._held.move_to_end(variant)
            return self._held[variant]
        return self._keep(variant, derive(variant.kind, self._stored(variant), variant.choice))

    def block(self, variant: FeatureVariant, block: int) -> npt.NDArray[np.float32]:
        """Return the rows of one block, (n, *shape) float32.

        Raises:
            CacheError: the chunk is damaged.
        """
        variant = variant.plain
        if variant in self._held:
            return self._held[variant][self._layout.block_slice(block)]
        return derive(variant.kind, self._streams[variant.stream].read_block(block, 0, np.float32), variant.choice)

    def blocks(self, variants: Sequence[FeatureVariant]) -> Blocks:
        """Return these variants block by block, by their names, and free the memory of held features for the windows.

        Raises:
            IncompleteCacheError: blocks of a stream have not been computed yet.
        """
        self._held.clear()
        named = {variant.name: variant for variant in variants}
        for variant in variants:
            self.status(variant)
        return Blocks(
            read=lambda name, block: self.block(named[name], block),
            block_rows=self._layout.block_rows,
            dims={name: variant.shape for name, variant in named.items()},
        )

    def take(self, variant: FeatureVariant, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (n, *shape) float32 of these rows, which are ascending."""
        variant = variant.plain
        if variant in self._held:
            return self._held[variant][rows]
        of_rows = rows // self._layout.block_rows
        parts = [
            self.block(variant, block)[rows[of_rows == block] - self._layout.block_slice(block).start]
            for block in np.unique(of_rows).tolist()
        ]
        return np.concatenate(parts) if parts else np.empty((0, *variant.shape), np.float32)

    def fit(self, variant: FeatureVariant, sets: Sequence[npt.NDArray[np.int64]], *, robust: bool) -> list[Scaling]:
        """Fit the scaling of a variant on each of these sets of rows, with the same bits from memory and from blocks.

        Args:
            variant: the variant.
            sets: each (n,) int64, the training rows of a fold that have the stream.
            robust: whether to take median and MAD in place of mean and deviation; the whole variant must fit the
                memory.
        """
        self.status(variant)
        steps = self.steps(variant)
        if not robust:
            return Scaling.fit_many(lambda: self._pass(variant), sets, fixed_columns(variant.kind), steps=steps)
        features = self.take(variant, np.arange(self.rows))
        return [Scaling.fit(features, rows, steps=steps, robust=True) for rows in sets]

    def project(
        self, variant: FeatureVariant, scalings: Sequence[Scaling], sets: Sequence[npt.NDArray[np.int64]]
    ) -> list[Scaling]:
        """Return the scalings with the principal components of each of these sets of rows, for a variant with `pca`.

        Args:
            variant: the variant.
            scalings: the scaling of each set.
            sets: each (n,) int64, the training rows of a fold that have the stream.

        Raises:
            TrainingError: see `emofuse.scaling.projection.fit_projections`.
        """
        if variant.pca is None:
            return list(scalings)
        steps = self.steps(variant)
        return with_projections(
            variant.stream,
            scalings,
            lambda: self._pass(variant, "principal components of"),
            sets,
            wanted=variant.pca,
            shape=variant.shape,
            steps=steps,
        )

    def mean(self, variant: FeatureVariant, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the mean vector (D,) of these rows, over the steps that are there."""
        steps = self.steps(variant)
        vectors = vectors_of(self.take(variant, rows), None if steps is None else steps[rows])
        mean: npt.NDArray[np.float64] = vectors.mean(axis=0, dtype=np.float64)
        return mean

    def _pass(
        self, variant: FeatureVariant, what: str = "standardising"
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the first row and the features of one block after another."""
        total = self._layout.blocks
        with step(f"{what} {variant.stream}", total, "blocks") as advance:
            for block in range(total):
                yield self._layout.block_slice(block).start, self.block(variant, block)
                advance(block + 1, total)

    def _stored(self, variant: FeatureVariant) -> npt.NDArray[Any]:
        """Read (N, *shape) of a stream. Kinds with variants are narrow, so they stay in memory and are read once."""
        if variant.stream in self._held:
            return self._held[variant.stream]
        self.status(variant)
        with step(f"reading features of {variant.stream}"):
            stored, _ = self._streams[variant.stream].read(0, np.float32)
        return stored if not variant.choice else self._keep(variant.stream, stored)

    def _keep(self, key: _HeldKey, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self._held[key] = array
        while len(self._held) > 1 and sum(held.nbytes for held in self._held.values()) > self._held_bytes:
            self._held.popitem(last=False)
        return array
