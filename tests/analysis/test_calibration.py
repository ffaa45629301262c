"""Temperatures, calibration errors with intervals, and withheld answers."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.analysis.calibration import (
    cross_fitted,
    fit_temperature,
    measure_calibration,
    measure_selective,
    wilson,
    with_temperature,
)
from emofuse.metrics.probability_metrics import calibration_error, log_loss
from emofuse.statistics import Resampling

RESAMPLING = Resampling(300, 0)


@pytest.fixture(scope="module")
def drawn():
    """Labels that are drawn from true probabilities."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4) * 0.7, size=3000)
    label = np.array([rng.choice(4, p=row) for row in probs])
    return probs, label


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_known_sharpness(drawn, sharpness):
    probs, label = drawn
    sharp = with_temperature(probs, 1 / sharpness)
    temperature = fit_temperature(sharp, label)
    assert temperature == pytest.approx(sharpness, rel=0.1)
    assert np.allclose(with_temperature(sharp, sharpness), probs, atol=1e-3)  # tiny probabilities are clipped


def test_a_temperature_changes_no_answer(drawn):
    probs, _ = drawn
    assert (with_temperature(probs, 2.7).argmax(axis=1) == probs.argmax(axis=1)).all()


def test_temperatures_are_fitted_on_other_rows(drawn):
    probs, label = (each[:200] for each in drawn)
    unit = np.arange(200) // 4
    scaled, temperatures = cross_fitted(probs, label, unit, seed=1)
    assert len(temperatures) == 5
    part = (np.random.default_rng(1).permutation(50) % 5)[unit]
    for number in range(5):
        others = fit_temperature(probs[part != number], label[part != number])
        assert temperatures[number] == pytest.approx(others)
        assert np.allclose(scaled[part == number], with_temperature(probs[part == number], others))


def test_the_calibration_error_and_log_loss_are_those_of_the_metrics(drawn):
    probs, label = (each[:400] for each in drawn)
    found = measure_calibration(probs, label, np.arange(400), RESAMPLING)
    assert found.ece == pytest.approx(calibration_error(label, probs))
    assert found.log_loss == pytest.approx(log_loss(label, probs))
    assert sum(each.rows for each in found.bins) == 400
    assert found.ece_interval.low < found.ece_interval.high


def test_sharp_probabilities_are_worse_calibrated_until_their_temperature(drawn):
    probs, label = (each[:1000] for each in drawn)
    sharp = with_temperature(probs, 0.3)
    before = measure_calibration(sharp, label, np.arange(1000), RESAMPLING)
    after = measure_calibration(
        with_temperature(sharp, fit_temperature(sharp, label)), label, np.arange(1000), RESAMPLING
    )
    assert before.ece_interval.low > after.ece_interval.high
    assert before.confidence > before.accuracy + 0.1


def test_wilsons_interval_is_that_of_a_known_example():
    interval = wilson(8, 10)  # Wilson, 1927, as in R's prop.test without continuity correction
    assert (interval.low, interval.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10).low == 0


def test_the_most_confident_answers_are_counted_first():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    found = measure_selective(probs, np.array([0, 0, 1, 1]), np.arange(4), RESAMPLING)
    assert found.curve == pytest.approx([1, 1, 2 / 3, 1 / 2])
    half = next(each for each in found.coverages if each.share == 0.5)
    assert (half.accuracy, half.threshold) == (1, pytest.approx(0.8))
    assert found.aurc == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert found.aurc == pytest.approx(found.aurc_of_oracle)
    assert found.aurc_of_chance == 0.5


def test_confidence_that_says_something_lowers_the_risk(drawn):
    probs, label = (each[:1000] for each in drawn)
    found = measure_selective(probs, label, np.arange(1000), RESAMPLING)
    assert found.aurc_interval.high < found.aurc_of_chance
    assert found.aurc > found.aurc_of_oracle
    assert found.coverages[-1].accuracy > found.coverages[0].accuracy
