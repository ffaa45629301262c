"""Labels, targets, weights and groups of test rows have no influence on where other rows are placed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from emofuse.datasets.manifest import Manifest
from emofuse.datasets.split_needs import make_folds
from emofuse.datasets.splits import make_splits
from emofuse.datasets.targets import read_targets
from emofuse.specs import (
    ClassTarget,
    DistributionTarget,
    FoldSpec,
    HoldoutSplit,
    MultilabelTarget,
    RegressionTarget,
)

TARGETS = [
    ClassTarget(),
    ClassTarget(column="perceived"),
    DistributionTarget(columns=["votes_a", "votes_b"]),
    RegressionTarget(columns="valence"),
    MultilabelTarget(columns="votes_c"),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.kind} {target}")
@pytest.mark.parametrize("spec", [HoldoutSplit(val=0.25), FoldSpec(count=3)], ids=["holdout", "folds"])
def test_labels_targets_weights_and_groups_of_test_rows_place_no_other_row(target, spec):
    rng = np.random.default_rng(0)
    rows, is_test = 60, np.arange(60) >= 45
    splits = ["test" if test else "train" for test in is_test]
    numbers = {name: rng.integers(0, 2, rows) for name in ("votes_a", "votes_b", "votes_c")}
    columns = {
        **{name: values + (name != "votes_c") for name, values in numbers.items()},
        "label": rng.choice(["a", "b"], rows),
        "perceived": rng.choice(["a", "b"], rows),
        "group": np.where(is_test, "film", rng.choice([f"speaker {number}" for number in range(12)], rows)),
        "valence": rng.normal(size=rows),
        "w": rng.random(rows),
    }

    def placed(columns):
        table = {name: values.tolist() for name, values in columns.items()}
        ids = {"sample_id": [f"s{row}" for row in range(rows)], "split": splits, "problem": [None] * rows}
        manifest = Manifest(pl.DataFrame(ids | table), ("a", "b"), Path("/data"), {})
        strata = read_targets(manifest, target, "w").strata
        if isinstance(spec, HoldoutSplit):
            return make_splits(strata, splits, spec, manifest.groups)
        return make_folds(
            [None if test else name for name, test in zip(strata, is_test, strict=True)], manifest.groups, spec
        )

    poisoned = {name: values.copy() for name, values in columns.items()}
    poisoned["label"][is_test] = poisoned["perceived"][is_test] = "a"
    poisoned["valence"][is_test] = 1e30
    poisoned["w"][is_test] = 1e30
    poisoned["votes_a"][is_test] = 1000
    poisoned["group"][is_test] = [f"speaker {row % 12}" for row in np.flatnonzero(is_test)]
    assert placed(poisoned) == placed(columns)
    assert {placed(columns)[row] for row in range(45)} == ({"train", "val"} if spec.kind == "holdout" else {0, 1, 2})
