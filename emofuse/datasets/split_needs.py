"""What runs need of the splits of a dataset: known from its labels and splits, before anything is extracted.

Plain values, no features: the same checks serve a dataset that was just read and a cache that is trained on.
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
ROWS_OF_A_LABEL = len(SPLITS)  # with fewer, a stratified split cannot give every split one
_NAMED = 3


class SplitNeed(NamedTuple):
    """What a run needs: labelled rows in train, val and test of a split, or enough for folds, and in test."""

    split: SplitSpec
    folds: int | None = None


def needs_of_runs(runs: Iterable[RunSpec]) -> list[SplitNeed]:
    """What these runs need, each thing once."""
    return list(dict.fromkeys(SplitNeed(run.split, run.fold.count if run.fold else None) for run in runs))


def needs_of_pipeline(spec: PipelineSpec) -> list[SplitNeed]:
    """What the runs of a pipeline need."""
    repeat = spec.repeat
    drawn = [
        run if run.split.kind == "holdout" else run.model_copy(update={"split": repeat.split}) for run in spec.runs
    ]
    return needs_of_runs(drawn if repeat.split_seeds else spec.runs)


def needs_of_sweep(spec: SweepSpec) -> list[SplitNeed]:
    """What a sweep needs: its search may use folds, its final runs choose their epoch on validation rows."""
    folds = [SplitNeed(spec.base.split, spec.folds.count)] if spec.folds else []
    return [SplitNeed(spec.base.split), *folds]


def check_needs(manifest: Manifest, needs: Sequence[SplitNeed]) -> None:
    """Holds a dataset against what is to be trained on it.

    Raises:
        TrainingError: a split without labelled rows, too few of them for folds, or training rows of one label.
    """
    labels, own = manifest.table["label"].to_list(), manifest.table["split"].to_list()
    for need in needs:
        splits = make_splits(labels, own, need.split)
        found: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for label, split in zip(labels, splits, strict=True):
            if label is not None and split is not None:
                found[split][label] += 1
        needed = SPLITS if need.folds is None else ("test",)
        check_splits(
            {split: USES[split] for split in needed if not found[split]},
            [split for split in SPLITS if found[split]],
            is_drawn=is_drawn(need.split, manifest.info),
            rows_of_labels=Counter(label for label in labels if label is not None),
        )
        training = found["train"] if need.folds is None else found["train"] + found["val"]
        if need.folds is not None:
            check_fold_rows(training.total(), need.folds)
        check_labels(training)


def describe_lack(manifest: Manifest, needs: Sequence[SplitNeed]) -> str | None:
    """What `check_needs` would raise, or None."""
    try:
        check_needs(manifest, needs)
    except TrainingError as error:
        return str(error)
    return None


def is_drawn(split: SplitSpec, info: Mapping[str, Any]) -> bool:
    """Whether a run's rows are split by their labels alone, by its own spec or by that of the dataset.

    Args:
        split: of the run.
        info: of the manifest.
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
    """Raises if there is a split without a labelled row.

    Args:
        lacking: split without rows -> what they are needed for.
        present: splits with rows.
        is_drawn: whether the splits were drawn from the labels, so that drawing again is no advice.
        rows_of_labels: label -> its rows, where they are known.

    Raises:
        TrainingError: with all of them, and a way that keeps the test rows if the dataset has some.
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
    """Raises if there are fewer labelled rows than folds.

    Raises:
        TrainingError: so.
    """
    if rows < count:
        besides = f" ({unreadable} more have pictures that cannot be read)" if unreadable else ""
        raise TrainingError(
            f"{count} folds need as many labelled rows in the splits 'train' and 'val', got {rows}{besides}. Take "
            "fewer folds, or have the labels split anew: `split: {kind: stratified}`"
        )


def check_labels(rows_of_labels: Mapping[str, int]) -> None:
    """Raises if training rows have one label alone.

    Args:
        rows_of_labels: label -> its training rows.

    Raises:
        TrainingError: so.
    """
    if len(rows_of_labels) == 1:
        ((label, rows),) = rows_of_labels.items()
        raise TrainingError(f"all {rows} training rows are labelled {label!r}: a head needs at least two labels")


def rare_labels(rows_of_labels: Mapping[str, int]) -> dict[str, int]:
    """Labels with too few rows for one in each split -> how many they have; the order is kept."""
    return {label: rows for label, rows in rows_of_labels.items() if 0 < rows < ROWS_OF_A_LABEL}


def describe_counts(rows_of_labels: Mapping[str, int]) -> str:
    """`'a' (2 rows), 'b' (1 row) and 5 more`."""
    named = [f"{label!r} ({rows} row{'s' * (rows != 1)})" for label, rows in list(rows_of_labels.items())[:_NAMED]]
    more = len(rows_of_labels) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
