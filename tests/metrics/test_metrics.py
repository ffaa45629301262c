"""Metrics by name: their formulas held against scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as theirs

from emofuse.metrics import METRICS, Metric
from emofuse.metrics.confusion import accuracy, class_scores, confusion_matrix, macro_f1
from emofuse.testing import check_metric

CLASSES = 4


def case(seed: int, rows: int = 60, *, missing: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    if missing is not None:
        labels[labels == missing] = (missing + 1) % CLASSES
    logits = rng.normal(size=(rows, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probs


def macro(score, labels, probs):
    return score(labels, probs.argmax(axis=1), average="macro", zero_division=0)


def brier_by_hand(labels, probs):
    pairs = zip(labels, probs, strict=True)
    return float(np.mean([((row - np.eye(CLASSES)[label]) ** 2).sum() for label, row in pairs]))


def ece_by_hand(labels, probs):
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    return total / len(labels)


def specificity_by_hand(labels, probs):
    predicted = probs.argmax(axis=1)
    occurs = sorted({*labels.tolist(), *predicted.tolist()})
    return float(np.mean([theirs.recall_score(labels != c, predicted != c, zero_division=0) for c in occurs]))


EXPECTED = {
    "accuracy": lambda y, p: theirs.accuracy_score(y, p.argmax(axis=1)),
    "macro_f1": lambda y, p: macro(theirs.f1_score, y, p),
    "weighted_f1": lambda y, p: theirs.f1_score(y, p.argmax(axis=1), average="weighted", zero_division=0),
    "precision": lambda y, p: macro(theirs.precision_score, y, p),
    "recall": lambda y, p: macro(theirs.recall_score, y, p),
    "specificity": specificity_by_hand,
    "balanced_accuracy": lambda y, p: theirs.balanced_accuracy_score(y, p.argmax(axis=1)),
    "kappa": lambda y, p: theirs.cohen_kappa_score(y, p.argmax(axis=1)),
    "mcc": lambda y, p: theirs.matthews_corrcoef(y, p.argmax(axis=1)),
    "log_loss": lambda y, p: theirs.log_loss(y, p, labels=range(CLASSES)),
    "top_2": lambda y, p: theirs.top_k_accuracy_score(y, p, k=2, labels=range(CLASSES)),
    "brier": brier_by_hand,
    "ece": ece_by_hand,
    "roc_auc": lambda y, p: np.mean([theirs.roc_auc_score(y == c, p[:, c]) for c in sorted(set(y.tolist()))]),
}


def test_every_metric_of_the_package_is_held_against_another_implementation():
    of_others = {"ccc", "pearson", "rmse", "mae", "map", "js", "kl"}  # see test_targets.py
    assert set(METRICS.names()) == set(EXPECTED) | of_others


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("missing", [None, 2])
def test_a_metric_equals_scikit_learn_s(kind, missing):
    for seed in range(5):
        labels, probs = case(seed, missing=missing)
        assert METRICS.find(kind).score(labels, probs) == pytest.approx(EXPECTED[kind](labels, probs), abs=1e-12)


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_metric_of_the_package_keeps_the_contract(kind):
    check_metric(METRICS.find(kind))


def test_many_matrices_at_once_are_scored_as_each_alone():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (7, CLASSES, CLASSES))
    counts[0] = 0
    for kind in METRICS.names():
        metric = METRICS.find(kind)
        if metric.target == "class" and metric.needs == "confusion":
            alone = [metric.formula(each) for each in counts]
            np.testing.assert_array_equal(metric.formula(counts), alone)
    assert math.isnan(macro_f1(counts[0]))
    assert math.isnan(accuracy(counts[0]))


def test_ties_of_the_area_under_the_curve_count_half():
    labels = np.array([0, 0, 1, 1])
    probs = np.array([[0.5, 0.5], [0.6, 0.4], [0.5, 0.5], [0.2, 0.8]])
    assert METRICS.find("roc_auc").score(labels, probs) == pytest.approx(theirs.roc_auc_score(labels, probs[:, 1]))


def test_where_one_class_is_all_there_is_the_area_is_undefined():
    assert math.isnan(METRICS.find("roc_auc").score(np.zeros(3, np.int64), np.full((3, 1), 1.0)))


def test_resampled_scores_are_seeded_and_scatter_around_the_score():
    labels, probs = case(0, 200)
    metric = METRICS.find("accuracy")
    drawn = metric.resampled(labels, probs)
    assert np.array_equal(drawn, metric.resampled(labels, probs))
    assert abs(drawn.mean() - metric.score(labels, probs)) < 0.01
    right = metric.score(labels, probs)
    assert drawn.std() == pytest.approx(np.sqrt(right * (1 - right) / 200), rel=0.2)


def test_the_scores_of_a_class_are_those_of_scikit_learn():
    labels, probs = case(3)
    predicted = probs.argmax(axis=1)
    found = class_scores(confusion_matrix(labels, predicted, CLASSES))
    precision, recall, f1, _ = theirs.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(found[name], expected)


@pytest.mark.parametrize(
    ("metric", "fault"),
    [
        (Metric("m", "M", lambda counts: 1 / 0), "raised ZeroDivisionError"),
        (Metric("m", "M", lambda counts: np.asarray(counts).shape[-1]), "differs from its score among several"),
        (Metric("m", "M", lambda y, p: float(y[0]), needs="probs"), "in another order"),
        (
            Metric("m", "M", lambda y, p: float((p.argmax(1) == y).mean()), "probs", larger_is_better=False),
            "larger_is_better must be True",
        ),
        (Metric("m m", "M", accuracy), "kind"),
        (Metric("m", "M", lambda t, o: float(t[0, 0]), target="regression"), "in another order"),
        (Metric("m", "M", lambda t, o: -np.abs(t - o).mean(), "confusion", False, target="regression"), "must be True"),
        (Metric("m", "M", lambda t, o: math.nan, target="multilabel"), "not finite"),
        (Metric("m", "M", accuracy, target="ranks"), "target must be class, distribution, regression, multilabel"),
    ],
)
def test_what_breaks_the_contract_of_a_metric_is_named(metric, fault):
    with pytest.raises(AssertionError, match=fault):
        check_metric(metric)
