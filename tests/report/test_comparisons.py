"""Intervals and comparisons of a report: the statistics of the right rows, and why some are not computed."""

from __future__ import annotations

import re
import weakref
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from emofuse.errors import ResultsError
from emofuse.metrics.confusion import accuracy, macro_f1
from emofuse.report import comparisons, pool_scores
from emofuse.report.answers import seed_of_repeats
from emofuse.report.comparisons import Coverage, find_pairs, measure_uncertainty
from emofuse.report.grouping import group_runs
from emofuse.report.measures import MEASURED
from emofuse.results import read_predictions, run_dir
from emofuse.statistics import (
    Interval,
    Resampled,
    Resampling,
    RunPredictions,
    SplitTest,
    bootstrap_interval,
    corrected_resampled_t,
    holm,
    paired_bootstrap,
    resample_metrics,
)

CLASSES = ("joy", "fear", "rage")


@pytest.fixture
def make(make_run):
    def make(name="a", **how):
        return make_run(name, **{"classes": CLASSES, "rows": 300, "epochs": 2, **how})

    make.folder = make_run.folder
    return make


def measure(make, *runs, **how):
    return measure_uncertainty(group_runs(runs, "runs", **how), make.folder)


def naive_accuracies(make, runs, resampling):
    """(B, runs) accuracies on resamples of all images that any run has among its test rows."""
    found = [read_predictions(run_dir(make.folder, run.digest)) for run in runs]
    images = sorted({sample for one in found for sample in one.sample_id.tolist()})
    right = [
        dict(zip(one.sample_id.tolist(), (one.probs.argmax(axis=1) == one.label).tolist(), strict=True))
        for one in found
    ]
    bits = np.random.PCG64(resampling.seed)
    drawn = []
    for _ in range(resampling.count):
        words = bits.random_raw(len(images)).tolist()
        chosen = [images[(word >> 11) * len(images) // 2**53] for word in words]
        hits = [[of_run[image] for image in chosen if image in of_run] for of_run in right]
        drawn.append([np.mean(hit) if hit else np.nan for hit in hits])
    return np.array(drawn)


def test_intervals_and_tests_of_single_runs_are_those_of_the_images(make):
    runs = [make(name, skill=skill) for name, skill in (("base", 0.5), ("a", 0.7))]
    found = measure(make, *runs)
    assert found.resampling == Resampling(2_000, 0)
    assert found.coverage["base"].images == 30
    assert found.problems == ()
    base, ours = naive_accuracies(make, runs, found.resampling).T
    accuracies = [run.metrics["test"]["accuracy"] for run in runs]
    for label, values in (("base", base), ("a", ours)):
        expected = bootstrap_interval(values)
        interval = found.intervals[label]["accuracy"]
        assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    expected = paired_bootstrap(accuracies[1], accuracies[0], ours, base)
    test = found.comparisons["a", "base"].tests["accuracy"]
    assert test.difference == pytest.approx(expected.difference)
    assert test.p == pytest.approx(expected.p)
    assert test.interval.low == pytest.approx(expected.interval.low)
    assert set(found.comparisons) == {("a", "base")}
    assert found.coverage["a"] == Coverage(1, 1, 30, None, pytest.approx(30 / 210))


def test_repeats_on_one_split_are_drawn_with_the_images(make):
    """The variance of the mean of K runs is that over images plus that of training, which images do not explain."""
    runs = [make("a", seed=seed, skill=skill) for seed, skill in enumerate((0.2, 0.4, 0.6, 0.8))]
    found = measure(make, *runs)
    drawn = naive_accuracies(make, runs, found.resampling)
    scores = np.array([run.metrics["test"]["accuracy"] for run in runs])
    over_images = drawn.mean(axis=1).std()
    rest = drawn - drawn.mean(axis=1, keepdims=True) - (scores - scores.mean())
    by_images = (rest**2).sum(axis=1).mean() / 3
    expected = np.sqrt(over_images**2 + (scores.var(ddof=1) - by_images) / 4)
    interval = found.intervals["a"]["accuracy"]
    assert (interval.high - interval.low) / (2 * 1.96) == pytest.approx(expected, rel=0.1)
    assert expected > 1.5 * over_images
    assert interval.low < scores.mean() < interval.high


def test_configurations_with_the_same_seeds_draw_the_same_repeats(make):
    """Equal predictions differ by nothing, whatever repeats are drawn."""
    base = [make("base", seed=seed, skill=skill) for seed, skill in enumerate((0.2, 0.5, 0.8))]
    ours = [make("a", seed=seed) for seed in range(3)]
    for of_base, of_ours in zip(base, ours, strict=True):
        source, target = (run_dir(make.folder, run.digest) / "predictions.npz" for run in (of_base, of_ours))
        target.write_bytes(source.read_bytes())
    runs = [*base, *(replace(run, metrics=of_base.metrics) for run, of_base in zip(ours, base, strict=True))]
    test = measure(make, *runs).comparisons["a", "base"].tests["accuracy"]
    assert (test.difference, test.interval, test.p) == (0, Interval(0, 0), 1)


def test_overlapping_splits_have_the_corrected_t_test(make):
    splits, seeds = (3, 4, 7, 8), (0, 1)
    runs = [
        make(name, split_seed=split, seed=seed, skill=skill)
        for name, skill in (("base", 0.5), ("a", 0.7))
        for split in splits
        for seed in seeds
    ]
    found = measure(make, *runs)
    for path, score in (("accuracy", lambda m: m["accuracy"]), ("macro.f1", lambda m: m["macro"]["f1"])):
        scores = np.array([score(run.metrics["test"]) for run in runs]).reshape(2, 4, 2).mean(axis=2)
        expected = corrected_resampled_t(scores[1] - scores[0], 30 / 210)
        test = found.comparisons["a", "base"].tests[path]
        assert isinstance(test, SplitTest)
        assert (test.difference, test.p, test.splits) == (
            pytest.approx(expected.difference),
            pytest.approx(expected.p),
            4,
        )
        interval = corrected_resampled_t(scores[1], 30 / 210).interval
        ours = found.intervals["a"][path]
        assert (ours.low, ours.high) == (pytest.approx(interval.low), pytest.approx(min(1, interval.high)))
    assert found.coverage["a"].splits == 4
    assert found.intervals["a"]["per_class.1.f1"].low < found.intervals["a"]["per_class.1.f1"].high


def test_the_interval_over_splits_stays_between_the_bounds_of_a_score(make):
    runs = [make("a", split_seed=split, skill=skill) for split, skill in ((0, 0.4), (1, 1.0))]
    interval = measure(make, *runs).intervals["a"]["accuracy"]  # one degree of freedom: wider than all scores
    assert (interval.low, interval.high) == (0, 1)


def grouped(make, run, group):
    """Write the groups of a run's test rows to its predictions."""
    path = run_dir(make.folder, run.digest) / "predictions.npz"
    found = read_predictions(path.parent)
    np.savez(path, sample_id=found.sample_id, label=found.label, probs=found.probs, group=np.array(group))


def test_groups_of_images_are_drawn_as_a_whole(make):
    base, ours = make("base", skill=0.5, rows=600), make("a", skill=0.5, rows=600)
    alone = measure(make, base, ours)
    answers = read_predictions(run_dir(make.folder, base.digest))
    order = np.argsort(answers.probs.argmax(axis=1) == answers.label, kind="stable")
    group = np.empty(60, dtype="U9")
    group[order] = [f"speaker {place // 6}" for place in range(60)]  # all clips of a speaker are right or wrong
    for run in (base, ours):
        grouped(make, run, group)
    found = measure(make, base, ours)
    assert found.coverage["base"].groups == 10
    wide, narrow = found.intervals["base"]["accuracy"], alone.intervals["base"]["accuracy"]
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert found.comparisons["a", "base"].mcnemar.grouped
    assert (alone.coverage["a"].groups, alone.comparisons["a", "base"].mcnemar.grouped) == (None, False)


def test_images_without_a_group_are_groups_of_their_own(make):
    base, ours = make("base"), make("a")
    alone = measure(make, base, ours)
    for run in (base, ours):
        grouped(make, run, [""] * 30)
    found = measure(make, base, ours)
    assert found.coverage["a"].groups == 30
    ends = [each.intervals["a"]["accuracy"] for each in (found, alone)]
    assert ends[0].high - ends[0].low == pytest.approx(ends[1].high - ends[1].low, rel=0.1)


def test_runs_of_a_former_release_take_the_groups_of_the_others(make):
    base, ours = make("base"), make("a")
    grouped(make, ours, [f"film {place // 10}" for place in range(30)])
    found = measure(make, base, ours)
    assert {found.coverage[label].groups for label in ("base", "a")} == {3}
    assert set(found.comparisons) == {("a", "base")}


def test_any_two_configurations_are_compared_and_all_are_one_family(make):
    runs = [make(name, skill=skill) for name, skill in (("base", 0.4), ("a", 0.5), ("b", 0.9))]
    results = group_runs(runs, "runs")
    found = measure_uncertainty(results, make.folder, [("b", "a"), ("b", "base"), ("base", "a")])
    assert found.asked_for("base") == [("b", "a")]  # comparisons with the baseline are there already, in either order
    every = [found.comparisons["a", "base"], found.comparisons["b", "base"], found.comparisons["b", "a"]]
    assert list(found.comparisons.values()) == every
    corrected = holm([one.tests["accuracy"].p for one in every]).tolist()
    assert [one.corrected["accuracy"] for one in every] == corrected
    test = found.comparisons["b", "a"].tests["accuracy"]
    accuracies = [run.metrics["test"]["accuracy"] for run in runs]
    assert test.difference == pytest.approx(accuracies[2] - accuracies[1])
    reverse = measure_uncertainty(results, make.folder, [("a", "b")]).comparisons["a", "b"]
    assert reverse.tests["accuracy"].difference == -test.difference
    assert (reverse.mcnemar.lost, reverse.mcnemar.gained) == (
        found.comparisons["b", "a"].mcnemar.gained,
        found.comparisons["b", "a"].mcnemar.lost,
    )


def test_a_pair_on_different_images_is_not_compared_and_the_reason_is_told(make):
    results = group_runs([make("base"), make("a", split_seed=0), make("b", split_seed=1)], "runs")
    found = measure_uncertainty(results, make.folder, [("a", "b")])
    assert found.asked_for("base") == []
    assert "a and b are not compared, because they were scored on different test images." in found.problems


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("a", "runs: a comparison is written as A=B, got 'a'"),
        ("a=c", "runs: no runs of the configuration 'c', there are: 'base', 'a', 'x=y'"),
        ("a=a", "runs: a configuration cannot be compared with itself, got 'a=a'"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(make, wanted, message):
    results = group_runs([make("base"), make("a"), make("x=y")], "runs")
    wanted_pairs = ["a=base", "x=y = a", ("base", "a"), ("x=y", "base")]
    assert find_pairs(results, wanted_pairs, "runs") == [("a", "base"), ("x=y", "a"), ("x=y", "base")]
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        find_pairs(results, [wanted], "runs")


def test_point_estimates_are_those_of_the_tables(make):
    runs = [make(name, seed=seed, skill=skill) for name, skill in (("base", 0.4), ("a", 0.6)) for seed in (0, 1, 2)]
    results = group_runs(runs, "runs")
    found = measure_uncertainty(results, make.folder)
    for path in MEASURED:
        test = found.comparisons["a", "base"].tests[path]
        assert test.difference == pytest.approx(results.difference(results.configurations[1], path).mean)
        interval = found.intervals["a"][path]
        assert interval.low < results.configurations[1].metric(path).mean < interval.high


def test_mcnemar_compares_the_mean_probabilities_image_by_image(make):
    runs = [make(name, seed=seed, skill=skill) for name, skill in (("base", 0.4), ("a", 0.7)) for seed in (0, 1, 2)]
    test = measure(make, *runs).comparisons["a", "base"].mcnemar
    found = [read_predictions(run_dir(make.folder, run.digest)) for run in runs]
    base, ours = (
        np.mean([one.probs.astype(np.float64) for one in part], axis=0).argmax(axis=1) == found[0].label
        for part in (found[:3], found[3:])
    )
    assert (test.lost, test.gained) == (np.sum(base & ~ours), np.sum(ours & ~base))
    assert test.p == pytest.approx(binomtest(test.lost, test.lost + test.gained).pvalue)


def test_each_kind_of_test_is_corrected_over_all_comparisons(make):
    runs = [make(f"c{index}", skill=0.4 + 0.06 * index) for index in range(6)]
    found = measure(make, *runs).comparisons
    assert len(found) == 5
    for path in MEASURED:
        expected = holm([one.tests[path].p for one in found.values()])
        assert [one.corrected[path] for one in found.values()] == expected.tolist()
    expected = holm([one.mcnemar.p for one in found.values()])
    assert [one.mcnemar_corrected for one in found.values()] == expected.tolist()


def test_resamples_grow_with_the_comparisons_so_that_the_least_p_value_survives_correction(make):
    runs = [make(f"c{index:02}", rows=30) for index in range(23)]
    assert measure(make, *runs).resampling.count == 2_200


def test_resamples_are_limited_by_a_budget_of_work_and_never_fewer_than_the_least(make, monkeypatch):
    runs = [make(f"c{index:02}", rows=300) for index in range(23)]
    every = 23 * (30 + comparisons.ROWS_OF_A_RUN)  # of 300 rows, 30 are test rows
    monkeypatch.setattr(comparisons, "MOST_WORK", 2_150 * every + 7)
    found = measure(make, *runs)
    assert found.resampling.count == 2_150
    assert found.least_p("accuracy") == 22 / 2_151
    assert min(one.corrected["accuracy"] for one in found.comparisons.values()) >= 22 / 2_151
    monkeypatch.setattr(comparisons, "MOST_WORK", 1)
    assert measure(make, *runs).resampling.count == comparisons.LEAST_RESAMPLES


def test_configurations_scored_block_by_block_have_the_numbers_of_all_at_once_bit_for_bit(make, monkeypatch):
    runs = [make(name, seed=seed, skill=skill) for name, skill in (("base", 0.4), ("a", 0.6)) for seed in (0, 1, 2)]
    runs += [make(name, skill=skill) for name, skill in (("b", 0.5), ("c", 0.7))]
    results = group_runs(runs, "runs")
    pairs = [("c", "b"), ("b", "a")]  # b is the first of one pair and the second of another
    whole = measure_uncertainty(results, make.folder, pairs)
    monkeypatch.setattr(pool_scores, "_BLOCK_BYTES", 1)
    assert measure_uncertainty(results, make.folder, pairs) == whole

    found = [read_predictions(run_dir(make.folder, run.digest)) for run in runs]
    order = [np.argsort(one.sample_id, kind="stable") for one in found]
    answers = [
        RunPredictions(np.arange(30), one.label[at].astype(np.int64), one.probs[at].argmax(axis=1))
        for one, at in zip(found, order, strict=True)
    ]
    resampled = resample_metrics(answers, [accuracy, macro_f1], units=30, classes=3, resampling=whole.resampling)
    places = {"base": [0, 1, 2], "a": [3, 4, 5], "b": [6], "c": [7]}
    means = {
        item.label: resampled.mean_of_drawn(places[item.label], seed_of_repeats(item.repeats, 0))
        for item in results.configurations
    }
    for place, path in enumerate(MEASURED):
        for label, mean in means.items():
            assert whole.intervals[label][path] == bootstrap_interval(mean.drawn[:, 0, place])
        for first, second in (("a", "base"), ("b", "base"), ("c", "base"), *pairs):
            ours, theirs = means[first], means[second]
            expected = paired_bootstrap(
                float(ours.observed[0, place]),
                float(theirs.observed[0, place]),
                ours.drawn[:, 0, place],
                theirs.drawn[:, 0, place],
            )
            assert whole.comparisons[first, second].tests[path] == expected


def test_only_the_resampled_scores_of_configurations_that_others_are_compared_with_are_kept(make, monkeypatch):
    monkeypatch.setattr(pool_scores, "_BLOCK_BYTES", 1)
    held, most = [], 0
    whole = Resampled.mean_of_drawn

    def counted(scores, *how):
        nonlocal most
        mean = whole(scores, *how)
        held.append(weakref.ref(mean.drawn))
        most = max(most, sum(one() is not None for one in held))
        return mean

    monkeypatch.setattr(Resampled, "mean_of_drawn", counted)
    results = group_runs([make(f"c{index}") for index in range(12)], "runs")
    measure_uncertainty(results, make.folder, [("c3", "c4")])
    assert len(held) == 24  # of each configuration the compared scores, and the others
    assert most <= 4  # the baseline, c4, the one that is scored and the one before it


def test_the_same_runs_give_the_same_numbers(make):
    runs = [make("a"), make("b")]
    assert measure(make, *runs) == measure(make, *runs)


def test_repeats_need_not_be_as_many_as_those_of_the_baseline(make):
    runs = [make("base", seed=seed) for seed in (0, 1, 2)] + [make("a", seed=7)]
    found = measure(make, *runs)
    assert set(found.comparisons) == {("a", "base")}
    assert found.problems == ()


def test_a_single_configuration_has_an_interval_and_no_comparison(make):
    found = measure(make, make("only"))
    assert set(found.intervals) == {"only"}
    assert (found.comparisons, found.problems) == ({}, ())


def test_other_test_images_are_not_compared_and_the_reason_is_told(make):
    runs = [make("base", split_seed=0), make("same", split_seed=0), make("other", split_seed=1), make("official")]
    found = measure(make, *runs)
    assert set(found.comparisons) == {("same", "base")}
    assert set(found.intervals) == {"base", "same", "other", "official"}
    (problem,) = found.problems
    assert problem == "Not compared, because scored on other test images than the baseline base: other and official."


def test_images_of_which_sets_were_drawn_are_counted(make):
    found = measure(make, make("a", rows=300), make("b", rows=600))
    assert [found.coverage[label].images for label in ("a", "b")] == [30, 60]


def test_a_configuration_with_one_damaged_run_has_neither_interval_nor_comparison(make):
    runs = [make(name, seed=seed) for name in ("base", "a", "b") for seed in (0, 1)]
    path = run_dir(make.folder, runs[3].digest) / "predictions.npz"
    path.write_bytes(b"not a zip")
    found = measure(make, *runs)
    assert set(found.intervals) == {"base", "b"}
    assert set(found.comparisons) == {("b", "base")}
    (problem,) = found.problems
    assert problem.startswith(f"a has no interval and no comparison: {path}: missing or damaged (")
    assert problem.endswith("); delete the folder and train the run again.")


def test_nothing_is_compared_with_a_baseline_whose_predictions_are_missing(make):
    runs = [make("base"), make("a"), make("b")]
    (run_dir(make.folder, runs[0].digest) / "predictions.npz").unlink()
    found = measure(make, *runs)
    assert set(found.intervals) == {"a", "b"}
    assert found.comparisons == {}
    assert found.problems[1:] == (
        "Nothing is compared with the baseline base, because its predictions cannot be used.",
    )


def test_no_predictions_at_all_leave_a_report_without_intervals(make):
    run = make("a")
    (run_dir(make.folder, run.digest) / "predictions.npz").unlink()
    found = measure(make, run)
    assert (found.intervals, found.comparisons, found.coverage, found.lacking) == ({}, {}, {}, 0)
    assert len(found.problems) == 1


def test_labels_that_contradict_each_other_are_told(make):
    """The labels of an image changed between two splits: no draw of images can serve both."""
    runs = [make("a", split_seed=seed, rows=60) for seed in (3, 4, 7, 8)]
    folder = run_dir(make.folder, runs[0].digest)
    found = read_predictions(folder)
    others = [read_predictions(run_dir(make.folder, run.digest)) for run in runs[1:]]
    shared = {sample for one in others for sample in one.sample_id.tolist()} & set(found.sample_id.tolist())
    assert shared
    swap = np.argsort(found.label, kind="stable")[::-1]  # the same labels and answers, given to other images
    np.savez(folder / "predictions.npz", sample_id=found.sample_id, label=found.label[swap], probs=found.probs[swap])
    measured = measure(make, *runs)
    assert measured.intervals == {}
    (problem,) = measured.problems
    assert problem == (
        "a: no interval and no comparison, because an image has different labels in the test rows of different runs; "
        "train them again with one set of labels."
    )


def test_resamples_that_miss_a_class_are_counted(make):
    few, many = measure(make, make("few", rows=60)), measure(make, make("many", rows=3000))
    assert few.lacking > 100
    assert many.lacking == 0
    never = measure(make, make("never", rows=3000, classes=("a", "b")))
    assert never.lacking == 0
