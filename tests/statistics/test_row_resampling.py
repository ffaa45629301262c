"""Resampled scores of numbers, several labels and distributions, held against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from emofuse.metrics.distribution import distribution_scorer
from emofuse.metrics.multilabel import multilabel_scorer
from emofuse.metrics.regression import regression_scorer
from emofuse.metrics.targets import target_metrics
from emofuse.statistics import Resampling, ScoredRows, bootstrap_interval, paired_bootstrap, resample_rows

ROWS, UNITS = 60, 20


def case(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if kind == "regression":
        target = rng.normal(size=(ROWS, 2))
        return target, target + rng.normal(size=(ROWS, 2))
    if kind == "multilabel":
        target = (rng.random((ROWS, 2)) < [0.4, 0.05]).astype(np.float64)
        return target, np.round(0.3 * target + 0.7 * rng.random((ROWS, 2)), 1)
    return rng.dirichlet(np.ones(3), ROWS), rng.dirichlet(np.ones(3), ROWS)


SCORERS = {"regression": regression_scorer, "multilabel": multilabel_scorer, "distribution": distribution_scorer}
PLACES = {
    "regression": (0, lambda scores: scores["mean"]["ccc"]),
    "multilabel": (0, lambda scores: scores["macro"]["map"]),
    "distribution": (2, lambda scores: scores["distribution"]["js"]),
}


def drawn_rows(unit: np.ndarray, resampling: Resampling) -> list[np.ndarray]:
    """The rows of each resample, by the words of PCG64 that the statistics document."""
    bits = np.random.PCG64(resampling.seed)
    drawn = []
    for _ in range(resampling.count):
        units = [int(UNITS * (int(word) >> 11) / 2**53) for word in bits.random_raw(UNITS)]
        drawn.append(np.concatenate([np.flatnonzero(unit == each) for each in units]))
    return drawn


@pytest.mark.parametrize("kind", SCORERS)
@pytest.mark.parametrize("grouped", [False, True])
def test_resampled_scores_are_those_of_a_plain_loop_over_drawn_rows(kind, grouped):
    unit = np.arange(ROWS) % UNITS if grouped else np.arange(UNITS)
    cases = [tuple(array[: len(unit)] for array in case(kind, seed)) for seed in (0, 1)]
    resampling = Resampling(25, seed=3)
    runs = [ScoredRows(unit, SCORERS[kind](*each)) for each in cases]
    found = resample_rows(runs, units=UNITS, resampling=resampling)
    place, score_of = PLACES[kind]
    for run, (target, outputs) in enumerate(cases):
        names = [f"c{column}" for column in range(target.shape[1])]
        observed = score_of(target_metrics(kind, target, outputs, names))
        assert found.observed[run, place] == pytest.approx(observed)
        for resample, rows in enumerate(drawn_rows(unit, resampling)):
            expected = score_of(target_metrics(kind, target[rows], outputs[rows], names))
            expected = np.nan if expected is None else expected
            assert found.drawn[resample, run, place] == pytest.approx(expected, nan_ok=True)


def test_a_resample_without_a_row_of_a_label_leaves_it_out_of_the_mean():
    target = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    outputs = np.array([[0.9, 0.6], [0.8, 0.7], [0.3, 0.1], [0.2, 0.2]])
    found = resample_rows(
        [ScoredRows(np.arange(4), multilabel_scorer(target, outputs))], units=4, resampling=Resampling(200)
    )
    without = np.isnan(found.drawn[:, 0, 7])  # the average precision of the second label
    assert 30 < without.sum() < 120
    np.testing.assert_allclose(found.drawn[without, 0, 0], found.drawn[without, 0, 4])
    assert found.observed[0, 4] == pytest.approx(average_precision_score(target[:, 0], outputs[:, 0]))


@pytest.mark.parametrize("kind", SCORERS)
def test_scores_do_not_depend_on_the_size_of_batches(kind, monkeypatch):
    runs = [ScoredRows(np.arange(ROWS), SCORERS[kind](*case(kind, 0)))]
    whole = resample_rows(runs, units=ROWS, resampling=Resampling(30)).drawn
    monkeypatch.setattr("emofuse.statistics.row_resampling._BATCH_BYTES", 1)
    one_by_one = resample_rows(runs, units=ROWS, resampling=Resampling(30)).drawn
    np.testing.assert_allclose(whole, one_by_one, rtol=1e-10, atol=1e-12)


def test_the_interval_of_a_concordance_covers_the_truth_as_often_as_it_says():
    rng, inside, trials = np.random.default_rng(0), 0, 200
    for trial in range(trials):
        target = rng.normal(size=(150, 1))
        outputs = 0.8 * target + 0.6 * rng.normal(size=(150, 1))  # unit variance, correlation 0.8: CCC is 0.8
        runs = [ScoredRows(np.arange(150), regression_scorer(target, outputs))]
        drawn = resample_rows(runs, units=150, resampling=Resampling(400, seed=trial)).drawn[:, 0, 0]
        interval = bootstrap_interval(drawn)
        inside += interval.low <= 0.8 <= interval.high
    assert 0.89 <= inside / trials <= 0.99


def test_equal_answers_differ_by_nothing_and_undefined_ones_have_no_difference():
    target, outputs = case("regression", 0)
    target[:, 1] = 1.0
    runs = [ScoredRows(np.arange(ROWS), regression_scorer(target, outputs))] * 2
    found = resample_rows(runs, units=ROWS, resampling=Resampling(100))
    same = paired_bootstrap(*found.observed[:, 0], *found.drawn[:, :, 0].T)
    assert (same.difference, same.p) == (0.0, 1.0)
    undefined = paired_bootstrap(*found.observed[:, 8], *found.drawn[:, :, 8].T)  # CCC of the constant column
    assert np.isnan(undefined.difference)
    assert np.isnan(undefined.interval.low)
    assert undefined.p == 1.0


@pytest.mark.parametrize("unit", [np.zeros(0, np.int64), np.array([0, 5]), np.array([-1, 0])])
def test_units_out_of_range_are_refused(unit):
    with pytest.raises(ValueError, match=r"run 0: expected units \(n,\), n >= 1, between 0 and 4"):
        resample_rows([ScoredRows(unit, lambda weights: weights)], units=5, resampling=Resampling(10))
    with pytest.raises(ValueError, match="no run to resample"):
        resample_rows([], units=5, resampling=Resampling(10))


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_the_paired_test_seldom_calls_equals_different(kind):
    """Two models of equal noise differ by chance alone: p is below 5 % in about 5 % of the pairs."""
    rng, alarms, trials = np.random.default_rng(1), 0, 200
    for trial in range(trials):
        target = rng.normal(size=(120, 1)) if kind == "regression" else (rng.random((120, 1)) < 0.3).astype(np.float64)
        outputs = [1 / (1 + np.exp(-(target + rng.normal(size=target.shape)))) for _ in range(2)]
        runs = [ScoredRows(np.arange(120), SCORERS[kind](target, each)) for each in outputs]
        found = resample_rows(runs, units=120, resampling=Resampling(300, seed=trial))
        alarms += paired_bootstrap(*found.observed[:, 0], *found.drawn[:, :, 0].T).p < 0.05
    assert 0.01 <= alarms / trials <= 0.1
