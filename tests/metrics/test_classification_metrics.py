"""Metrics against scikit-learn and against plain definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from emofuse.metrics.classification import classification_metrics


def random_case(seed, rows, classes, *, used):
    """Labels and predictions among the first `used` classes only: the others are absent."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, used, rows)
    logits = rng.normal(size=(rows, classes)) * 3
    logits[np.arange(rows), labels] += rng.normal(size=rows)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probs


CASES = [
    pytest.param(0, 200, 8, 8, id="all classes"),
    pytest.param(1, 60, 8, 5, id="three classes without a row"),
    pytest.param(2, 5, 8, 8, id="fewer rows than classes"),
    pytest.param(3, 1, 3, 1, id="one row"),
    pytest.param(4, 50, 2, 1, id="one class only"),
]


@pytest.mark.parametrize(("seed", "rows", "classes", "used"), CASES)
def test_metrics_equal_scikit_learn(seed, rows, classes, used):
    labels, probs = random_case(seed, rows, classes, used=used)
    found = classification_metrics(labels, probs, [str(c) for c in range(classes)])
    predicted = probs.argmax(axis=1)
    everything = list(range(classes))

    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["loss"] == pytest.approx(log_loss(labels, probs, labels=everything))
    assert found["confusion"] == confusion_matrix(labels, predicted, labels=everything).tolist()
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        assert [found[average][name] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    expected = precision_recall_fscore_support(labels, predicted, labels=everything, average=None, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [entry[name] for entry in found["per_class"]] == pytest.approx(values)


@pytest.mark.parametrize(("seed", "rows", "classes", "used"), CASES)
def test_specificity_is_the_recall_of_the_rest(seed, rows, classes, used):
    labels, probs = random_case(seed, rows, classes, used=used)
    found = classification_metrics(labels, probs, [str(c) for c in range(classes)])
    predicted = probs.argmax(axis=1)
    expected, support = [], []
    for c in range(classes):
        negatives = labels != c
        expected.append(np.mean(predicted[negatives] != c) if negatives.any() else 0.0)
        support.append(np.sum(labels == c))
    assert [entry["specificity"] for entry in found["per_class"]] == pytest.approx(expected)
    occurs = sorted({*labels.tolist(), *predicted.tolist()})
    assert found["macro"]["specificity"] == pytest.approx(np.mean([expected[c] for c in occurs]))
    assert found["weighted"]["specificity"] == pytest.approx(np.average(expected, weights=support))


def test_a_label_without_rows_lowers_no_macro_score_unless_it_is_predicted():
    """Three rows of two labels, all right: a third label that nobody has and nobody is given is no mistake."""
    labels, right = np.array([0, 1, 1]), np.eye(3)[[0, 1, 1]]
    found = classification_metrics(labels, right, ["a", "b", "rare"])
    assert found["macro"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "specificity": 1.0}
    assert found["per_class"][2] == {
        "label": "rare",
        "precision": 0,
        "recall": 0,
        "f1": 0,
        "specificity": 1,
        "support": 0,
    }
    wrong = classification_metrics(labels, np.eye(3)[[0, 1, 2]], ["a", "b", "rare"])
    assert wrong["macro"]["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_a_certain_mistake_costs_a_finite_loss():
    found = classification_metrics(np.array([0]), np.array([[0.0, 1.0]]), ["a", "b"])
    assert found["loss"] == pytest.approx(-np.log(1e-12))


def test_float32_probs_give_plain_json():
    labels, probs = random_case(5, 20, 3, used=3)
    found = classification_metrics(labels, probs.astype(np.float32), ["a", "b", "c"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [entry["label"] for entry in found["per_class"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        (np.zeros(0, np.int64), np.zeros((0, 2)), r"expected labels \(n,\) with n >= 1 .* got \(0,\)"),
        (np.zeros(3, np.int64), np.zeros((3, 4)), r"probs \(n, 2\), got \(3,\) and \(3, 4\)"),
        (np.array([0, -1]), np.zeros((2, 2)), r"labels must be 0 \.\. 1, got -1 \.\. 0"),
        (np.array([0, 2]), np.zeros((2, 2)), r"labels must be 0 \.\. 1, got 0 \.\. 2"),
    ],
)
def test_wrong_shapes_and_labels_are_refused(labels, probs, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, probs, ["a", "b"])
