"""Write the notes of a run: one sentence for each fact that a reader should know and cannot see in its scores.

Where possible, a sentence holds no number that differs from seed to seed, so that a report prints it once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emofuse.datasets.split_needs import keeps_groups
from emofuse.datasets.splits import SPLITS
from emofuse.features import ACTION_UNITS, LEAST_NEUTRAL_ROWS
from emofuse.scaling import LIMIT
from emofuse.specs import RunSpec
from emofuse.specs.head_kinds import LOGISTIC_HEADS
from emofuse.specs.train import NEWER
from emofuse.training.data import TrainingData
from emofuse.training.exact import is_exact
from emofuse.training.members import MemberResult
from emofuse.training.targets import WITH_CLASSES
from emofuse.training.trained_runs import Rows, TrainedRun
from emofuse.training.variants import FeatureVariant

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache
    from emofuse.datasets.targets import Targets

_LABELS_NAMED = 5
_LAST_PART = 0.05  # the share of the epochs that count as the last ones
_ONE_SIDED_5_PERCENT = 1.645  # standard deviations of a normal distribution
_ROWS_OF = {"train": "training", "val": "validation", "test": "test"}


@dataclass
class FarValues:
    """The values of a variant that `Scaling.apply` limits, over all rows of a run.

    Attributes:
        count: the number of values.
        rows: the number of rows that hold them.
        first: the row and place of the first value.
    """

    count: int = 0
    rows: int = 0
    first: tuple[int, int] | None = None

    def add(self, rows: npt.NDArray[np.int64], beyond: npt.NDArray[np.bool_]) -> None:
        """Add rows (n,), of whose values (n, D) those are limited that `beyond` marks."""
        places = np.argwhere(beyond)
        if len(places):
            first = (int(rows[places[0, 0]]), int(places[0, 1]))
            self.first = first if self.first is None else min(self.first, first)
            self.count += len(places)
            self.rows += len(np.unique(places[:, 0]))


def run_notes(
    cache: Cache,
    targets: Targets,
    data: TrainingData,
    trained: TrainedRun,
    rows: Rows,
    *,
    metrics: Mapping[str, Any],
    far: Mapping[FeatureVariant, FarValues],
) -> list[str]:
    """Return all notes of a run.

    Args:
        cache: the cache.
        targets: the targets of all rows.
        data: of the run's split and target.
        trained: the run.
        rows: split -> its rows.
        metrics: split -> the scores of these rows.
        far: variant -> its values that are limited.
    """
    notes = [
        *_which_labels(cache, trained.spec),
        *_rows_left_out(targets, data, trained.spec),
        *_labels_without_rows(targets, rows),
        *_shared_groups(cache, data, trained, rows),
        *_streams_without_rows(data, trained, rows),
        *(note for head in trained.first for note in _few_neutral_faces(data, head.spec)),
        *_far_values(cache, far),
        *_learning(targets, trained, rows, metrics),
        *_options_without_effect(data, trained.spec),
    ]
    return list(dict.fromkeys(notes))  # the heads of an ensemble may give the same note


def _few_neutral_faces(data: TrainingData, spec: RunSpec) -> Iterator[str]:
    train = data.folds(spec)[spec.fold.index if spec.fold else 0].train
    neutral = spec.features.neutral_label
    for variant in data.features.of(spec.features):
        if neutral is None or variant.kind != ACTION_UNITS:
            continue
        faces = train[data.features.valid(variant)[train]]
        if np.sum(data.class_labels[faces] == data.class_names.index(neutral)) < LEAST_NEUTRAL_ROWS:
            yield (
                f"Fewer than {LEAST_NEUTRAL_ROWS} training faces labelled {neutral!r} have stream {variant.stream!r}: "
                "its baseline is their mean, and the deviation is that of all training faces."
            )


def _which_labels(cache: Cache, spec: RunSpec) -> Iterator[str]:
    from emofuse.datasets.annotators import describe_labels  # it loads the reader of tables

    labels = describe_labels(cache.manifest, spec.target)
    if labels is not None:
        yield f"{labels[0].upper()}{labels[1:]}."
    if spec.weight_column is not None:
        yield f"Training weights rows by column {spec.weight_column!r}; scores count all rows alike."


def _rows_left_out(targets: Targets, data: TrainingData, spec: RunSpec) -> Iterator[str]:
    labelled, in_split = targets.labels >= 0, np.isin(data.splits, SPLITS)
    unlabelled, unsplit = int(np.sum(~labelled)), int(np.sum(labelled & ~in_split))
    noun = "label" if targets.kind == "class" else "target"
    if unlabelled or unsplit:
        yield (
            f"{unlabelled + unsplit} of {len(data.splits)} rows are in no split of this run: "
            f"{unlabelled} without a {noun}, {unsplit} with a {noun} but no split."
        )
    unreadable = data.unreadable(spec) & labelled & in_split
    if unreadable.any():
        counts = ", ".join(f"{int(np.sum(unreadable & (data.splits == split)))} of split {split}" for split in SPLITS)
        yield (
            f"{int(unreadable.sum())} of {int(np.sum(labelled & in_split))} labelled rows are left out, because their "
            f"pictures cannot be read: {counts}."
        )


def _labels_without_rows(targets: Targets, rows: Rows) -> Iterator[str]:
    if targets.kind == "regression":
        yield from _columns_of_one_value(targets, rows)
        return
    consequences = {
        "train": "the head cannot learn {it}",
        "val": "no epoch is chosen for {it}, and macro F1 of the validation rows is over the other labels",
        "test": "macro scores of the test rows are over the labels that have rows or predictions",
    }
    if targets.kind == "multilabel":
        consequences["val"] = "average precision of the validation rows is over the other labels"
        consequences["test"] = "macro scores of the test rows are over the other labels"
    for split, consequence in consequences.items():
        seen = _labels_with_rows(targets, rows[split])
        names = [repr(label) for index, label in enumerate(targets.names) if index not in seen]
        if names:
            named = ", ".join(names[:_LABELS_NAMED])
            more = f" or one of {len(names) - _LABELS_NAMED} others" if len(names) > _LABELS_NAMED else ""
            it = "it" if len(names) == 1 else "them"
            yield f"No {_ROWS_OF[split]} row is labelled {named}{more}: {consequence.format(it=it)}."


def _columns_of_one_value(targets: Targets, rows: Rows) -> Iterator[str]:
    """Yield a note on each column that is the same in all validation or test rows, where agreement is not defined."""
    consequences = {
        "val": "it has no CCC, and that of the validation rows is over the other columns",
        "test": "it has no CCC and no correlation, and the means of the test rows are over the other columns",
    }
    for split, consequence in consequences.items():
        for place, name in enumerate(targets.names):
            values = np.zeros(0) if targets.values is None else targets.values[rows[split], place]
            if len(values) and np.ptp(values) == 0:
                yield f"Every {_ROWS_OF[split]} row has {name} {values[0]:g}: {consequence}."


def _labels_with_rows(targets: Targets, rows: npt.NDArray[np.int64]) -> set[int]:
    if targets.kind == "multilabel" and targets.values is not None:
        return set(np.flatnonzero((targets.values[rows] > 0).any(axis=0)).tolist())
    return set(targets.labels[rows].tolist())


def _shared_groups(cache: Cache, data: TrainingData, trained: TrainedRun, rows: Rows) -> Iterator[str]:
    if not cache.has_groups:
        return

    def groups_of(of_split: npt.NDArray[np.int64]) -> set[str]:
        return set(cache.groups[of_split].tolist()) - {""}

    spec, folds = trained.first[0].spec, data.folds(trained.first[0].spec)
    used = {head.spec.fold.index if head.spec.fold else 0 for head in trained.first}
    test = groups_of(rows["test"])
    sharing = [(split, "test") for split in ("train", "val") if groups_of(rows[split]) & test]
    # Of an ensemble and of a second training, `rows` have validation rows that train as well.
    if any(groups_of(folds[index].train) & groups_of(folds[index].val) for index in used):
        sharing.append(("train", "val"))
    if not sharing:
        return
    named = [split for split in SPLITS if any(split in pair for pair in sharing)]
    if not keeps_groups(spec.split, cache.manifest.info):
        why = "as `grouped: false` of the split asks for"
    elif spec.fold and not spec.fold.grouped and all("test" not in pair for pair in sharing):
        why = "as `grouped: false` of the folds asks for"
    else:
        why = "because the dataset's own split parts them"
    yield (
        f"Groups are shared between {', '.join(named[:-1])} and {named[-1]}, {why}: the scores are those of known "
        "groups, and may be lower for others."
    )


def _streams_without_rows(data: TrainingData, trained: TrainedRun, rows: Rows) -> Iterator[str]:
    consequences = {"val": "the epoch was chosen without it", "test": "the test scores say nothing of it"}
    for variant in data.features.of(trained.spec.features):
        valid = data.features.valid(variant)
        has = {split: valid[of_split] for split, of_split in rows.items()}
        fitted = [head.scaling[variant.stream].fitted for head in trained.heads]
        if any(fitted) and not all(fitted):
            yield (
                f"Fewer than two training rows of some heads have stream {variant.stream!r}: these heads learned "
                "nothing from it, and it counts as missing in every row that they answer."
            )
        if not any(fitted):
            who = "Only one training row has" if has["train"].any() else "No training row has"
            yield (
                f"{who} stream {variant.stream!r}: the head learned nothing from it, and it counts as missing in every "
                "row."
            )
            continue
        for split, consequence in consequences.items():
            if not has[split].any():
                yield f"No {_ROWS_OF[split]} row has stream {variant.stream!r}: {consequence}."
        learns_of_missing = trained.spec.train.stream_dropout > 0 and len(trained.spec.features.streams) > 1
        if has["train"].all() and not (learns_of_missing or (has["val"].all() and has["test"].all())):
            yield (
                f"All training rows have stream {variant.stream!r}, and not all validation and test rows: the head "
                "never learned what it means that the stream is missing, its mean stands for it."
            )


def _far_values(cache: Cache, far: Mapping[FeatureVariant, FarValues]) -> Iterator[str]:
    for variant, values in far.items():
        if values.first is None:
            continue
        row, place = values.first
        names = cache.streams[variant.stream].columns
        name = repr(names[place]) if not variant.choice and place < len(names) else str(place)
        where = f"column {name} of row {str(cache.sample_ids[row])!r}"
        if values.count == 1:
            what, counts = f"the value in {where} lies", "It counts as that far."
        else:
            what = f"{values.count} values in {values.rows} rows (the first: {where}) lie"
            counts = "They count as that far."
        yield (
            f"Stream {variant.stream!r}: {what} more than {LIMIT:g} times as far out as every ordinary training value. "
            f"{counts}"
        )


def _learning(targets: Targets, trained: TrainedRun, rows: Rows, metrics: Mapping[str, Any]) -> Iterator[str]:
    if targets.kind in WITH_CLASSES:
        yield from _learned_classes(targets, trained, rows, metrics)
    else:
        yield from _learned_values(targets, trained, rows["train"], metrics)
    for head in trained.first:
        yield from _choice_at_an_end(head.spec, head.result)


def _learned_classes(targets: Targets, trained: TrainedRun, rows: Rows, metrics: Mapping[str, Any]) -> Iterator[str]:
    counts = np.bincount(targets.labels[rows["train"]])
    if not beats_chance(metrics["test"]["confusion"], int(counts.argmax())):
        yield (
            "The head cannot be told from chance: on the test rows it is not better than always answering the most "
            "frequent training label (one-sided test at 5 %)."
        )
    if not is_exact(trained.spec.head) and metrics["train"]["loss"] >= _entropy(counts):
        yield (
            "The head has learned nothing from its training rows: their loss is not below that of answering with the "
            "shares of the labels. Try another learning rate, mostly a lower one, or more epochs."
        )


def _learned_values(
    targets: Targets, trained: TrainedRun, train: npt.NDArray[np.int64], metrics: Mapping[str, Any]
) -> Iterator[str]:
    """Compare the training loss of numbers or several labels with that of answering every row with their means."""
    if targets.values is None or is_exact(trained.spec.head) or getattr(trained.spec.target, "loss", "") == "ccc":
        return
    values = targets.values[train].astype(np.float64)
    shares = np.clip(values.mean(axis=0), 1e-12, 1 - 1e-12)
    by_chance = (
        -(shares * np.log(shares) + (1 - shares) * np.log(1 - shares))
        if targets.kind == "multilabel"
        else (values.var(axis=0))
    )
    if metrics["train"]["loss"] >= by_chance.mean():
        yield (
            "The head has learned nothing from its training rows: their loss is not below that of answering with the "
            "means of the columns. Try another learning rate, mostly a lower one, or more epochs."
        )


def _choice_at_an_end(spec: RunSpec, result: MemberResult) -> Iterator[str]:
    if is_exact(spec.head):
        yield from _penalty_at_an_end(result)
    elif result.ended == "epochs" and result.best_epoch > (1 - _LAST_PART) * result.last_epoch:
        yield (
            f"The best epoch is the last one of {result.last_epoch}, or close to it: the head may not have converged. "
            "Give it more epochs or a higher learning rate."
        )


def _options_without_effect(data: TrainingData, spec: RunSpec) -> Iterator[str]:
    """Yield notes on options that did nothing, or less than they say."""
    if is_exact(spec.head):
        used = {"class_weights"} if isinstance(spec.head, LOGISTIC_HEADS) else {"logit_adjustment"}
        idle = [name for name, off in NEWER.items() if name not in used and getattr(spec.train, name) != off]
        if idle:
            yield f"The head is solved, and not trained: {', '.join(idle)} of its training had no effect."
        return
    if spec.train.stream_dropout and len(spec.features.streams) == 1:
        yield "The head has one stream, which every row keeps: stream_dropout of its training had no effect."
    if spec.train.schedule != "constant" and spec.train.warmup == 1:
        yield f"The learning rate rose until the last step (warmup: 1): schedule: {spec.train.schedule} had no effect."
    rows = max(len(fold.train) for head in spec.heads() for fold in data.folds(head))
    if spec.train.batch_size > rows:
        yield f"A batch of {spec.train.batch_size} holds all {rows} training rows: each epoch was one step."


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    """Return the cross-entropy of answering every row with the shares of the labels."""
    shares = counts[counts > 0] / counts.sum()
    return float(-np.sum(shares * np.log(shares)))


def _penalty_at_an_end(result: MemberResult) -> Iterator[str]:
    ends = {1: "strongest", result.last_epoch: "weakest"}
    if result.last_epoch > 1 and result.best_epoch in ends:
        yield (
            f"The chosen penalty is the {ends[result.best_epoch]} one that was tried: the best one may lie beyond it."
        )


def beats_chance(confusion: Sequence[Sequence[int]], answer: int) -> bool:
    """Return whether more rows are right than with one constant answer, by a one-sided test at 5 %.

    By chance the number of right rows is binomial; the test takes it as normal, with continuity correction.

    Args:
        confusion: (C, C) counts, true class by predicted class.
        answer: the class of the constant answer.
    """
    counts = np.asarray(confusion)
    total = int(counts.sum())
    share = float(counts[answer].sum() / total)
    by_chance, deviation = total * share, math.sqrt(total * share * (1 - share))
    return bool(np.trace(counts) - 0.5 > by_chance + _ONE_SIDED_5_PERCENT * deviation)
