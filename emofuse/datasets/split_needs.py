"""Checks of what runs need of the splits of a dataset, by its labels and splits alone, before anything is extracted.

They need no features, so that they serve a dataset that was just read as well as a cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from emofuse.datasets.splits import SPLITS, cross_validation_folds, group_folds, make_splits
from emofuse.errors import DatasetError, SpecError, TrainingError
from emofuse.specs.datasets import OfficialSplit, OuterFoldsSplit, SplitSpec
from emofuse.specs.targets import ClassTarget, TargetSpec
from emofuse.wording import count_of, join_first

if TYPE_CHECKING:
    from emofuse.datasets.manifest import Manifest
    from emofuse.specs import FoldSpec, PipelineSpec, RunSpec, SweepSpec

USES: Mapping[str, str] = {"train": "to learn from", "val": "to choose the epoch on", "test": "to report on"}
ROWS_OF_A_LABEL = len(SPLITS)  # with fewer rows, a label cannot have one in every split
_NAMED = 3


class SplitNeed(NamedTuple):
    """The need of a run: rows with a target in train, val and test; or in test and, for folds, enough others."""

    split: SplitSpec
    folds: FoldSpec | None = None
    target: TargetSpec = ClassTarget()
    weight_column: str | None = None


def needs_of_runs(runs: Iterable[RunSpec]) -> list[SplitNeed]:
    """Return the needs of runs, each once."""
    needs: list[SplitNeed] = []
    for head in (head for run in runs for head in run.heads()):
        need = SplitNeed(head.split, head.fold.partition if head.fold else None, head.target, head.weight_column)
        if need not in needs:  # targets cannot be hashed
            needs.append(need)
    return needs


def needs_of_pipeline(spec: PipelineSpec) -> list[SplitNeed]:
    """Return the needs of the runs of a pipeline, on every split that they are repeated on."""
    return needs_of_runs(run.model_copy(update={"split": split}) for run in spec.runs for split in spec.splits_of(run))


def needs_of_sweep(spec: SweepSpec) -> list[SplitNeed]:
    """Return the needs of a sweep, whose search may use folds and whose final runs need validation rows."""
    splits: list[SplitSpec] = [*spec.test.splits()] if spec.test else [spec.base.split]
    needs = []
    for split in splits:
        base = SplitNeed(split, None, spec.base.target, spec.base.weight_column)
        needs += [base, *([base._replace(folds=spec.folds.each()[0])] if spec.folds else [])]
    return needs


def check_needs(manifest: Manifest, needs: Sequence[SplitNeed]) -> None:
    """Check that a dataset has the rows that runs need.

    Raises:
        TrainingError: a split has no labelled rows, there are too few for folds, or all training rows have one label.
        SpecError: a target or weights of a column that the dataset does not have.
        DatasetError: a column whose values are not what the target needs.
    """
    from emofuse.datasets.targets import read_targets  # it loads the reader of tables

    official, groups = manifest.table["split"].to_list(), manifest.groups
    for need in needs:
        targets = read_targets(manifest, need.target, need.weight_column)
        labels = targets.strata
        check_outer_folds(labels, groups, need.split)
        splits = make_splits(labels, official, need.split, groups)
        counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for label, split in zip(labels, splits, strict=True):
            if label is not None and split is not None:
                counts[split][label] += 1
        is_grouped = any(groups) and keeps_groups(need.split, manifest.info)
        needed = SPLITS if need.folds is None else ("test",)
        check_splits(
            {split: USES[split] for split in needed if not counts[split]},
            [split for split in SPLITS if counts[split]],
            is_drawn=is_drawn(need.split, manifest.info),
            rows_of_labels=_units(labels, groups if is_grouped else None),
            is_grouped=is_grouped,
        )
        training = counts["train"] if need.folds is None else counts["train"] + counts["val"]
        if need.folds is not None:
            pairs = zip(labels, splits, strict=True)
            make_folds([label if split in {"train", "val"} else None for label, split in pairs], groups, need.folds)
        if targets.kind in {"class", "distribution"}:
            check_labels(training)


def describe_lack(manifest: Manifest, needs: Sequence[SplitNeed]) -> str | None:
    """Return the message of the error that `check_needs` raises, or None."""
    try:
        check_needs(manifest, needs)
    except (TrainingError, SpecError, DatasetError) as error:
        return str(error)
    return None


def is_drawn(split: SplitSpec, info: Mapping[str, Any]) -> bool:
    """Return whether the split is drawn from the labels alone, by the spec of the run or that of the dataset.

    Args:
        split: the split of the run.
        info: the info of the manifest.
    """
    of_dataset = info.get("split") or {}
    return split.kind in {"stratified", "outer_folds"} or (
        isinstance(split, OfficialSplit) and of_dataset.get("kind") == "stratified"
    )


def keeps_groups(split: SplitSpec, info: Mapping[str, Any]) -> bool:
    """Return whether the split of a run keeps groups together, as far as its spec or that of the dataset decides it.

    Args:
        split: the split of the run.
        info: the info of the manifest.
    """
    if isinstance(split, OfficialSplit):
        return (info.get("split") or {}).get("grouped", True) is True
    return split.grouped


def check_splits(
    lacking: Mapping[str, str],
    present: Collection[str],
    *,
    is_drawn: bool = False,
    rows_of_labels: Mapping[str, int] | None = None,
    is_grouped: bool = False,
) -> None:
    """Raise if a split has no labelled row.

    Args:
        lacking: each split without rows -> what its rows are needed for.
        present: the splits with rows.
        is_drawn: whether the splits were drawn from the labels, so that drawing again does not help.
        rows_of_labels: label -> its number of rows, if known; a group counts as one.
        is_grouped: whether there are groups that the drawn splits keep together.

    Raises:
        TrainingError: a split has no labelled row; the message names all such splits and advice that keeps the test
            rows if the dataset has some.
    """
    if not lacking:
        return
    named = " nor ".join(f"{split!r} ({why})" for split, why in lacking.items())
    advice = (
        _advice_for_drawn(rows_of_labels, is_grouped=is_grouped) if is_drawn else _advice(set(lacking), set(present))
    )
    raise TrainingError(f"no labelled row has split {named}. {advice}")


def _advice_for_drawn(rows_of_labels: Mapping[str, int] | None, *, is_grouped: bool) -> str:
    noun = "group" if is_grouped else "row"
    counts = ""
    if rows_of_labels:
        rare = rare_labels(rows_of_labels)
        counts = f"; {len(rare)} of {len(rows_of_labels)} labels have fewer: {describe_counts(rare, noun)}"
    apart = ", or part the groups: `grouped: false` of the split" if is_grouped else ""
    return (
        f"The split is drawn label by label, and a label needs {ROWS_OF_A_LABEL} {noun}s to have one in each of train, "
        f"val and test{counts}. Add {noun}s of these labels, or merge labels{apart}"
    )


def _advice(lacking: set[str], present: set[str]) -> str:
    anew = "`split: {kind: stratified}` in a pipeline, `--split stratified` on the command line"
    if lacking == {"val"} and "test" in present:
        return (
            "Have validation rows drawn from the training rows: `split: {kind: holdout}` in a pipeline, `--split "
            "holdout` on the command line; or cross-validate a run over its training rows: `fold: {count: 5}`. Both "
            f"keep the dataset's test rows; a stratified split would draw them anew ({anew})"
        )
    if lacking == {"test"} and "val" in present:
        return (
            "Take the dataset's validation rows for the test and draw others from its training rows: `split: {kind: "
            f"holdout, test: val}}` in a pipeline; or have its labels split anew: {anew}"
        )
    return f"Give the dataset such rows, or have its labels split anew: {anew}"


def make_folds(
    labels: Sequence[str | None], groups: Sequence[str | None], spec: FoldSpec, *, unreadable: int = 0
) -> list[int | None]:
    """Return the fold of every row (N,), None for a row in no fold; every fold has every label, unless it is a group.

    Args:
        labels: the labels (N,) of the rows of train and val; None for all other rows.
        groups: the group of every row (N,), None for a row that is a group of its own.
        spec: the cross-validation.
        unreadable: the number of labelled rows that were left out, because their pictures cannot be read.

    Raises:
        TrainingError: there are fewer labelled rows or groups than folds, of all labels or of one; or rows without a
            group where one is left out.
    """
    if spec.kind == "leave_one_group_out":
        _check_every_row_has_a_group(labels, groups)
        return group_folds(labels, groups)
    rows = sum(label is not None for label in labels)
    if rows < spec.count:
        others = f" ({unreadable} more have pictures that cannot be read)" if unreadable else ""
        raise TrainingError(
            f"{spec.count} folds need as many labelled rows in the splits 'train' and 'val', got {rows}{others}. Take "
            "fewer folds, or have the labels split anew: `split: {kind: stratified}`"
        )
    kept = groups if spec.grouped else None
    folds = cross_validation_folds(labels, spec.count, spec.seed, kept)
    _check_every_fold_has_every_label(labels, kept, folds, spec.count)
    return folds


def check_outer_folds(labels: Sequence[str | None], groups: Sequence[str | None] | None, split: SplitSpec) -> None:
    """Raise if a split is one of outer folds, and a label is missing in one of them: nothing would test it there.

    Args:
        labels: the label names (N,); None for an unlabelled row.
        groups: the group of every row (N,), None for a row that is a group of its own; None without groups.
        split: the split of a run, of any kind.

    Raises:
        TrainingError: there are fewer rows or groups of a label than folds.
    """
    if not isinstance(split, OuterFoldsSplit):
        return
    kept = groups if split.grouped else None
    folds = cross_validation_folds(labels, split.count, split.seed + split.repeat, kept)
    _check_every_fold_has_every_label(labels, kept, folds, split.count, "the dataset")


def _check_every_row_has_a_group(labels: Sequence[str | None], groups: Sequence[str | None]) -> None:
    named = [group for label, group in zip(labels, groups, strict=True) if label is not None]
    lacking = sum(group is None for group in named)
    if lacking:
        who = "none" if lacking == len(named) else f"{lacking} of {len(named)}"
        has = f"{who} has one" if lacking == len(named) else f"{who} have none"
        raise TrainingError(
            "fold: leave_one_group_out needs a group for each labelled row of the splits 'train' and 'val', and "
            f"{has}. Name the groups in the dataset (csv: `group_column`, folder: `group`, or a table: `group_file`), "
            "or take stratified folds: `fold: {count: 5}`"
        )
    if len(set(named)) < 2:
        raise TrainingError(
            f"fold: leave_one_group_out needs two groups in the splits 'train' and 'val', got {len(set(named))}. Take "
            "stratified folds that part the group: `fold: {count: 5, grouped: false}`"
        )


def _check_every_fold_has_every_label(
    labels: Sequence[str | None],
    groups: Sequence[str | None] | None,
    folds: Sequence[int | None],
    count: int,
    where: str = "the splits 'train' and 'val'",
) -> None:
    """Raise if a label is missing in a fold: its scores would be those of other labels than in the next fold."""
    folds_of: dict[str, set[int]] = {}
    for label, fold in zip(labels, folds, strict=True):
        if label is not None and fold is not None:
            folds_of.setdefault(label, set()).add(fold)
    units = _units(labels, groups)
    lacking = {label: units[label] for label, there in sorted(folds_of.items()) if len(there) < count}
    if not lacking:
        return
    noun = "group" if groups is not None and any(groups) else "row"
    listed = describe_counts(lacking, noun)
    if all(number >= count for number in lacking.values()):
        raise TrainingError(
            f"the groups cannot be placed in {count} folds so that every fold has every label; missing in a fold: "
            f"{listed}. Take another seed or fewer folds"
        )
    apart = ", or part the groups: `grouped: false`" if noun == "group" else ""
    raise TrainingError(
        f"{count} folds need as many {noun}s of each label in {where}, or a fold is without it. "
        f"Fewer have: {listed}. Take fewer folds, or merge labels or leave them out{apart}"
    )


def _units(labels: Sequence[str | None], groups: Sequence[str | None] | None) -> Counter[str]:
    """Return label -> the number of its groups and rows without one."""
    names: Sequence[str | None] = groups if groups is not None else [None] * len(labels)
    units = dict.fromkeys(
        (label, group if group is not None else row)
        for row, (label, group) in enumerate(zip(labels, names, strict=True))
        if label is not None
    )
    return Counter(label for label, _ in units)


def check_labels(rows_of_labels: Mapping[str, int]) -> None:
    """Raise if all training rows have the same label.

    Args:
        rows_of_labels: label -> its number of training rows.

    Raises:
        TrainingError: all training rows have the same label.
    """
    if len(rows_of_labels) == 1:
        ((label, rows),) = rows_of_labels.items()
        raise TrainingError(f"all {rows} training rows are labelled {label!r}: a head needs at least two labels")


def rare_labels(rows_of_labels: Mapping[str, int]) -> dict[str, int]:
    """Return the labels with too few rows for one in each split -> how many they have, in the given order."""
    return {label: rows for label, rows in rows_of_labels.items() if 0 < rows < ROWS_OF_A_LABEL}


def describe_counts(rows_of_labels: Mapping[str, int], noun: str = "row") -> str:
    """Return a short list: `'a' (2 rows), 'b' (1 row) and 5 more`."""
    return join_first((f"{label!r} ({count_of(rows, noun)})" for label, rows in rows_of_labels.items()), _NAMED)
