"""What streams are worth for numbers and several labels."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.analysis.explain import ExplainOptions, explain
from emofuse.analysis.solved_outputs import SolvedOptions, solve_outputs
from emofuse.analysis.target_worth import measure_target_worth
from emofuse.errors import ResultsError, TrainingError
from emofuse.metrics.regression import regression_scores
from emofuse.specs import RunSpec, parse_spec
from emofuse.statistics import Resampling
from emofuse.training.runs import train_runs

FAST = SolvedOptions(folds=2, landmarks=60, penalties=5)
COLUMNS = {"regression": ["valence", "arousal"], "multilabel": ["happy", "tense"]}


def spec_of(kind):
    plain = {"name": kind, "features": {"streams": ["net"]}, "head": {"kind": "kernel_ridge", "landmarks": 60}}
    target = {"kind": kind, "columns": COLUMNS[kind]}
    return parse_spec(RunSpec, {**plain, "target": target, "split": {"kind": "official"}}, "test")


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_worth_of_streams_sums_to_the_score_of_all_less_that_of_the_mean(plant_targets, tmp_path, kind):
    cache = plant_targets(tmp_path / "features.zarr")
    outputs = solve_outputs(cache, (), FAST, target=spec_of(kind).target)
    worth = measure_target_worth(outputs, kind, Resampling(200, 0))
    streams = worth.game.players
    assert sum(worth.get(stream).value for stream in streams) == pytest.approx(
        worth.values[-1].value - worth.values[0].value
    )
    assert worth.get("net").interval.low > 0.1
    if kind == "regression":
        everything = outputs.outputs[frozenset(streams)]
        assert worth.values[-1].value == pytest.approx(regression_scores(outputs.values, everything)["ccc"][0])
        assert worth.values[0].value == pytest.approx(0, abs=0.05)


def test_a_class_has_no_such_score(plant_targets, tmp_path):
    outputs = solve_outputs(plant_targets(tmp_path / "features.zarr"), (), FAST)
    with pytest.raises(TrainingError, match="measured for regression, multilabel and classes, got class"):
        measure_target_worth(outputs, "class", Resampling(10, 0))


def test_runs_on_numbers_are_explained_as_far_as_they_can_be_and_other_parts_say_why_not(
    plant_targets, tmp_path, monkeypatch
):
    cache = plant_targets(tmp_path / "features.zarr")
    monkeypatch.setattr("emofuse.analysis.sources.open_cache", lambda _: cache)  # its columns are not on the disk
    train_runs(cache, [spec_of("regression")], tmp_path / "runs", device="cpu")
    said = []
    written, (section,) = explain(tmp_path, ExplainOptions(resamples=50), said.append)
    assert written.is_file()
    assert section.key == "worth"
    assert "mean CCC" in section.sentences[0]
    assert "suppression" in said[0]
    assert "regression predicts regression" in said[0]
    with pytest.raises(ResultsError, match="calibration: not possible, their scores are of rows with a class"):
        explain(tmp_path, ExplainOptions(parts=("calibration",)))
    with pytest.raises(ResultsError, match=r"mistakes: not possible.*--parts worth"):
        explain(tmp_path, ExplainOptions(parts=("worth", "mistakes")))
    assert np.isfinite(section.numbers["subsets"][-1]["ccc"])
