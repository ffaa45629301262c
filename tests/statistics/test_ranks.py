"""Ranks over splits, against values computed by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, studentized_range

from emofuse.statistics.ranks import nemenyi_quantile, rank_test

SCORES = [
    [0.9, 0.8, 0.5, 0.6],
    [0.8, 0.7, 0.6, 0.5],
    [0.9, 0.8, 0.7, 0.6],
    [0.7, 0.8, 0.5, 0.6],
    [0.9, 0.8, 0.6, 0.5],
    [0.8, 0.7, 0.5, 0.5],
]
"""By hand, ranks of the four models: 1 2 4 3 | 1 2 3 4 | 1 2 3 4 | 2 1 4 3 | 1 2 3 4 | 1 2 3.5 3.5."""


def test_mean_ranks_statistic_critical_difference_and_groups_are_those_computed_by_hand():
    test = rank_test(SCORES)
    np.testing.assert_allclose(test.mean_ranks, [7 / 6, 11 / 6, 20.5 / 6, 21.5 / 6])
    # Squares of (sum of ranks - 15): 64 + 16 + 30.25 + 42.25 = 152.5; of (rank - 2.5) over all: 6 * 5 - 0.5 = 29.5.
    assert test.chi_square == pytest.approx(3 * 152.5 / 29.5)
    # q of four models is 2.569 (Demšar 2006, table 5), times the root of 4 * 5 / (6 * 6).
    assert test.critical_difference == pytest.approx(2.569 * (20 / 36) ** 0.5, abs=5e-4)
    assert test.is_significant
    # 1.915 apart or more: model 0 differs from 2 (2.25) and 3; model 1 from none of them (1.58 and 1.75).
    assert test.groups == ((0, 1), (1, 2, 3))


def test_equal_models_are_one_group_and_no_pair_of_them_is_tested():
    test = rank_test([[0.5, 0.5, 0.5]] * 5)
    assert (test.chi_square, test.p, test.groups) == (0.0, 1.0, ((0, 1, 2),))
    np.testing.assert_allclose(test.mean_ranks, [2, 2, 2])
    rotating = rank_test([[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3], [3, 2, 1]])
    assert not rotating.is_significant
    assert [len(group) for group in rotating.groups] == [3]


def test_models_that_all_differ_are_in_no_group():
    test = rank_test([[3, 2, 1]] * 40)
    assert test.p == 0.0
    assert test.groups == ()


def test_quantiles_are_those_of_demsar_and_scipy():
    table = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for models, quantile in table.items():
        assert nemenyi_quantile(models) == pytest.approx(quantile, abs=1.1e-3)  # the table is rounded, 3 and 7 by more
    assert nemenyi_quantile(10, 0.10) == pytest.approx(2.920, abs=1e-3)
    assert nemenyi_quantile(12) == pytest.approx(studentized_range.ppf(0.95, 12, np.inf) / 2**0.5, abs=1e-5)


def test_the_statistic_is_that_of_scipy_with_ties():
    scores = np.random.default_rng(0).integers(0, 4, (9, 5)) / 4
    assert rank_test(scores).chi_square == pytest.approx(friedmanchisquare(*scores.T).statistic)


def test_differences_in_the_last_bits_are_ties():
    np.testing.assert_allclose(rank_test([[0.1 + 0.2, 0.3, 0.1]] * 2).mean_ranks, [1.5, 1.5, 3])


@pytest.mark.parametrize("scores", [[[1, 2, 3]], [[1], [2]], [[1, 2], [float("nan"), 1]], [1, 2, 3]])
def test_scores_that_cannot_be_ranked_are_refused(scores):
    with pytest.raises(ValueError, match="expected finite scores of at least 2 splits and 2 models"):
        rank_test(scores)
