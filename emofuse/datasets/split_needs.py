"""Checks of what runs need of the splits of a dataset, by its labels and splits alone, before anything is extracted.

They need no features, so that they serve a dataset that was just read as well as a cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from emofuse.datasets.splits import SPLITS, make_splits
from emofuse.errors import TrainingError
from emofuse.specs.datasets import OfficialSplit, SplitSpec

if TYPE_CHECKING:
    from emofuse.datasets.manifest import Manifest
    from emofuse.specs import PipelineSpec, RunSpec, SweepSpec

USES: Mapping[str, str] = {"train": "to learn from", "val": "to choose the epoch on", "test": "to report on"}
ROWS_OF_A_LABEL = len(SPLITS)  # with fewer rows, a label cannot have one in every split
_NAMED = 3


class SplitNeed(NamedTuple):
    """The need of a run: labelled rows in train, val and test; or in test and, for folds, enough others."""

    split: SplitSpec
    folds: int | None = None


def needs_of_runs(runs: Iterable[RunSpec]) -> list[SplitNeed]:
    """Return the needs of runs, each once."""
    heads = (head for run in runs for head in run.heads())
    return list(dict.fromkeys(SplitNeed(head.split, head.fold.count if head.fold else None) for head in heads))


def needs_of_pipeline(spec: PipelineSpec) -> list[SplitNeed]:
    """Return the needs of the runs of a pipeline."""
    repeat = spec.repeat
    drawn = [
        run if run.split.kind == "holdout" else run.model_copy(update={"split": repeat.split}) for run in spec.runs
    ]
    return needs_of_runs(drawn if repeat.split_seeds else spec.runs)


def needs_of_sweep(spec: SweepSpec) -> list[SplitNeed]:
    """Return the needs of a sweep, whose search may use folds and whose final runs need validation rows."""
    folds = [SplitNeed(spec.base.split, spec.folds.count)] if spec.folds else []
    return [SplitNeed(spec.base.split), *folds]


def check_needs(manifest: Manifest, needs: Sequence[SplitNeed]) -> None:
    """Check that a dataset has the rows that runs need.

    Raises:
        TrainingError: a split has no labelled rows, there are too few for folds, or all training rows have one label.
    """
    labels, official = manifest.table["label"].to_list(), manifest.table["split"].to_list()
    for need in needs:
        splits = make_splits(labels, official, need.split)
        counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for label, split in zip(labels, splits, strict=True):
            if label is not None and split is not None:
                counts[split][label] += 1
        needed = SPLITS if need.folds is None else ("test",)
        check_splits(
            {split: USES[split] for split in needed if not counts[split]},
            [split for split in SPLITS if counts[split]],
            is_drawn=is_drawn(need.split, manifest.info),
            rows_of_labels=Counter(label for label in labels if label is not None),
        )
        training = counts["train"] if need.folds is None else counts["train"] + counts["val"]
        if need.folds is not None:
            check_fold_rows(training.total(), need.folds)
        check_labels(training)


def describe_lack(manifest: Manifest, needs: Sequence[SplitNeed]) -> str | None:
    """Return the message of the error that `check_needs` raises, or None."""
    try:
        check_needs(manifest, needs)
    except TrainingError as error:
        return str(error)
    return None


def is_drawn(split: SplitSpec, info: Mapping[str, Any]) -> bool:
    """Return whether the split is drawn from the labels alone, by the spec of the run or that of the dataset.

    Args:
        split: the split of the run.
        info: the info of the manifest.
    """
    of_dataset = info.get("split") or {}
    return split.kind == "stratified" or (isinstance(split, OfficialSplit) and of_dataset.get("kind") == "stratified")


def check_splits(
    lacking: Mapping[str, str],
    present: Collection[str],
    *,
    is_drawn: bool = False,
    rows_of_labels: Mapping[str, int] | None = None,
) -> None:
    """Raise if a split has no labelled row.

    Args:
        lacking: each split without rows -> what its rows are needed for.
        present: the splits with rows.
        is_drawn: whether the splits were drawn from the labels, so that drawing again does not help.
        rows_of_labels: label -> its number of rows, if known.

    Raises:
        TrainingError: a split has no labelled row; the message names all such splits and advice that keeps the test
            rows if the dataset has some.
    """
    if not lacking:
        return
    named = " nor ".join(f"{split!r} ({why})" for split, why in lacking.items())
    advice = _advice_for_drawn(rows_of_labels) if is_drawn else _advice(set(lacking), set(present))
    raise TrainingError(f"no labelled row has split {named}. {advice}")


def _advice_for_drawn(rows_of_labels: Mapping[str, int] | None) -> str:
    counts = ""
    if rows_of_labels:
        rare = rare_labels(rows_of_labels)
        counts = f"; {len(rare)} of {len(rows_of_labels)} labels have fewer: {describe_counts(rare)}"
    return (
        f"The split is drawn label by label, and a label needs {ROWS_OF_A_LABEL} rows to have one in each of train, "
        f"val and test{counts}. Add rows of these labels, or merge labels"
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


def check_fold_rows(rows: int, count: int, *, unreadable: int = 0) -> None:
    """Raise if there are fewer labelled rows than folds.

    Raises:
        TrainingError: there are fewer labelled rows than folds.
    """
    if rows < count:
        others = f" ({unreadable} more have pictures that cannot be read)" if unreadable else ""
        raise TrainingError(
            f"{count} folds need as many labelled rows in the splits 'train' and 'val', got {rows}{others}. Take "
            "fewer folds, or have the labels split anew: `split: {kind: stratified}`"
        )


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


def describe_counts(rows_of_labels: Mapping[str, int]) -> str:
    """Return a short list: `'a' (2 rows), 'b' (1 row) and 5 more`."""
    named = [f"{label!r} ({rows} row{'s' * (rows != 1)})" for label, rows in list(rows_of_labels.items())[:_NAMED]]
    more = len(rows_of_labels) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
