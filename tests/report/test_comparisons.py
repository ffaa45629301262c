"""Intervals and comparisons of a report: the statistics of the right rows, and why some are not computed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from emofuse.report.comparisons import MEASURED, measure_uncertainty
from emofuse.report.configurations import group_runs
from emofuse.results import read_predictions, run_dir
from emofuse.statistics import Resampling, bootstrap_interval, holm, paired_bootstrap

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


def test_intervals_and_tests_are_those_of_the_means_over_repeats(make):
    runs = [make(name, seed=seed, skill=skill) for name, skill in (("base", 0.5), ("a", 0.7)) for seed in (0, 1)]
    found = measure(make, *runs)
    assert found.resampling == Resampling(2_000, 0)
    assert found.images == (30,)
    assert found.problems == ()
    drawn = naive_accuracies(make, runs, found.resampling)
    base, ours = drawn[:, :2].mean(axis=1), drawn[:, 2:].mean(axis=1)
    accuracies = [np.mean([run.metrics["test"]["accuracy"] for run in part]) for part in (runs[:2], runs[2:])]
    for label, values in (("base", base), ("a", ours)):
        expected = bootstrap_interval(values)
        interval = found.intervals[label]["accuracy"]
        assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    expected = paired_bootstrap(accuracies[1], accuracies[0], ours, base)
    test = found.comparisons["a"].tests["accuracy"]
    assert test.difference == pytest.approx(expected.difference)
    assert test.p == pytest.approx(expected.p)
    assert test.interval.low == pytest.approx(expected.interval.low)
    assert set(found.comparisons) == {"a"}


def test_an_image_of_several_splits_is_drawn_for_all_of_them_at_once(make):
    runs = [make(name, split_seed=split, rows=60) for name in ("base", "a") for split in (3, 4, 7, 8)]
    found = measure(make, *runs)
    drawn = naive_accuracies(make, runs, found.resampling)
    expected = bootstrap_interval(np.nanmean(drawn[:, 4:], axis=1))
    interval = found.intervals["a"]["accuracy"]
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    (images,) = found.images
    assert 6 < images < 24  # of four times six test rows
    assert set(found.comparisons) == {"a"}


def test_point_estimates_are_those_of_the_tables(make):
    runs = [make(name, seed=seed, skill=skill) for name, skill in (("base", 0.4), ("a", 0.6)) for seed in (0, 1, 2)]
    results = group_runs(runs, "runs")
    found = measure_uncertainty(results, make.folder)
    for path in MEASURED:
        test = found.comparisons["a"].tests[path]
        assert test.difference == pytest.approx(results.difference(results.configurations[1], path).mean)
        interval = found.intervals["a"][path]
        assert interval.low < results.configurations[1].metric(path).mean < interval.high


def test_mcnemar_compares_the_mean_probabilities_image_by_image(make):
    runs = [make(name, seed=seed, skill=skill) for name, skill in (("base", 0.4), ("a", 0.7)) for seed in (0, 1, 2)]
    test = measure(make, *runs).comparisons["a"].mcnemar
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


def test_the_same_runs_give_the_same_numbers(make):
    runs = [make("a"), make("b")]
    assert measure(make, *runs) == measure(make, *runs)


def test_repeats_need_not_be_as_many_as_those_of_the_baseline(make):
    runs = [make("base", seed=seed) for seed in (0, 1, 2)] + [make("a", seed=7)]
    found = measure(make, *runs)
    assert set(found.comparisons) == {"a"}
    assert found.problems == ()


def test_a_single_configuration_has_an_interval_and_no_comparison(make):
    found = measure(make, make("only"))
    assert set(found.intervals) == {"only"}
    assert (found.comparisons, found.problems) == ({}, ())


def test_other_test_images_are_not_compared_and_the_reason_is_told(make):
    runs = [make("base", split_seed=0), make("same", split_seed=0), make("other", split_seed=1), make("official")]
    found = measure(make, *runs)
    assert set(found.comparisons) == {"same"}
    assert set(found.intervals) == {"base", "same", "other", "official"}
    (problem,) = found.problems
    assert problem == "Not compared, because scored on other test images than the baseline base: other and official."


def test_images_of_which_sets_were_drawn_are_counted(make):
    found = measure(make, make("a", rows=300), make("b", rows=600))
    assert found.images == (30, 60)


def test_a_configuration_with_one_damaged_run_has_neither_interval_nor_comparison(make):
    runs = [make(name, seed=seed) for name in ("base", "a", "b") for seed in (0, 1)]
    path = run_dir(make.folder, runs[3].digest) / "predictions.npz"
    path.write_bytes(b"not a zip")
    found = measure(make, *runs)
    assert set(found.intervals) == {"base", "b"}
    assert set(found.comparisons) == {"b"}
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
    assert (found.intervals, found.comparisons, found.images, found.lacking) == ({}, {}, (), 0)
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
