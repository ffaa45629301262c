"""Show a cache, a split and a target to the code that chooses: of targets, only those of training and validation rows.

The data is built once for any number of runs. Each run sees its variants and folds of it; what runs share is read,
scaled and hashed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch

from emofuse.datasets.split_needs import USES, is_drawn, keeps_groups
from emofuse.errors import TrainingError
from emofuse.features import ACTION_UNITS, LEAST_NEUTRAL_ROWS, neutral_rows
from emofuse.heads.members import variant_of
from emofuse.machine.devices import resolve_device
from emofuse.scaling import LEAST_ROWS, Scaling, check_finite, feature_axis, shape_after
from emofuse.specs import FoldSpec, RunSpec, SplitSpec, TargetSpec, digest
from emofuse.training.folds import FoldRows, check_fold, check_readable, cross_validation
from emofuse.training.identity import run_digest
from emofuse.training.machine import default_memory_bytes
from emofuse.training.members import FeatureTable, Fold, Member, ProjectedStream
from emofuse.training.refits import RefitRun
from emofuse.training.rows import only_rows, rows_digest, run_splits, targets_of
from emofuse.training.streaming import Window
from emofuse.training.targets import THE_LABEL, WITH_CLASSES
from emofuse.training.variants import CachedFeatures, FeatureVariant

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

Partition = tuple[FoldSpec | None, str, bool]
"""The cross-validation, None for the plain split; SHA-256 of the rows that are left out, "" for none; whether the
validation rows train too."""
FEATURES_SHARE = 0.5
"""The share of the memory for features: a run whose features need more is streamed."""


@dataclass(frozen=True)
class _WidthOfVariant:
    """A projected variant and its number of components."""

    variant: FeatureVariant
    width: int


class TrainingData:
    """The part of a cache that training runs of one split and one target may see.

    Attributes:
        split: the split of all its runs.
        target: what all its runs learn.
        weight_column: the column of the weights of rows; None for equal weights.
        classes: the names of the C outputs in index order: of the classes, columns or labels.
        splits: (N,) str: train, val, test; "" for rows in no split.
        labels: (N,) int64, -1 in all rows except those of train and val that have a target. It is the class or the
            majority; 0 for a regression and for several labels.
        values: (N, C) float32, the targets that are no class, NaN in rows whose label is -1; None for classes.
        weights: (N,) float32, 0 in rows whose label is -1; None for equal weights.
        class_labels: (N,) int64, the label of each row by which neutral faces are found: `labels`, or that of the
            manifest where the target has no classes; -1 outside train and val.
        class_names: the names of these labels.
        groups: (N,) str, "" in all rows except those of `labels` that have a group.
        features: the features of the cache.
        memory_bytes: the memory that training may use in all.
    """

    def __init__(
        self,
        cache: Cache,
        split: SplitSpec,
        memory_bytes: int,
        *,
        target: TargetSpec,
        weight_column: str | None,
        features: CachedFeatures | None,
    ) -> None:
        self.split, self.target, self.weight_column = split, target, weight_column
        targets = targets_of(cache, target, weight_column)
        self.classes = targets.names
        self.splits = run_splits(cache, split, targets)
        self._is_drawn = is_drawn(split, cache.manifest.info)
        self._keeps_groups = keeps_groups(split, cache.manifest.info)
        chosen_from = (self.splits == "train") | (self.splits == "val")
        seen = only_rows(targets, chosen_from)
        self.labels, self.values, self.weights, self._strata = seen.labels, seen.values, seen.weights, seen.strata
        self.groups: npt.NDArray[np.str_] = np.where(self.labels >= 0, cache.groups, "")
        self.class_labels = self.labels if target.kind in WITH_CLASSES else np.where(chosen_from, cache.labels, -1)
        self.class_names = self.classes if target.kind in WITH_CLASSES else tuple(cache.classes)
        self.memory_bytes = memory_bytes
        self.features = features or CachedFeatures(cache, int(FEATURES_SHARE * memory_bytes))
        self._rows_digest = rows_digest(cache, self.splits, seen)
        self._groups_digest = digest(self.groups.tolist()) if (self.groups != "").any() else None
        self._folds: dict[Partition, list[FoldRows]] = {}
        self._scaling: dict[tuple[Partition, int, FeatureVariant, str | None], Scaling] = {}

    @classmethod
    def of(
        cls,
        cache: Cache,
        split: SplitSpec,
        *,
        target: TargetSpec = THE_LABEL,
        weight_column: str | None = None,
        memory_bytes: int | None = None,
        features: CachedFeatures | None = None,
    ) -> Self:
        """Read targets and ids. Features are read when they are needed.

        Args:
            cache: the cache.
            split: the split of the runs.
            target: what the runs learn.
            weight_column: the column of the weights of rows; None for equal weights.
            memory_bytes: the memory that training may use; by default a share of what the device `auto` has.
            features: those of the same cache and memory, to share what has been read with another split.

        Raises:
            SpecError: a column that the manifest does not have.
            DatasetError: a column whose values are not what the target needs.
        """
        memory_bytes = memory_bytes or default_memory_bytes(torch.device(resolve_device("auto")))
        return cls(cache, split, memory_bytes, target=target, weight_column=weight_column, features=features)

    @classmethod
    def of_run(
        cls, cache: Cache, spec: RunSpec, *, memory_bytes: int | None = None, features: CachedFeatures | None = None
    ) -> Self:
        """Read targets and ids of a run, see `of`."""
        return cls.of(
            cache,
            spec.split,
            target=spec.target,
            weight_column=spec.weight_column,
            memory_bytes=memory_bytes,
            features=features,
        )

    def digest(self, spec: RunSpec, *, rows: str | None = None) -> str:
        """Return the identity of a run, see `emofuse.training.identity`. The rows are hashed only once.

        Args:
            spec: the run.
            rows: the digest of the rows; by default that of the rows as they are seen here, with test targets masked.

        Raises:
            SpecError: a stream that is not in the cache.
        """
        return run_digest(self, spec, rows or self._rows_digest, self._groups_digest, keeps_groups=self._keeps_groups)

    def unreadable(self, spec: RunSpec) -> npt.NDArray[np.bool_]:
        """Return (N,) bool, the rows that a run leaves out because none of its streams could read their picture.

        They neither train nor choose nor are scored: a head would learn which label has the broken files.

        Raises:
            SpecError: a stream that is not in the cache.
        """
        return self.features.unreadable(variant.stream for variant in self.features.of(spec.features))

    def partition(self, spec: RunSpec) -> Partition:
        """Return what decides the folds of a run: runs with equal partitions see the same rows."""
        unreadable = self.unreadable(spec)
        key = spec.fold.partition if spec.fold else None
        left_out = hashlib.sha256(np.packbits(unreadable).tobytes()).hexdigest() if unreadable.any() else ""
        return key, left_out, isinstance(spec, RefitRun)

    def window(self, spec: RunSpec) -> Window | None:
        """Return how far the rows of a run are shuffled if its features exceed the memory; None if they fit.

        It depends on the run, the cache and the memory alone, not on the runs that train beside it.

        Raises:
            SpecError: a stream that is not in the cache.
            TrainingError: the memory is too small for a window of one block, or for all views.
        """
        share = int(FEATURES_SHARE * self.memory_bytes)
        needed = self.features.nbytes(self.features.of(spec.features), spec.train.views)
        if needed > share and spec.train.views > 1:
            raise TrainingError(
                f"{spec.train.views} views of run {spec.name!r} take {needed / 1e9:.3g} GB and are not streamed, there "
                f"are {share / 1e9:.3g} GB for features. Give more memory, or take fewer views or streams"
            )
        return None if needed <= share else self.features.window(share)

    def check_splits(self, lacking: Mapping[str, str], labelled: Mapping[str, int]) -> None:
        """Raise if a split has no labelled row with a readable picture.

        Args:
            lacking: split without such rows -> the purpose that it is needed for.
            labelled: split -> the number of its labelled rows, none of which can be read.

        Raises:
            TrainingError: with all such splits and what to do.
        """
        check_readable(lacking, labelled, set(self.splits.tolist()) - set(lacking), is_drawn=self._is_drawn)

    def member(self, spec: RunSpec) -> Member:
        """Return a run as the engine knows it.

        Raises:
            SpecError: a stream that is not in the cache.
        """
        names = tuple(self.name_in_group(spec, variant) for variant in self.features.of(spec.features))
        last_epoch = spec.last_epoch if isinstance(spec, RefitRun) else None
        return Member(names, spec.head, spec.train, spec.fold.index if spec.fold else 0, last_epoch)

    def name_in_group(self, spec: RunSpec, variant: FeatureVariant) -> str:
        """Return the name of a run's variant in a group of heads.

        Where folds keep other numbers of components, the number is part of the name, so that heads of any folds train
        in one group.
        """
        if variant.pca is None or isinstance(variant.pca, int):
            return variant.name
        return variant_of(variant.name, self._width(spec, variant))

    def head_shapes(self, spec: RunSpec) -> dict[str, tuple[int, ...]]:
        """Return stream -> the shape of a row as the run's head sees it. A share of the variance is fitted for it."""
        shapes = {}
        for variant in self.features.of(spec.features):
            shape = variant.shape
            if variant.pca is not None:
                shape = shape_after(shape, feature_axis(shape), self._width(spec, variant))
            shapes[variant.stream] = shape
        return shapes

    def _width(self, spec: RunSpec, variant: FeatureVariant) -> int:
        """Return the number of components of a projected variant in a run."""
        if isinstance(variant.pca, int):
            return variant.pca
        (scaling,) = self._fitted(spec, [spec.fold.index if spec.fold else 0], variant)
        return 0 if scaling.projection is None else scaling.projection.width

    def folds(self, spec: RunSpec) -> list[FoldRows]:
        """Return all folds of a run's cross-validation, or the split itself as the only fold.

        Raises:
            TrainingError: another split or target, no row to train on or to choose by, or training rows of one label.
        """
        for name in ("split", "target", "weight_column"):
            if getattr(spec, name) != getattr(self, name):
                raise TrainingError(
                    f"run {spec.name!r} has {name} {getattr(spec, name)!r}, these rows have {getattr(self, name)!r}"
                )
        key = self.partition(spec)
        if key not in self._folds:
            usable = (self.labels >= 0) & ~self.unreadable(spec)
            if spec.fold is None:
                self._folds[key] = self._plain_split(usable)
            else:
                self._folds[key] = cross_validation(usable, spec.fold, self.labels, self._strata, self.groups)
            if isinstance(spec, RefitRun):
                self._folds[key] = [FoldRows(fold.all_rows, fold.val) for fold in self._folds[key]]
            for fold in self._folds[key]:
                check_fold(fold, self.target, self.classes, self.labels, self.values)
        if spec.fold and spec.fold.index >= len(self._folds[key]):
            raise TrainingError(
                f"run {spec.name!r}: fold.index must be below the number of groups, got {spec.fold.index} of "
                f"{len(self._folds[key])}"
            )
        return self._folds[key]

    def scaled_folds(self, specs: Sequence[RunSpec]) -> list[Fold]:
        """Return the folds that runs share, with the scaling of all their variants for the folds that a run uses.

        Every scaling is fitted once, on the training rows of its fold alone.

        Args:
            specs: runs with equal folds (except for the index) and equal neutral label.

        Raises:
            TrainingError: features that cannot be standardised.
        """
        rows = self.folds(specs[0])
        used = sorted({spec.fold.index if spec.fold else 0 for spec in specs})
        scaling: dict[int, dict[str, Scaling]] = {index: {} for index in used}
        for variant in self.all_variants(specs):
            for index, fitted in zip(used, self._fitted(specs[0], used, variant), strict=True):
                scaling[index][variant.name] = fitted
        for name, stream in self._projected(specs).items():
            for of_fold in scaling.values():
                fitted = of_fold[stream.variant.name]
                if fitted.projection is None or fitted.projection.width != stream.width:  # no run of the fold sees it
                    fitted = replace(fitted, fitted=False, projection=None)
                of_fold[name] = fitted
        return [Fold(fold.train, fold.val, scaling.get(index, {})) for index, fold in enumerate(rows)]

    def scaling(self, spec: RunSpec) -> dict[str, Scaling]:
        """Return stream -> its scaling in a run."""
        index = spec.fold.index if spec.fold else 0
        return {variant.stream: self._fitted(spec, [index], variant)[0] for variant in self.features.of(spec.features)}

    def all_variants(self, specs: Sequence[RunSpec]) -> tuple[FeatureVariant, ...]:
        """Return the variants of all these runs, in the order in which they first occur."""
        return tuple(dict.fromkeys(variant for spec in specs for variant in self.features.of(spec.features)))

    def table(self, specs: Sequence[RunSpec]) -> FeatureTable:
        """Return rows with the variants of all these runs: in memory, or as blocks if the first run is streamed.

        Raises:
            IncompleteCacheError: blocks of a stream have not been computed yet.
            CacheError: a chunk is damaged.
        """
        variants = tuple(dict.fromkeys(variant.plain for variant in self.all_variants(specs)))
        views = specs[0].train.views
        features: Any
        if self.window(specs[0]):
            features = self.features.blocks(variants)
            valid = {variant.name: torch.from_numpy(self.features.valid(variant)) for variant in variants}
        else:
            arrays = {variant.name: self.features.every_view(variant, views) for variant in variants}
            features = {name: torch.from_numpy(rows) for name, (rows, _) in arrays.items()}
            valid = {name: torch.from_numpy(present) for name, (_, present) in arrays.items()}
        masks = {variant.name: self.features.steps(variant, views) for variant in variants}
        steps = {name: torch.from_numpy(mask) for name, mask in masks.items() if mask is not None}
        groups = self._group_numbers() if all(spec.fold is None or spec.fold.grouped for spec in specs) else None
        return FeatureTable(
            features,
            valid,
            torch.from_numpy(self.labels),
            len(self.classes),
            views,
            steps,
            groups,
            targets=None if self.values is None else torch.from_numpy(self.values),
            weights=None if self.weights is None else torch.from_numpy(self.weights),
            target=self.target,
            projected={
                name: ProjectedStream(stream.variant.plain.name, stream.width)
                for name, stream in self._projected(specs).items()
            },
        )

    def _projected(self, specs: Sequence[RunSpec]) -> dict[str, _WidthOfVariant]:
        """Return name in a group -> variant and number of components, of all projected variants of these runs."""
        return {
            self.name_in_group(spec, variant): _WidthOfVariant(variant, self._width(spec, variant))
            for spec in specs
            for variant in self.features.of(spec.features)
            if variant.pca is not None
        }

    def _group_numbers(self) -> torch.Tensor | None:
        """Return (N,) int64, the group of each row, -1 for none; None if the split does not keep groups together."""
        if self._groups_digest is None or not self._keeps_groups:
            return None
        _, numbers = np.unique(self.groups, return_inverse=True)
        return torch.from_numpy(np.where(self.groups == "", -1, numbers).astype(np.int64))

    def _fitted(self, spec: RunSpec, folds: Sequence[int], variant: FeatureVariant) -> list[Scaling]:
        """Return the scaling of one variant in each of these folds. Missing ones are fitted in the same passes."""
        neutral = spec.features.neutral_label if variant.kind == ACTION_UNITS else None
        keys = {fold: (self.partition(spec), fold, variant, neutral) for fold in folds}
        lacking = [fold for fold in folds if keys[fold] not in self._scaling]
        rows = self.folds(spec)
        if variant.pca is not None and lacking:
            there = self.features.valid(variant)
            plain = self._fitted(spec, lacking, variant.plain)
            sets = [rows[fold].train[there[rows[fold].train]] for fold in lacking]
            for fold, projected in zip(lacking, self.features.project(variant, plain, sets), strict=True):
                self._scaling[keys[fold]] = projected
            lacking = []
        valid = self.features.valid(variant)
        used = [rows[fold].train[valid[rows[fold].train]] for fold in lacking]
        neutral_faces: list[npt.NDArray[np.int64] | None] = [None] * len(used)
        if neutral is not None:
            for place, train in enumerate(used):
                if len(train) < LEAST_ROWS:
                    continue
                faces = neutral_rows(train, self.class_labels, self.class_names, variant.stream, neutral)
                if len(faces) >= LEAST_NEUTRAL_ROWS:
                    used[place] = faces
                else:
                    neutral_faces[place] = faces  # too few for a deviation: that of all training faces is used
        robust = variant.kind == ACTION_UNITS and neutral is None
        fitted = self.features.fit(variant, used, robust=robust) if used else []
        for fold, scaling, faces_alone in zip(lacking, fitted, neutral_faces, strict=True):
            if faces_alone is not None:
                scaling = scaling.around(self.features.mean(variant, faces_alone))  # noqa: PLW2901
            check_finite(variant.stream, scaling)
            self._scaling[keys[fold]] = scaling
        return [self._scaling[keys[fold]] for fold in folds]

    def _plain_split(self, usable: npt.NDArray[np.bool_]) -> list[FoldRows]:
        train, val = (np.flatnonzero(usable & (self.splits == split)) for split in ("train", "val"))
        lacking = {split: USES[split] for split, rows in (("train", train), ("val", val)) if not len(rows)}
        labelled = {split: int(np.sum((self.labels >= 0) & (self.splits == split))) for split in lacking}
        self.check_splits(lacking, labelled)
        return [FoldRows(train, val)]
