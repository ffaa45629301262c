"""The A/A check on planted runs: about 5 % where the null hypothesis holds, far more where it does not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from emofuse.errors import ResultsError
from emofuse.report.grouping import group_runs
from emofuse.statistics_check import ONE_RUN, SEVERAL_RUNS, SPLITS, FalseAlarms, check_statistics

_SPEC = importlib.util.spec_from_file_location("report_conftest", Path(__file__).parent / "report" / "conftest.py")
_RUNS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_RUNS)


@pytest.fixture
def make(tmp_path):
    make_run = _RUNS.RunMaker(tmp_path / "runs")

    def make(name="a", **how):
        return make_run(name, **{"classes": ("joy", "fear", "rage"), "rows": 600, "epochs": 2, **how})

    make.folder = make_run.folder
    return make


def check(make, runs):
    return {(each.test, each.of): each for each in check_statistics(group_runs(runs, "runs"), make.folder)}


def test_equals_are_called_different_in_about_five_percent(make):
    runs = [make(seed=seed) for seed in range(40)]
    found = check(make, runs)
    for test in ("bootstrap over images, accuracy", "bootstrap over images, macro.f1", "McNemar"):
        alarms = found[test, ONE_RUN]
        assert (alarms.pairs, alarms.independent) == (100, 20)
        assert alarms.rate <= 0.15
        assert alarms.interval.low <= 0.05 <= alarms.interval.high
    halves = found["bootstrap over images and repeats, accuracy", SEVERAL_RUNS]
    assert (halves.pairs, halves.independent) == (20, 1)


def test_planted_differences_between_seeds_are_found_by_tests_of_the_images_alone(make):
    """Half of the seeds end in a far worse head: tests that leave training out see it as a difference."""
    runs = [make(seed=seed, skill=0.3 if seed % 2 else 0.9) for seed in range(12)]
    found = check(make, runs)
    for test in ("bootstrap over images, accuracy", "McNemar"):
        alarms = found[test, ONE_RUN]
        assert alarms.pairs == 66
        assert alarms.rate > 0.4
        assert alarms.interval.low > 0.05
    halves = found["bootstrap over images and repeats, accuracy", SEVERAL_RUNS]
    assert halves.rate < 0.2  # the spread of the seeds is inside


def test_seeds_on_several_splits_are_tested_over_splits(make):
    runs = [make(split_seed=split, seed=seed) for split in range(5) for seed in range(3)]
    found = check(make, runs)
    assert {of for _, of in found} == {SPLITS}
    alarms = found["corrected resampled t, accuracy", SPLITS]
    assert (alarms.pairs, alarms.independent) == (3, 1)
    assert alarms.rate <= 1 / 3


def test_the_interval_is_the_exact_binomial_one():
    from scipy.stats import binomtest

    found = FalseAlarms("test", ONE_RUN, pairs=20, alarms=3, independent=20).interval
    expected = binomtest(3, 20).proportion_ci(method="exact")
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    fewer = FalseAlarms("test", ONE_RUN, pairs=190, alarms=19, independent=10).interval
    assert fewer.high - fewer.low > 0.4  # pairs with a run in common are no independent tries
    none = FalseAlarms("test", ONE_RUN, pairs=4, alarms=0, independent=4).interval
    assert (none.low, np.round(none.high, 3)) == (0, 0.602)


def test_too_few_repeats_are_an_error(make):
    runs = [make(seed=seed) for seed in range(3)]
    with pytest.raises(ResultsError, match="no configuration has 4 runs on one split, or two on each of several"):
        check_statistics(group_runs(runs, "runs"), make.folder)
