"""Further metrics of a report have intervals that cover what its other intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.report.further import find_metrics, score_further
from emofuse.report.grouping import group_runs
from emofuse.results import read_predictions, run_dir
from emofuse.statistics import bootstrap_interval, corrected_resampled_t


@pytest.fixture
def score(make_run):
    def score(runs):
        metrics = find_metrics(["kappa"], "report")
        return score_further(group_runs(runs, "runs"), make_run.folder, metrics)["kappa"]["a"]

    return score


def test_one_run_is_resampled_by_its_rows(make_run, score):
    run = make_run("a", rows=400)
    (metric,), saved = find_metrics(["kappa"], "report"), read_predictions(run_dir(make_run.folder, run.digest))
    order = np.argsort(saved.sample_id)
    expected = bootstrap_interval(metric.resampled(saved.label[order], saved.probs[order]))
    assert score([run]).interval == expected


def test_repeats_on_one_split_are_drawn_too(make_run, score):
    runs = [make_run("a", rows=400, seed=seed, skill=skill) for seed, skill in enumerate((0.2, 0.5, 0.8))]
    repeated, single = score(runs), score(runs[:1])
    assert repeated.spread.n == 3
    assert repeated.interval.high - repeated.interval.low > 1.5 * (single.interval.high - single.interval.low)


def test_overlapping_splits_have_the_corrected_t_interval(make_run, score):
    runs = [make_run("a", rows=400, split_seed=split) for split in range(4)]
    (metric,) = find_metrics(["kappa"], "report")
    saved = [read_predictions(run_dir(make_run.folder, run.digest)) for run in runs]
    scores = [metric.score(each.label, each.probs) for each in saved]
    expected = corrected_resampled_t(scores, 40 / 280).interval
    interval = score(runs).interval
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_rows_of_a_group_are_drawn_together(make_run, score):
    run = make_run("a", rows=400)
    path = run_dir(make_run.folder, run.digest) / "predictions.npz"
    saved = read_predictions(path.parent)
    alone = score([run]).interval
    right = saved.probs.argmax(axis=1) == saved.label
    arrays = {"sample_id": saved.sample_id, "label": saved.label, "probs": saved.probs}
    np.savez(path, **arrays, group=np.where(right, "good", "bad"))
    grouped = score([run]).interval
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
