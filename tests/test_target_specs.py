"""Specs of targets, in runs and sweeps."""

from __future__ import annotations

import pytest

from emofuse.errors import SpecError
from emofuse.specs import (
    BaseRun,
    ClassTarget,
    DistributionTarget,
    MultilabelTarget,
    RegressionTarget,
    RunSpec,
    SweepSpec,
    parse_spec,
)


def run_of(**fields) -> RunSpec:
    return parse_spec(RunSpec, {"name": "run", "features": {"streams": ["lbp"]}, **fields}, "pipelines/mine.yaml")


def test_a_run_without_target_is_written_as_before_there_were_targets():
    written = run_of().model_dump(mode="json")
    assert not {"target", "weight_column"} & set(written)
    assert run_of(target={"kind": "class"}).model_dump(mode="json") == written
    assert not {"target", "weight_column"} & set(BaseRun().model_dump(mode="json"))


def test_targets_are_read_by_kind_and_written_as_they_are_read():
    target = {"kind": "regression", "columns": ["valence", "arousal"], "loss": "ccc", "range": [-1, 1]}
    run = run_of(target=target, weight_column="confidence")
    assert run.target == RegressionTarget(columns=("valence", "arousal"), loss="ccc", range=(-1, 1))
    assert run.model_dump(mode="json")["target"] == target
    assert run_of(**run.model_dump(mode="json", exclude={"name", "features"})).target == run.target
    assert run_of(target={"kind": "multilabel", "columns": "happy"}).target == MultilabelTarget(columns=("happy",))
    assert run_of(target={"kind": "class", "column": "perceived"}).target == ClassTarget(column="perceived")


def test_the_classes_of_columns_are_their_names_without_the_common_prefix():
    listed = DistributionTarget(columns=["votes_sadness", "votes_surprise"])
    assert listed.column_of_class == {"sadness": "votes_sadness", "surprise": "votes_surprise"}
    assert DistributionTarget(columns=["joy", "joy_2"]).column_of_class == {"joy": "joy", "joy_2": "joy_2"}
    mapped = DistributionTarget(columns={"joy": "j", "anger": "a"})
    assert mapped.column_of_class == {"joy": "j", "anger": "a"}
    assert mapped.model_dump(mode="json")["columns"] == {"joy": "j", "anger": "a"}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ({"kind": "regresion", "columns": ["v"]}, "target.kind: 'regresion' is unknown, did you mean 'regression'?"),
        ({"kind": "class", "loss": "ccc"}, "target.loss: unknown key"),
        ({"kind": "regression", "columns": ["v"], "loss": "cc"}, "target.loss: must be mse or ccc, got 'cc'"),
        ({"kind": "regression", "columns": ["v", "v"]}, "target.columns: a column is named twice: v"),
        (
            {"kind": "regression", "columns": ["v"], "range": [1, -1]},
            "target.range: must be the lowest and",
        ),
        ({"kind": "multilabel"}, "target.columns: is missing"),
        ({"kind": "distribution", "columns": 3}, "target.columns: expected a mapping of classes to columns, or a list"),
        ({"kind": "distribution", "columns": {"joy": "a"}}, "target.columns: a distribution needs the columns of two"),
        ({"kind": "distribution", "columns": {"joy": "a", "fear": "a"}}, "target.columns: a column is named twice: a"),
    ],
)
def test_a_fault_of_a_target_is_one_clear_problem(target, problem):
    with pytest.raises(SpecError) as error:
        run_of(target=target)
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(problem)


def test_the_base_of_a_sweep_has_a_target_for_all_its_runs():
    base = {"target": {"kind": "regression", "columns": ["valence"]}, "weight_column": "w"}
    sweep = parse_spec(SweepSpec, {"name": "s", "base": base}, "sweeps/mine.yaml")
    assert sweep.base.target == RegressionTarget(columns=("valence",))
    assert sweep.base.weight_column == "w"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("columns", [["votes_joy", "votes_fear"], {"joy": "first", "fear": "second"}, ["votes"]])
def test_the_columns_of_a_distribution_are_written_and_read_without_a_warning(columns):
    run = RunSpec(name="a", features={"streams": ["x"]}, target={"kind": "distribution", "columns": columns})
    written = run.model_dump(mode="json")
    assert written["target"]["columns"] == columns
    assert RunSpec.model_validate(written) == RunSpec.model_validate_json(run.model_dump_json()) == run
