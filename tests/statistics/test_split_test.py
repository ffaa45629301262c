"""The corrected resampled t-test against its formula, SciPy and simulated splits."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy import stats

from emofuse.statistics import Interval, corrected_resampled_t


@pytest.mark.parametrize(("splits", "ratio"), [(2, 1 / 7), (5, 1 / 4), (10, 1 / 7), (50, 0.1)])
def test_it_is_the_formula_of_the_paper(splits, ratio):
    values = np.random.default_rng(splits).normal(0.02, 0.04, splits)
    found = corrected_resampled_t(values, ratio)
    mean = sum(values.tolist()) / splits
    variance = sum((value - mean) ** 2 for value in values.tolist()) / (splits - 1)
    error = math.sqrt((1 / splits + ratio) * variance)
    assert (found.difference, found.error, found.t) == pytest.approx((mean, error, mean / error))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean / error), splits - 1))
    low, high = stats.t.interval(0.95, splits - 1, loc=mean, scale=error)
    assert (found.interval.low, found.interval.high) == (pytest.approx(low), pytest.approx(high))
    assert found.splits == splits


def test_without_the_correction_it_is_the_t_test_of_scipy():
    values = np.random.default_rng(1).normal(0.01, 0.05, 12)
    found, expected = corrected_resampled_t(values, 1e-15), stats.ttest_1samp(values, 0)
    assert (found.t, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


def test_the_views_of_the_faces_help_by_no_more_than_chance():
    """The largest effect of views in the stored benchmark: t 2.0 as of independent splits, 1.29 corrected."""
    differences = [0.0456, 0.0408, 0.0603, -0.0141, 0.0373, 0.0262, -0.0282, -0.0167, 0.0411, 0.0036]
    independent = stats.ttest_1samp(differences, 0).statistic
    found = corrected_resampled_t(differences, 84 / 588)
    assert (independent, found.t) == (pytest.approx(2.005, abs=1e-3), pytest.approx(1.286, abs=1e-3))
    assert found.interval.low < 0 < found.interval.high


def test_equal_scores_do_not_differ_and_a_constant_difference_is_certain():
    assert corrected_resampled_t([0.0, 0.0, 0.0], 0.1).p == 1
    certain = corrected_resampled_t([0.25, 0.25], 0.1)
    assert (certain.p, certain.t, certain.interval) == (0, math.inf, Interval(0.25, 0.25))


def test_overlapping_splits_of_equal_learners_seldom_differ():
    """Two random classifiers, retrained on ten splits: the plain t-test finds far more than 5 % differences."""
    rng, rows, test, tries = np.random.default_rng(11), 120, 24, 600
    plain = corrected = 0
    for _ in range(tries):
        labels = rng.normal(size=rows) > 0
        features = rng.normal(size=(2, rows)) + labels  # two learners of equal worth, each with a feature of its own
        differences = []
        for _ in range(10):
            order = rng.permutation(rows)
            train, tested = order[test:], order[:test]
            right = []
            for feature in features:
                middle = (feature[train][labels[train]].mean() + feature[train][~labels[train]].mean()) / 2
                right.append(np.mean((feature[tested] > middle) == labels[tested]))
            differences.append(right[0] - right[1])
        plain += stats.ttest_1samp(differences, 0).pvalue < 0.05
        corrected += corrected_resampled_t(differences, test / (rows - test)).p < 0.05
    assert plain / tries > 0.15
    assert corrected / tries < 0.08


@pytest.mark.parametrize(
    ("values", "ratio", "message"),
    [
        ([0.1], 0.1, "expected at least 2 finite values, one for each split, got [0.1]"),
        ([0.1, math.nan], 0.1, "expected at least 2 finite values, one for each split, got [0.1 nan]"),
        ([0.1, 0.2], 0.0, "test_to_train: must be above 0, got 0.0"),
        ([0.1, 0.2], math.nan, "test_to_train: must be above 0, got nan"),
    ],
)
def test_what_cannot_be_tested_is_refused(values, ratio, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        corrected_resampled_t(values, ratio)
