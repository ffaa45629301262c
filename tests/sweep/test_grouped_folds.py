"""Sweeps over folds that leave groups out, and over folds that are drawn several times."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from statistics import fmean, stdev

import polars as pl
import pytest
from small_question import planted, small_sweep

from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.errors import SpecError, TrainingError
from emofuse.specs import CrossValidation
from emofuse.sweep.choice import mean_and_error
from emofuse.sweep.options import SweepOptions
from emofuse.sweep.plan import plan_sweep
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.run import run_sweep
from emofuse.sweep.table import configuration_table

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

ON_CPU = SweepOptions(device="cpu")
FACTORS = {"factors": {"streams": [["signal"], ["noise"]]}}


@pytest.fixture
def grouped(tmp_path, write_cache):
    """A cache whose rows come from six films."""
    cache = open_cache(write_cache(tmp_path / "features.zarr", **planted()))
    films = pl.Series("group", [f"film {row % 6}" for row in range(len(cache))])
    manifest = replace(cache.manifest, table=cache.manifest.table.with_columns(films))
    manifest.write(manifest_path(cache.path))
    return open_cache(cache.path)


def test_a_sweep_leaves_out_one_group_after_another(grouped, tmp_path):
    spec = small_sweep(**FACTORS, folds={"kind": "leave_one_group_out"})
    assert "2 configurations, 12 heads" in plan_sweep(grouped, spec, tmp_path / "sweep", ON_CPU)
    summary = run_sweep(grouped, spec, tmp_path / "sweep", ON_CPU)
    assert summary.trained == 2 * 6
    assert Counter(row.fold for row in ResultsFolder(tmp_path / "sweep").rows()) == dict.fromkeys(range(6), 2)
    assert run_sweep(grouped, spec, tmp_path / "sweep", ON_CPU).trained == 0
    assert "over 6 folds" in summary.table


def test_a_sweep_that_leaves_groups_out_needs_some(tmp_path, write_cache):
    cache = open_cache(write_cache(tmp_path / "features.zarr", **planted()))
    spec = small_sweep(**FACTORS, folds={"kind": "leave_one_group_out"})
    with pytest.raises(TrainingError, match=r"leave_one_group_out needs a group for each labelled row .* none has one"):
        run_sweep(cache, spec, tmp_path / "sweep", ON_CPU)


def test_folds_are_drawn_several_times(grouped, tmp_path):
    spec = small_sweep(**FACTORS, folds={"count": 2, "repeats": 3})
    summary = run_sweep(grouped, spec, tmp_path / "sweep", ON_CPU)
    rows = list(ResultsFolder(tmp_path / "sweep").rows())
    assert summary.trained == len(rows) == 2 * 6
    assert {row.drawn_fold for row in rows} == {(seed, fold) for seed in range(3) for fold in range(2)}
    assert configuration_table(rows)["runs"].to_list() == [6, 6]
    assert "over 2 folds, 3 times" in summary.table


def test_the_error_of_folds_that_are_drawn_several_times_is_corrected(make_row):
    scores = [0.5, 0.6, 0.4, 0.7]
    base = make_row().spec

    def row(fold, seed, score):
        spec = {**base, "fold": {"count": 2, "index": fold, "seed": seed}}
        return make_row(fold=fold, spec=spec, val_macro_f1=score)

    rows = [row(place % 2, place // 2, score) for place, score in enumerate(scores)]
    mean, error = mean_and_error(rows, "macro_f1")
    assert mean == pytest.approx(fmean(scores))
    assert error == pytest.approx(stdev(scores) * math.sqrt(1 / 4 + 1 / 1))  # as many validation as training rows
    _, once = mean_and_error(rows[:2], "macro_f1")
    assert once == pytest.approx(stdev(scores[:2]) * math.sqrt(1 / 2 + 1 / 1))


def test_the_spec_of_a_cross_validation_keeps_its_former_form():
    assert CrossValidation().model_dump() == {"count": 5, "seed": 0}
    left_out = CrossValidation(kind="leave_one_group_out")
    assert CrossValidation.model_validate(left_out.model_dump()) == left_out
    assert [fold.index for fold in left_out.with_groups(3).each()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"folds": {"kind": "leave_one_group_out", "count": 4}},
            "count: leave_one_group_out has a fold for each group",
        ),
        (
            {"folds": {"repeats": 2}, "halving": {"first_epochs": 2}},
            "halving: compares configurations on the same folds",
        ),
    ],
)
def test_contradicting_settings_are_problems_of_the_spec(changes, message):
    with pytest.raises(SpecError, match=message):
        small_sweep(**changes)
