"""The rows of a test: those that are scored with their targets, and those that are left out with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.cache.reader import Cache
from emofuse.datasets import OnBadRows, read_dataset
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.targets import Targets, read_targets
from emofuse.errors import DatasetError, SpecError
from emofuse.evaluation.features import statuses
from emofuse.evaluation.labels import SharedClasses, share_classes
from emofuse.predict.models import ChosenModel
from emofuse.specs import (
    DatasetSpec,
    LabelMapSpec,
    OfficialSplit,
    RunSpec,
    StratifiedSplit,
    bundled_specs,
    parse_spec,
    read_label_map,
)
from emofuse.status import Status

RowsTested = Literal["auto", "test", "all"]
WITH_CLASSES = frozenset({"class", "distribution"})


@dataclass(frozen=True)
class TestedRows:
    """The rows of a test and the targets that they are compared with.

    Attributes:
        rows: the rows that are scored, (n,) int64, ascending.
        targets: the targets of all rows, in the shared classes.
        shared: the shared classes; None for a target without classes.
        which: the rows that were asked for, `test rows` or `all rows`.
        left_out: label -> the number of rows that are left out because it has no counterpart.
        unlabelled: the number of rows without a target.
        unreadable: the number of rows that no stream of the model could read.
    """

    rows: npt.NDArray[np.int64]
    targets: Targets
    shared: SharedClasses | None
    which: str
    left_out: dict[str, int]
    unlabelled: int
    unreadable: int

    def described(self) -> list[str]:
        """Return a line for each group of rows that is scored or left out."""
        lines = [f"rows: {len(self.rows):,} scored ({self.which})"]
        if self.shared is not None:
            used = self.shared.label_map
            if used is not None:
                lines.append(
                    f"map: {used.name}, from {used.source} to {used.target}, applied to the {self.shared.side}"
                )
            lines += [f"map: {sentence}" for sentence in self.shared.sentences]
        lines += [f"left out: {count:,} rows labelled {label}" for label, count in self.left_out.items()]
        for count, why in ((self.unlabelled, "without a label"), (self.unreadable, "whose files cannot be read")):
            lines += [f"left out: {count:,} rows {why}"] if count else []
        return lines


def read_other(dataset: DatasetSpec, *, on_bad_rows: OnBadRows = "raise") -> Manifest:
    """Read the other dataset. Its own split is kept; a split that would be drawn plays no part, so its rows have none.

    Raises:
        DatasetError: there are bad rows that are not to be kept, or the dataset as a whole is missing or faulty.
    """
    split = getattr(dataset, "split", None)
    try:
        manifest = read_dataset(dataset, on_bad_rows=on_bad_rows)
    except DatasetError as error:
        if not isinstance(split, OfficialSplit):
            raise
        split = StratifiedSplit()  # a dataset without a split of its own cannot be read by it
        try:
            manifest = read_dataset(dataset.model_copy(update={"split": split}), on_bad_rows=on_bad_rows)
        except DatasetError:
            raise error from None
    if isinstance(split, StratifiedSplit):
        return replace(manifest, table=manifest.table.with_columns(split=pl.lit(None, pl.String)))
    return manifest


def share(model: ChosenModel, of_data: Sequence[str], label_map: LabelMapSpec | None) -> SharedClasses | None:
    """Return the classes that a model and the data share; None for a model of numbers or of several labels.

    Raises:
        SpecError: the map is for another kind of target, or labels and classes do not fit.
        DatasetError: the data has no labels.
    """
    record = model.record
    if record.target_kind not in WITH_CLASSES:
        if label_map is not None:
            raise SpecError(
                f"label map {label_map.name}",
                [f"a map is for classes, and this model predicts a {record.target_kind}; leave out --map"],
            )
        return None
    if not of_data:
        raise DatasetError("the other data has no labels, so that there is nothing to score")
    maps = [] if label_map is not None else [read_label_map(name) for name in bundled_specs("label_maps")]
    return share_classes(record.classes, of_data, label_map, maps=maps)


def find_rows(model: ChosenModel, cache: Cache, label_map: LabelMapSpec | None, asked_for: RowsTested) -> TestedRows:
    """Return the rows of a test.

    Args:
        model: the model.
        cache: the cache of the other data.
        label_map: the map; None without.
        asked_for: `test` for test rows, `all` for every row, `auto` for test rows if there are any.

    Raises:
        SpecError: labels and classes do not fit, or a column of the target is not in the data.
        DatasetError: no row can be scored.
    """
    shared = share(model, cache.classes, label_map)
    targets = _targets(model, cache) if shared is None else Targets("class", shared.names, shared.labels(cache.labels))
    asked = _asked_rows(cache, asked_for)
    streams = model.record.spec["features"]["streams"]
    unreadable = np.all([status == Status.UNREADABLE for status in statuses(cache, streams).values()], axis=0)
    labelled = targets.labels >= 0 if shared is None else cache.labels >= 0
    rows = np.flatnonzero(asked & ~unreadable & (targets.labels >= 0))
    if not len(rows):
        raise DatasetError("no row of the other data can be scored: none has a readable file and a label that counts")
    left_out = {
        label: int((asked & (cache.labels == place)).sum())
        for place, label in enumerate(cache.classes)
        if shared is not None and shared.of_data[label] is None
    }
    return TestedRows(
        rows=rows,
        targets=targets,
        shared=shared,
        which="all rows" if asked.all() else "test rows",
        left_out=left_out,
        unlabelled=int((asked & ~labelled).sum()),
        unreadable=int((asked & unreadable & (targets.labels >= 0)).sum()),
    )


def _targets(model: ChosenModel, cache: Cache) -> Targets:
    spec = parse_spec(RunSpec, model.record.spec, f"run {model.record.digest[:16]}")
    targets = read_targets(cache.manifest, spec.target)
    if targets.names != tuple(model.record.classes):
        names, of_data = ", ".join(model.record.classes), ", ".join(targets.names)
        raise DatasetError(f"the model predicts {names}, and the other data has {of_data}")
    return targets


def _asked_rows(cache: Cache, asked_for: RowsTested) -> npt.NDArray[np.bool_]:
    is_test: npt.NDArray[np.bool_] = cache.splits == "test"
    if asked_for == "test" and not is_test.any():
        raise DatasetError("--rows test: the other data has no test rows; leave it out to score all rows")
    return is_test if is_test.any() and asked_for != "all" else np.ones(len(cache), np.bool_)
