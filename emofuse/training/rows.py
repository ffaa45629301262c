"""The rows of a run besides their features: targets, splits, and the digest of both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emofuse.datasets.split_needs import check_outer_folds
from emofuse.datasets.splits import make_splits
from emofuse.errors import TrainingError
from emofuse.specs import RunSpec, SplitSpec, TargetSpec, digest
from emofuse.training.targets import THE_LABEL

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache
    from emofuse.datasets.targets import Targets


def targets_of(cache: Cache, target: TargetSpec = THE_LABEL, weight_column: str | None = None) -> Targets:
    """Return the targets and weights of all rows of a cache, those of the test rows among them.

    Raises:
        SpecError: a column that the manifest does not have.
        DatasetError: a column whose values are not what the target needs.
    """
    from emofuse.datasets.targets import Targets, read_targets  # these load the reader of tables

    if target == THE_LABEL and weight_column is None and cache.classes:
        return Targets("class", tuple(cache.classes), cache.labels)
    return read_targets(cache.manifest, target, weight_column)


def targets_of_run(cache: Cache, spec: RunSpec) -> Targets:
    """Return the targets and weights of a run, see `targets_of`."""
    return targets_of(cache, spec.target, spec.weight_column)


def only_rows(targets: Targets, visible: npt.NDArray[np.bool_]) -> Targets:
    """Return the targets of the visible rows; all others have label -1, values NaN and weight 0."""
    labels = np.where(visible, targets.labels, -1)
    has_target = labels >= 0
    return replace(
        targets,
        labels=labels,
        values=None if targets.values is None else np.where(has_target[:, None], targets.values, np.float32("nan")),
        weights=None if targets.weights is None else np.where(has_target, targets.weights, np.float32(0)),
    )


def run_splits(cache: Cache, spec: SplitSpec, targets: Targets) -> npt.NDArray[np.str_]:
    """Return (N,) str, the splits of a run: of the manifest, or seeded ones of its targets and groups; "" for none.

    Rows of a regression and of several labels are one stratum.

    Raises:
        TrainingError: outer folds, of which one lacks a label.
    """
    labels = targets.strata
    of_manifest = [str(split) for split in cache.splits]
    groups = [str(group) or None for group in cache.groups] if cache.has_groups else None
    check_outer_folds(labels, groups, spec)
    return np.asarray([split or "" for split in make_splits(labels, of_manifest, spec, groups)], dtype=np.str_)


def rows_digest(cache: Cache, splits: npt.NDArray[np.str_], targets: Targets) -> str:
    """Return the SHA-256 of what a run may see of its rows besides features, in their order.

    It covers ids, splits and labels, and the values and weights of targets that have them.

    Args:
        cache: the cache with the ids.
        splits: (N,) str.
        targets: the targets of all rows, or of those that the run may see.
    """
    rows: dict[str, Any] = {
        "classes": list(targets.names),
        "sample_ids": [str(sample_id) for sample_id in cache.sample_ids],
        "labels": targets.labels.tolist(),
        "splits": [str(split) for split in splits],
    }
    for name, array in (("values", targets.values), ("weights", targets.weights)):
        if array is not None:
            rows[name] = hashlib.sha256(np.nan_to_num(array).astype("<f4").tobytes()).hexdigest()
    return digest(rows)


def check_columns(names: Sequence[str], values: npt.NDArray[np.float32]) -> None:
    """Raise if a column of a regression has one value in all training rows (n, C).

    Raises:
        TrainingError: with all such columns.
    """
    constant = [
        f"{name!r} is {values[0, place]:g}" for place, name in enumerate(names) if np.ptp(values[:, place]) == 0
    ]
    if constant:
        raise TrainingError(
            f"target.columns: {' and '.join(constant)} in all {len(values)} training rows: there is nothing to learn. "
            "Leave such a column out"
        )
