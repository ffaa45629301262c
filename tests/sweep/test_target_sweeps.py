"""Sweeps whose heads learn votes, numbers or several labels."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.errors import SpecError
from emofuse.specs import SweepSpec, parse_spec
from emofuse.sweep.options import SweepOptions
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.run import run_sweep

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

VOTES = {"kind": "distribution", "columns": {"joy": "joy_votes", "fear": "fear_votes", "calm": "calm_votes"}}
NUMBERS = {"kind": "regression", "columns": ["valence", "arousal"]}
LABELS = {"kind": "multilabel", "columns": ["happy", "tense"]}


def sweep(target, **changes):
    small = {"kind": "concat", "embed_dim": 8, "depth": 1, "width": 8}
    plain = {
        "name": "targets",
        "base": {
            "head": small,
            "train": {"epochs": 4, "batch_size": 16, "learning_rate": 0.01},
            "target": target,
        },
        "factors": {"streams": [["net"], ["net", "face"]], "head": [small, "kernel_ridge"]},
        "folds": 3,
        "seeds": [0],
        "final": {"seeds": [0]},
    }
    return parse_spec(SweepSpec, plain | changes, "test")


@pytest.fixture(scope="module")
def cache(plant_targets, tmp_path_factory):
    return plant_targets(tmp_path_factory.mktemp("targets") / "features.zarr")


@pytest.mark.parametrize(
    ("target", "select", "headings"),
    [
        (VOTES, "macro_f1", ("Validation macro F1", "Test macro F1", "Test accuracy")),
        (NUMBERS, "ccc", ("Validation CCC", "Test CCC", "Test RMSE")),
        (LABELS, "map", ("Validation mAP", "Test mAP", "Test macro F1")),
    ],
)
def test_a_sweep_chooses_by_the_score_of_its_target_and_tests_what_it_chose(cache, tmp_path, target, select, headings):
    spec = sweep(target)
    assert spec.select == select
    summary = run_sweep(cache, spec, tmp_path, SweepOptions(device="cpu"))
    rows = ResultsFolder(tmp_path).rows()
    assert len(rows) == 4 * 3
    scores = [getattr(row, f"val_{select}") for row in rows]
    assert scores == [row.history[row.best_epoch - 1][f"val_{select}"] for row in rows]
    ranked = [each.score for each in summary.choice.ranked]
    assert ranked == sorted(ranked, reverse=True)
    heading = summary.table.splitlines()[0].lower()
    assert all(name.lower() in heading for name in headings), heading
    listed = CliRunner().invoke(app, ["results", str(tmp_path), "--by", "configuration"]).stdout
    assert f"val_{select}" in listed.splitlines()[0]
    assert ("val_macro_f1" in listed.splitlines()[0]) is (select == "macro_f1")
    again = run_sweep(cache, spec, tmp_path, SweepOptions(device="cpu"))
    assert again.trained == 0


@pytest.mark.parametrize(
    ("target", "changes", "message"),
    [
        (NUMBERS, {"select": "macro_f1"}, r"select: macro_f1 is no score of a regression"),
        (NUMBERS, {"factors": {"streams": [["net"]], "head": ["linear", "logistic"]}}, r"logistic gives probabilities"),
        (
            LABELS,
            {"factors": {"streams": [["net"]], "focal_gamma": [0.0, 1.0]}},
            r"train\.focal_gamma: is for targets of",
        ),
        (VOTES, {"select": "map"}, r"select: map is no score of a distribution"),
    ],
)
def test_a_sweep_over_what_its_target_cannot_have_is_one_clear_error(target, changes, message):
    with pytest.raises(SpecError, match=message) as error:
        sweep(target, **changes)
    assert "1 problem" in str(error.value)
