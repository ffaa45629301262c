"""The inputs and outputs of the engine: rows, folds, members, results. Plain tensors, nothing of a cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from emofuse.errors import TrainingError
from emofuse.heads.links import Link
from emofuse.heads.members import HeadMember
from emofuse.heads.stems import shape_of
from emofuse.scaling import Scaling, feature_axis, shape_after
from emofuse.specs import EXACT_HEADS, HeadSpec, TargetSpec, TrainSpec, canonical_json
from emofuse.training.row_draws import RowSet
from emofuse.training.streaming import Blocks
from emofuse.training.targets import LINKS, THE_LABEL, WITH_CLASSES, TargetScale

Ended = Literal["epochs", "patience", "halved", "diverged"]


@dataclass(frozen=True)
class FeatureTable:
    """N samples as tensors: from a cache (`TrainingData.table`), or from other arrays.

    Attributes:
        features: stream -> (N, *shape) floating point, as cached, or blocks of them that are read when needed. Values
            of rows that are not valid, and of steps that are not there, are never used. The shape of a vector is (D,),
            of a sequence (T, D), of a map (C, H, W), of a sequence of maps (T, C, H, W).
        valid: stream -> (N,) bool, whether the row has the stream.
        labels: (N,) int64, 0 <= label < classes in rows of a fold; 0 there if the target is no class.
        classes: the number C of outputs: of classes, columns of a regression, or labels.
        views: V. With more than one, features and `valid` have V x N rows, view after view: all rows as they are, then
            all rows in their first augmented view, and so on.
        steps: stream -> (N, T) bool of every sequence, whether the step is there; with views as `valid`.
        groups: (N,) int64, the group of each row, which leave-one-out predictions leave out together; -1 for a row
            that is a group of its own. None without groups.
        targets: (N, C) floating point, what rows of a fold are compared with (see `emofuse.training.targets`); None for
            classes.
        weights: (N,) floating point, the weight of each row in training, none negative; None for equal weights.
        target: the kind of target and its loss.
        projected: name of a stream that heads see projected -> which features it is made of, and how wide it is. The
            projection is that of the scaling under the same name in each fold.
    """

    features: Mapping[str, Tensor] | Blocks
    valid: Mapping[str, Tensor]
    labels: Tensor
    classes: int
    views: int = 1
    steps: Mapping[str, Tensor] = field(default_factory=dict)
    groups: Tensor | None = None
    targets: Tensor | None = None
    weights: Tensor | None = None
    target: TargetSpec = THE_LABEL
    projected: Mapping[str, ProjectedStream] = field(default_factory=dict)

    @property
    def link(self) -> Link:
        """What turns the logits of a head into outputs."""
        return LINKS[self.target.kind]

    def target_scale(self, fold: Fold) -> TargetScale | None:
        """Return the standardisation of a regression's targets by the training rows of a fold; None for others."""
        if self.targets is None or self.target.kind != "regression":
            return None
        return TargetScale.fit(self.targets.numpy()[fold.train])

    def row_weights(self, fold: Fold) -> npt.NDArray[np.float64] | None:
        """Return the weights of all rows, (N,), with mean 1 over the training rows of a fold; None for equal ones."""
        if self.weights is None:
            return None
        weights = self.weights.numpy().astype(np.float64)
        mean_one: npt.NDArray[np.float64] = weights / weights[fold.train].mean()
        return mean_one

    @property
    def dims(self) -> dict[str, tuple[int, ...]]:
        """Stream -> the shape of a row."""
        if isinstance(self.features, Blocks):
            return {name: shape_of(shape) for name, shape in self.features.dims.items()}
        return {name: tuple(tensor.shape[1:]) for name, tensor in self.features.items()}

    @property
    def head_dims(self) -> dict[str, tuple[int, ...]]:
        """Stream as heads see it, also projected -> the shape of a row."""
        dims = self.dims
        projected = {}
        for name, stream in self.projected.items():
            shape = dims[stream.source]
            projected[name] = shape_after(shape, feature_axis(shape), stream.width)
        return dims | projected

    def source_of(self, stream: str) -> str:
        """Return the name of the features that a stream is made of."""
        return self.projected[stream].source if stream in self.projected else stream


@dataclass(frozen=True)
class ProjectedStream:
    """A stream that heads see by its principal components.

    Attributes:
        source: the name of the features.
        width: the number of components. Members whose folds have other numbers see other streams.
    """

    source: str
    width: int


@dataclass(frozen=True)
class Fold:
    """Rows that train, rows that choose the epoch, and the scaling fitted on the training rows.

    Attributes:
        train: (n,) int64.
        val: (m,) int64.
        scaling: stream -> its standardisation, fitted on `train` alone.
    """

    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    scaling: Mapping[str, Scaling]


@dataclass(frozen=True)
class Member:
    """One head to train.

    Attributes:
        streams: the streams that it sees.
        head: its kind and sizes.
        train: its optimisation.
        fold: the index of its fold.
        last_epoch: the epoch after which it leaves and whose weights it keeps, whatever the validation scores; the
            learning rates are those of all epochs of `train`. None keeps the weights of the best epoch.
    """

    streams: tuple[str, ...]
    head: HeadSpec
    train: TrainSpec
    fold: int = 0
    last_epoch: int | None = None

    @property
    def row_set(self) -> RowSet:
        """The training rows that it shares with other members."""
        return RowSet(self.fold, self.train.balance)

    def head_member(self) -> HeadMember:
        """Return what the layers of the head need to know."""
        dropout, of_stems = (getattr(self.head, name, 0.0) for name in ("dropout", "stem_dropout"))
        return HeadMember(self.streams, self.train.seed, self.fold, dropout, of_stems)


@dataclass(frozen=True)
class MemberResult:
    """The result of a member.

    Attributes:
        weights: the parameters and running statistics of the best epoch, as of a single head without the axis of
            members; empty if there was no finite epoch.
        history: for each finite epoch {epoch, train_loss, val_loss} and the validation scores of the kind of target
            (see `emofuse.training.validation_scores`). `train_loss` is what was minimised (with label smoothing,
            weights, dropout and mixup), `val_loss` is the plain loss. Where gradients are balanced or monitored also
            {branch_norms, branch_scales: {stream: mean over the epoch's steps}}.
        best_epoch: the epoch of the weights, counted from 1; 0 if there was none.
        last_epoch: the epoch in which the member left.
        ended: why it left: `epochs`, all its epochs are done; `patience`, that many epochs were no better; `halved`, a
            `StopRule` dismissed it; `diverged`, a loss was not finite.
        target_scale: the standardisation of the targets of a regression, in which its outputs are; None for others.
    """

    weights: Mapping[str, npt.NDArray[Any]]
    history: Sequence[Mapping[str, Any]]
    best_epoch: int
    last_epoch: int
    ended: Ended
    target_scale: TargetScale | None = None


@dataclass(frozen=True)
class MemberState:
    """The state of a member after an epoch, as a stop rule sees it.

    Attributes:
        best: the entry of its history for its best epoch; None without a finite epoch.
        ended: why it has left; None while it trains.
    """

    best: Mapping[str, Any] | None
    ended: Ended | None


StopRule = Callable[[int, Sequence[MemberState]], Collection[int]]
"""Takes the epoch and the state of each member, also of those that have left; returns the members that must leave."""


def structure_key(member: Member) -> str:
    """Return what members must share to train together: the shapes of the head, batches and their order, balancing.

    Streams, fold, dropout, seed and all other options of training may differ.
    """
    return canonical_json(
        {
            "head": member.head.model_dump(exclude={"dropout", "stem_dropout"}),
            "train": member.train.model_dump(include={"batch_size", "order_seed", "gradient_balancing", "views"}),
        }
    )


def check_group(table: FeatureTable, folds: Sequence[Fold], members: Sequence[Member]) -> None:
    """Raise if the members cannot be trained, with all reasons at once.

    Raises:
        TrainingError: members that do not fit together, streams or folds that do not exist, folds without rows, with
            only one label, or with rows that have no label.
    """
    if not members:
        raise TrainingError("no member to train")
    problems = []
    keys = sorted({structure_key(member) for member in members})
    if len(keys) > 1:
        problems.append(f"members of one group must share head and batches, got {' and '.join(keys)}; plan them first")
    for index, member in enumerate(members):
        unknown = sorted(set(member.streams) - set(table.head_dims))
        if unknown or not member.streams:
            there = ", ".join(table.head_dims)
            problems.append(
                f"member {index}: no such stream: {', '.join(unknown) or '(none named)'} (there are: {there})"
            )
        problems.extend(
            f"member {index}: {option} is for the heads of emofuse, a {member.head.kind} head would not know of it. "
            f"Take {option}: 0"
            for option in ("stream_dropout", "mixup")
            if getattr(member.train, option) and not (member.head.module_class or member.head.kind in EXACT_HEADS)
        )
        if not 0 <= member.fold < len(folds):
            problems.append(f"member {index}: fold {member.fold} of {len(folds)}")
        if member.train.balance != "none" and table.target.kind not in WITH_CLASSES:
            problems.append(f"member {index}: balance needs classes, and the target is a {table.target.kind}")
    for name, shape in table.dims.items():
        expected = (len(table.valid[name]), shape[0]) if len(shape) in {2, 4} else None
        got = tuple(table.steps[name].shape) if name in table.steps else None
        if got != expected:
            problems.append(f"stream {name!r} of shape {shape}: expected steps {expected}, got {got}")
    for index, fold in enumerate(folds):
        problems.extend(f"fold {index}: {problem}" for problem in _fold_problems(table, fold))
    if problems:
        raise TrainingError(" | ".join(problems))


def _fold_problems(table: FeatureTable, fold: Fold) -> list[str]:
    if len(fold.train) == 0:
        return ["no training row: nothing to learn from"]
    if len(fold.val) == 0:
        return ["no validation row: the epoch is chosen on them"]
    rows = np.concatenate([fold.train, fold.val])
    if table.target.kind in WITH_CLASSES:
        labels = table.labels.numpy()
        bad = rows[(labels[rows] < 0) | (labels[rows] >= table.classes)]
        if len(bad):
            return [f"{len(bad)} rows have no label of 0 .. {table.classes - 1}, the first is row {bad[0]}"]
        if table.target.kind == "class" and len(np.unique(labels[fold.train])) == 1:
            label = labels[fold.train[0]]
            return [f"all {len(fold.train)} training rows have label {label}: a head needs at least two"]
    return [*_value_problems(table, rows), *_weight_problems(table, fold)]


def _value_problems(table: FeatureTable, rows: npt.NDArray[np.int64]) -> list[str]:
    if table.target.kind == "class":
        return []
    shape = None if table.targets is None else tuple(table.targets.shape)
    if table.targets is None or shape != (len(table.labels), table.classes):
        return [f"a {table.target.kind} needs targets ({len(table.labels)}, {table.classes}), got {shape}"]
    bad = rows[~np.isfinite(table.targets.numpy()[rows]).all(axis=1)]
    return [f"{len(bad)} rows have no finite target, the first is row {bad[0]}"] if len(bad) else []


def _weight_problems(table: FeatureTable, fold: Fold) -> list[str]:
    if table.weights is None:
        return []
    weights = table.weights.numpy()[fold.train]
    bad = fold.train[~(np.isfinite(weights) & (weights >= 0))]
    if len(bad):
        return [f"{len(bad)} training rows have no weight of at least 0, the first is row {bad[0]}"]
    return [] if weights.any() else [f"all {len(fold.train)} training rows have weight 0: nothing to learn from"]
