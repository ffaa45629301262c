"""Bootstrap, McNemar and Holm against plain loops, scikit-learn and SciPy, and by simulation."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import binomtest, chi2
from sklearn.metrics import accuracy_score, f1_score

from emofuse import statistics
from emofuse.statistics import (
    Interval,
    Resampling,
    RunPredictions,
    accuracy,
    bootstrap_interval,
    classes_without_rows,
    holm,
    macro_f1,
    mcnemar,
    paired_bootstrap,
    resample_metrics,
)

METRICS = (accuracy, macro_f1, classes_without_rows)


def make_run(rng, rows, classes, *, units=None, skill=0.6):
    """Predictions of some of the units, right with a probability of at least `skill`."""
    label = rng.integers(0, classes, rows)
    predicted = np.where(rng.random(rows) < skill, label, rng.integers(0, classes, rows))
    return RunPredictions(np.arange(rows) if units is None else units, label, predicted)


def naive_draws(units, resampling):
    """Units of each resample, as the documentation defines them, in whole numbers."""
    bits = np.random.PCG64(resampling.seed)
    for _ in range(resampling.count):
        yield [(word >> 11) * units // 2**53 for word in map(int, bits.random_raw(units))]


def naive_scores(run, drawn, classes):
    """The metrics of the rows that were drawn, each as often as it was."""
    row_of = {unit: row for row, unit in enumerate(run.unit.tolist())}
    rows = [row_of[unit] for unit in drawn if unit in row_of]
    if not rows:
        return [math.nan] * 3
    label, predicted = run.label[rows], run.predicted[rows]
    f1 = f1_score(label, predicted, average="macro", zero_division=0)
    return [accuracy_score(label, predicted), f1, classes - len(set(label.tolist()))]


@pytest.mark.parametrize(
    ("rows", "classes"),
    [
        pytest.param(60, 4, id="all classes"),
        pytest.param(5, 8, id="fewer rows than classes"),
        pytest.param(1, 2, id="one row"),
    ],
)
def test_resampled_metrics_equal_a_loop_over_drawn_rows(rows, classes):
    rng = np.random.default_rng(0)
    runs = [make_run(rng, rows, classes) for _ in range(3)]
    runs.append(RunPredictions(runs[0].unit, runs[0].label, runs[1].predicted))  # shares its rows with the first
    resampling = Resampling(40, seed=3)
    found = resample_metrics(runs, METRICS, units=rows, classes=classes, resampling=resampling)
    expected = [[naive_scores(run, drawn, classes) for run in runs] for drawn in naive_draws(rows, resampling)]
    np.testing.assert_allclose(found.drawn, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.observed, [naive_scores(run, range(rows), classes) for run in runs], atol=1e-12)


def test_runs_with_other_rows_are_drawn_by_their_units():
    rng = np.random.default_rng(1)
    units = [rng.permutation(30)[:12], rng.permutation(30)[:20], np.array([7])]
    runs = [make_run(rng, len(chosen), 3, units=chosen) for chosen in units]
    resampling = Resampling(50, seed=1)
    found = resample_metrics(runs, METRICS, units=30, classes=3, resampling=resampling)
    expected = [[naive_scores(run, drawn, 3) for run in runs] for drawn in naive_draws(30, resampling)]
    np.testing.assert_allclose(found.drawn, expected, rtol=0, atol=1e-12)
    assert np.isnan(found.drawn[:, 2]).any()  # a resample without the only row of a run has no score of it


def test_neither_batches_nor_other_runs_change_a_number(monkeypatch):
    rng = np.random.default_rng(2)
    runs = [make_run(rng, 50, 3) for _ in range(2)]
    how = {"units": 50, "classes": 3, "resampling": Resampling(25)}
    together = resample_metrics(runs, METRICS, **how)
    monkeypatch.setattr(statistics.resampling, "_BATCH_BYTES", 1)
    alone = resample_metrics(runs[1:], METRICS, **how)
    np.testing.assert_array_equal(alone.drawn[:, 0], together.drawn[:, 1])


def test_draws_are_the_same_on_every_machine():
    label = np.arange(6)
    found = resample_metrics(
        [RunPredictions(label, label, np.array([0, 1, 2, 0, 0, 0]))],
        [accuracy],
        units=6,
        classes=6,
        resampling=Resampling(5, seed=7),
    )
    assert (6 * found.drawn[:, 0, 0]).round().astype(int).tolist() == [2, 4, 2, 3, 2]


def test_counts_are_exact_where_float32_is_not_trusted(monkeypatch):
    rng = np.random.default_rng(3)
    runs, how = [make_run(rng, 50, 3)], {"units": 50, "classes": 3, "resampling": Resampling(25)}
    single = resample_metrics(runs, METRICS, **how)
    monkeypatch.setattr(statistics.resampling, "EXACT_FLOAT32", 1)
    np.testing.assert_array_equal(resample_metrics(runs, METRICS, **how).drawn, single.drawn)


def test_a_resample_of_a_single_class_has_defined_scores():
    label = np.array([0, 0, 0, 1])
    found = resample_metrics(
        [RunPredictions(np.arange(4), label, label)], METRICS, units=4, classes=2, resampling=Resampling(200)
    )
    lacking = found.drawn[:, 0, 2] == 1
    assert 0 < lacking.sum() < 200
    assert set(found.drawn[:, 0, 1]) == {1.0}  # over the class that was drawn alone
    assert set(found.drawn[:, 0, 0]) == {1.0}


def test_any_function_of_a_confusion_matrix_is_a_metric():
    def recall_of_first(confusion):
        return confusion[..., 0, 0] / np.maximum(confusion[..., 0, :].sum(-1), 1)

    run = make_run(np.random.default_rng(4), 80, 3)
    found = resample_metrics([run], [recall_of_first], units=80, classes=3, resampling=Resampling(10))
    assert found.observed[0, 0] == pytest.approx(np.mean(run.predicted[run.label == 0] == 0))
    assert found.drawn.shape == (10, 1, 1)


def test_rows_of_a_group_are_drawn_together():
    rng = np.random.default_rng(8)
    group = rng.integers(0, 9, 40)
    group[:9] = range(9)
    run, resampling = make_run(rng, 40, 3, units=group), Resampling(30, seed=2)
    found = resample_metrics([run], METRICS, units=9, classes=3, resampling=resampling)
    expected = []
    for drawn in naive_draws(9, resampling):
        rows = [row for unit in drawn for row in np.flatnonzero(group == unit)]
        label, predicted = run.label[rows], run.predicted[rows]
        f1 = f1_score(label, predicted, average="macro", zero_division=0)
        expected.append([accuracy_score(label, predicted), f1, 3 - len(set(label.tolist()))])
    np.testing.assert_allclose(found.drawn[:, 0], expected, rtol=0, atol=1e-12)


def test_a_formula_may_give_several_scores():
    def both(confusion):
        return np.stack([accuracy(confusion), macro_f1(confusion)], axis=-1)

    how = {"units": 30, "classes": 3, "resampling": Resampling(9)}
    runs = [make_run(np.random.default_rng(3), 30, 3)]
    together = resample_metrics(runs, [both, classes_without_rows], **how)
    np.testing.assert_array_equal(together.drawn, resample_metrics(runs, METRICS, **how).drawn)


def test_drawn_repeats_have_the_variance_of_training_inside():
    """The variance of the mean of K repeats is that of the units plus s^2 / K, s^2 with K - 1 degrees of freedom."""
    scores = np.array([0.50, 0.56, 0.59, 0.47])
    drawn = np.random.default_rng(4).normal(0, 0.01, (40_000, 1, 1)) + scores[None, :, None]
    resampled = statistics.Resampled(scores[:, None], drawn)
    fixed, free = resampled.mean(range(4)), resampled.mean_of_drawn(range(4), [0, 1])
    assert fixed.drawn.var() == pytest.approx(0.01**2, rel=0.03)
    assert free.drawn.var() == pytest.approx(0.01**2 + scores.var(ddof=1) / 4, rel=0.03)
    assert free.drawn.mean() == pytest.approx(scores.mean(), abs=1e-3)
    np.testing.assert_array_equal(free.drawn, resampled.mean_of_drawn(range(4), [0, 1]).drawn)
    np.testing.assert_array_equal(resampled.mean_of_drawn([2], [0]).drawn, drawn[:, [2]])


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_intervals_over_repeats_cover_the_mean_of_all_trainings(spread):
    """Images of unequal difficulty and repeats of unequal skill; without the second, intervals are as of the images."""
    rng, rows, repeats, tries = np.random.default_rng(21), 150, 5, 300
    covered = conditional = 0
    for seed in range(tries):
        label, hardness = rng.integers(0, 3, rows), rng.uniform(-0.2, 0.2, rows)
        runs = []
        for skill in rng.normal(0.6, spread, repeats):
            right = rng.random(rows) < np.clip(skill + hardness, 0, 1)
            runs.append(RunPredictions(np.arange(rows), label, np.where(right, label, (label + 1) % 3)))
        found = resample_metrics(runs, [accuracy], units=rows, classes=3, resampling=Resampling(300, seed))
        for_all = bootstrap_interval(found.mean_of_drawn(range(repeats), [seed]).drawn[:, 0, 0])
        for_these = bootstrap_interval(found.mean(range(repeats)).drawn[:, 0, 0])
        covered += for_all.low <= 0.6 <= for_all.high
        conditional += for_these.low <= 0.6 <= for_these.high
    assert covered / tries > 0.86  # five repeats tell little of their spread
    assert covered / tries < 0.99
    assert conditional / tries < (0.75 if spread else 0.97)


def test_repeats_are_averaged_within_each_resample():
    rng = np.random.default_rng(5)
    runs = [make_run(rng, 20, 3), make_run(rng, 20, 3), make_run(rng, 1, 3, units=np.array([4]))]
    found = resample_metrics(runs, METRICS, units=20, classes=3, resampling=Resampling(60))
    mean = found.mean([0, 2])
    assert mean.observed.shape == (1, 3)
    assert mean.observed[0, 0] == pytest.approx(found.observed[[0, 2], 0].mean())
    for drawn, one, other in zip(mean.drawn[:, 0, 0], found.drawn[:, 0, 0], found.drawn[:, 2, 0], strict=True):
        assert drawn == pytest.approx(one if math.isnan(other) else (one + other) / 2)
    assert np.isnan(found.mean([2]).drawn).any()


def test_the_interval_is_the_middle_of_what_was_drawn():
    drawn = np.random.default_rng(6).permutation(np.append(np.arange(1001.0), math.nan))
    assert bootstrap_interval(drawn) == Interval(pytest.approx(25.0), pytest.approx(975.0))
    assert bootstrap_interval(drawn, level=0.5) == Interval(pytest.approx(250.0), pytest.approx(750.0))


def test_an_interval_of_nothing_is_undefined():
    found = bootstrap_interval(np.array([math.nan]))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def simulate(seed, rows, skill):
    """One test split of four classes of unequal size and a classifier of known accuracy."""
    rng = np.random.default_rng([9, seed])
    label = rng.choice(4, rows, p=[0.4, 0.3, 0.2, 0.1])
    predicted = np.where(rng.random(rows) < skill, label, (label + rng.integers(1, 4, rows)) % 4)
    return RunPredictions(np.arange(rows), label, predicted)


def test_intervals_cover_the_true_scores_about_as_often_as_they_say():
    """Of 400 intervals of 95 % about 380, with a standard error of 4.4; the percentile interval is a little short."""
    rows, skill, tries = 400, 0.6, 400
    population = simulate(10**6, 400_000, skill)
    true = resample_metrics([population], METRICS, units=400_000, classes=4, resampling=Resampling(1)).observed[0]
    covered = np.zeros(2)
    for seed in range(tries):
        run = simulate(seed, rows, skill)
        found = resample_metrics([run], METRICS, units=rows, classes=4, resampling=Resampling(400, seed))
        for place in range(2):
            interval = bootstrap_interval(found.drawn[:, 0, place])
            covered[place] += interval.low <= true[place] <= interval.high
    assert covered.min() / tries >= 0.92
    assert covered.max() / tries <= 0.98


def test_the_paired_test_equals_its_definition():
    rng = np.random.default_rng(7)
    ours, theirs = rng.normal(0.7, 0.02, 199), rng.normal(0.68, 0.02, 199)
    found = paired_bootstrap(0.71, 0.68, ours, theirs)
    far = sum(abs((a - b) - 0.03) >= 0.03 for a, b in zip(ours.tolist(), theirs.tolist(), strict=True))
    assert found.difference == pytest.approx(0.03)
    assert found.p == pytest.approx((1 + far) / 200)
    assert found.interval == bootstrap_interval(ours - theirs)


def test_equal_scores_differ_by_nothing_and_a_certain_difference_is_never_p_zero():
    same = np.linspace(0, 1, 99)
    assert paired_bootstrap(0.5, 0.5, same, same).p == 1.0
    assert paired_bootstrap(0.9, 0.1, np.full(99, 0.9), np.full(99, 0.1)).p == 0.01


def test_p_values_are_uniform_when_nothing_differs():
    """Two classifiers of equal skill, 1,000 test splits: a tenth of the p values is below 0.1, and so on."""
    rows, tries = 300, 1_000
    bootstrapped, exact = [], []
    for seed in range(tries):
        rng = np.random.default_rng([11, seed])
        label = rng.integers(0, 3, rows)
        answers = [np.where(rng.random(rows) < 0.7, label, (label + 1) % 3) for _ in range(2)]
        runs = [RunPredictions(np.arange(rows), label, answer) for answer in answers]
        found = resample_metrics(runs, [accuracy, macro_f1], units=rows, classes=3, resampling=Resampling(300, seed))
        tests = [paired_bootstrap(*found.observed[:, k], *found.drawn[:, :, k].T) for k in range(2)]
        bootstrapped.append([test.p for test in tests])
        exact.append(mcnemar(*(answer == label for answer in answers)).p)
    shares = np.array([[np.mean(np.array(bootstrapped)[:, k] < at) for at in (0.05, 0.1, 0.5)] for k in range(2)])
    np.testing.assert_allclose(shares, [[0.05, 0.1, 0.5]] * 2, atol=0.035)
    assert np.mean(np.array(exact) < 0.05) < 0.07  # the correction for continuity makes it cautious, never bold


def test_a_real_difference_is_found():
    rng = np.random.default_rng(12)
    label = rng.integers(0, 3, 1000)
    answers = [np.where(rng.random(1000) < skill, label, (label + 1) % 3) for skill in (0.6, 0.7)]
    runs = [RunPredictions(np.arange(1000), label, answer) for answer in answers]
    found = resample_metrics(runs, [accuracy], units=1000, classes=3, resampling=Resampling(999))
    test = paired_bootstrap(found.observed[1, 0], found.observed[0, 0], found.drawn[:, 1, 0], found.drawn[:, 0, 0])
    assert test.p == pytest.approx(0.001)
    assert test.interval.low > 0
    assert mcnemar(*(answer == label for answer in answers)).p < 0.001


def pairs(lost, gained, both=3, neither=2):
    """Predictions with these discordant counts."""
    first = np.repeat([True, False, True, False], [lost, gained, both, neither])
    second = np.repeat([False, True, True, False], [lost, gained, both, neither])
    return first, second


@pytest.mark.parametrize(("lost", "gained"), [(0, 1), (3, 3), (12, 12), (2, 9), (24, 0), (5, 19), (10, 11)])
def test_few_discordant_pairs_are_tested_exactly(lost, gained):
    found = mcnemar(*pairs(lost, gained))
    assert (found.lost, found.gained, found.exact) == (lost, gained, True)
    assert found.p == pytest.approx(binomtest(lost, lost + gained).pvalue, rel=1e-12)


@pytest.mark.parametrize(("lost", "gained"), [(25, 0), (12, 13), (13, 13), (40, 61), (1000, 1100), (0, 5000)])
def test_many_discordant_pairs_are_tested_by_chi_square_with_the_correction(lost, gained):
    found = mcnemar(*pairs(lost, gained))
    expected = chi2.sf(max(0, abs(lost - gained) - 1) ** 2 / (lost + gained), df=1)
    assert (found.lost, found.gained, found.exact) == (lost, gained, False)
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_chi_square_takes_over_where_it_is_close_to_the_binomial():
    for lost in range(statistics.EXACT_BELOW // 2 + 1):
        gained = statistics.EXACT_BELOW - lost
        assert mcnemar(*pairs(lost, gained)).p == pytest.approx(binomtest(lost, lost + gained).pvalue, abs=0.005)


def test_classifiers_that_agree_on_everything_do_not_differ():
    assert mcnemar(*pairs(0, 0)).p == 1.0
    assert mcnemar(np.zeros(0, bool), np.zeros(0, bool)).p == 1.0


def test_groups_of_one_unit_are_tested_as_by_the_binomial():
    first, second = pairs(5, 14)
    found = mcnemar(first, second, np.arange(len(first)))
    assert (found.lost, found.gained, found.grouped) == (5, 14, True)
    assert found.p == pytest.approx(binomtest(5, 19).pvalue, abs=0.01)


def test_groups_count_as_often_as_they_are_independent():
    """Ten speakers with twenty clips each, all alike: 200 gained clips are the evidence of ten, not of 200."""
    gained = np.repeat([True] * 8 + [False] * 2, 20)
    groups = np.repeat(np.arange(10), 20)
    assert mcnemar(~gained, gained).p < 1e-10
    assert mcnemar(~gained, gained, groups).p == pytest.approx(binomtest(2, 10).pvalue, abs=0.01)
    assert mcnemar(gained, gained, groups).p == 1.0


def naive_holm(p_values):
    """Rejects step by step; a corrected value is the smallest level at which its hypothesis is rejected."""

    def rejected(level):
        found = set()
        for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[place] * (len(p_values) - step) > level:
                break
            found.add(place)
        return found

    levels = sorted({1.0, *(min(1.0, p * k) for p in p_values for k in range(1, len(p_values) + 1))})
    return [
        next(level for level in levels if level == 1.0 or place in rejected(level)) for place in range(len(p_values))
    ]


def test_holm_equals_stepwise_rejection():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    rng = np.random.default_rng(13)
    for size in (1, 2, 7, 30):
        p_values = (rng.random(size) ** 3).round(2).tolist()  # with ties
        assert holm(p_values).tolist() == pytest.approx(naive_holm(p_values))


def test_holm_of_nothing_is_nothing():
    assert holm([]).tolist() == []


@pytest.mark.parametrize("bad", [[0.5, math.nan], [-0.1], [1.1]])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(ValueError, match=re.escape(f"expected p values between 0 and 1, got {np.array(bad)}")):
        holm(bad)


def test_holm_keeps_false_findings_rare():
    """Twenty true null hypotheses: without correction 64 % of all families have a false finding, with it 5 %."""
    rng = np.random.default_rng(14)
    families = rng.random((2000, 20))
    assert np.mean(families.min(axis=1) < 0.05) > 0.6
    assert np.mean([holm(family).min() < 0.05 for family in families]) == pytest.approx(0.05, abs=0.015)


ROWS = np.arange(3)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no run to resample"),
        (
            [RunPredictions(ROWS, ROWS, ROWS[:2])],
            "run 0: expected unit, label and predicted of one shape (n,), n >= 1, got (3,), (3,) and (2,)",
        ),
        (
            [RunPredictions(ROWS[:0], ROWS[:0], ROWS[:0])],
            "run 0: expected unit, label and predicted of one shape (n,), n >= 1, got (0,), (0,) and (0,)",
        ),
        ([RunPredictions(ROWS + 1, ROWS, ROWS)], "run 0: unit must be 0 .. 2, got 1 .. 3"),
        ([RunPredictions(ROWS, ROWS - 1, ROWS)], "run 0: label must be 0 .. 2, got -1 .. 1"),
        (
            [RunPredictions(ROWS, ROWS, ROWS), RunPredictions(ROWS, ROWS, ROWS * 2)],
            "run 1: predicted must be 0 .. 2, got 0 .. 4",
        ),
    ],
)
def test_runs_that_cannot_be_resampled_are_refused(runs, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resample_metrics(runs, METRICS, units=3, classes=3, resampling=Resampling(2))


def test_pairs_must_be_of_the_same_rows():
    with pytest.raises(ValueError, match=re.escape("expected (B,) scores of the same resamples, got (2,) and (3,)")):
        paired_bootstrap(0.5, 0.5, np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match=re.escape("expected (n,) predictions of the same units, got (2,) and (3,)")):
        mcnemar(np.zeros(2, bool), np.zeros(3, bool))
    with pytest.raises(ValueError, match="count must be >= 1, got 0"):
        Resampling(0)


def test_statistics_need_numpy_alone():
    code = (
        "import sys, emofuse.statistics; "
        "print([m for m in ('scipy', 'sklearn', 'torch', 'polars', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
