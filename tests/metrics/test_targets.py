"""Scores of distributions, numbers and several labels, held against scipy and scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance
from scipy.special import rel_entr
from sklearn import metrics as theirs

from emofuse.metrics import METRICS
from emofuse.metrics.classification import classification_metrics
from emofuse.metrics.distribution import DISTANCES, distribution_scorer
from emofuse.metrics.multilabel import multilabel_scorer
from emofuse.metrics.regression import regression_scorer
from emofuse.metrics.targets import target_metrics
from emofuse.testing import check_metric

NAMES = ("valence", "arousal", "dominance")


def numbers(seed: int, rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(rows, 3)) * [1.0, 20.0, 0.01] + [0.0, 100.0, 5000.0]
    return target, target * [0.8, 1.1, 1.0] + rng.normal(size=(rows, 3)) * [0.5, 10.0, 0.01]


def several_labels(seed: int, rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = (rng.random((rows, 3)) < [0.5, 0.2, 0.05]).astype(np.float64)
    target[0] = 1.0
    outputs = np.clip(np.round(0.3 * target + rng.random((rows, 3)) * 0.7, 1), 0, 1)  # rounded: many ties
    return target, outputs


def distributions(seed: int, rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    votes = rng.multinomial(10, rng.dirichlet(np.ones(3), rows))
    return votes / 10, rng.dirichlet(np.ones(3), rows)


MAKERS = {"regression": numbers, "multilabel": several_labels, "distribution": distributions}
SCORERS = {"regression": regression_scorer, "multilabel": multilabel_scorer, "distribution": distribution_scorer}


def concordance(true: np.ndarray, answer: np.ndarray) -> float:
    """Lin's definition with scipy's moments."""
    r = stats.pearsonr(true, answer).statistic
    bias = (true.mean() - answer.mean()) ** 2
    return 2 * r * true.std() * answer.std() / (true.var() + answer.var() + bias)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_numbers_equal_scipy_and_scikit_learn(seed):
    target, outputs = numbers(seed)
    found = target_metrics("regression", target, outputs, NAMES)
    for place, name in enumerate(NAMES):
        true, answer = target[:, place], outputs[:, place]
        assert found["columns"][name]["ccc"] == pytest.approx(concordance(true, answer), abs=1e-9)
        assert found["columns"][name]["pearson"] == pytest.approx(stats.pearsonr(true, answer).statistic, abs=1e-9)
        assert found["columns"][name]["rmse"] == pytest.approx(theirs.root_mean_squared_error(true, answer))
        assert found["columns"][name]["mae"] == pytest.approx(theirs.mean_absolute_error(true, answer))
    for score in ("ccc", "pearson", "rmse", "mae"):
        assert found["mean"][score] == pytest.approx(np.mean([found["columns"][name][score] for name in NAMES]))
    assert found["rows"] == 80
    assert found["loss"] == pytest.approx(theirs.mean_squared_error(target, outputs))


def test_concordance_of_four_points_is_the_one_by_hand():
    """Answers that are one too large: cov = var = 1.25, bias 1, so CCC = 2.5 / 3.5."""
    target = np.array([[1.0], [2.0], [3.0], [4.0]])
    found = target_metrics("regression", target, target + 1, ["valence"])
    assert found["mean"] == {
        "ccc": pytest.approx(2.5 / 3.5),
        "pearson": pytest.approx(1.0),
        "rmse": pytest.approx(1.0),
        "mae": pytest.approx(1.0),
    }


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_several_labels_equal_scikit_learn(seed):
    target, outputs = several_labels(seed)
    found = target_metrics("multilabel", target, outputs, NAMES)
    columns = found["columns"]
    for place, name in enumerate(NAMES):
        true, answer = target[:, place], outputs[:, place]
        assert columns[name]["average_precision"] == pytest.approx(theirs.average_precision_score(true, answer))
        assert columns[name]["roc_auc"] == pytest.approx(theirs.roc_auc_score(true, answer))
        assert columns[name]["f1"] == pytest.approx(theirs.f1_score(true, answer >= 0.5))
        assert columns[name]["rows"] == true.sum()
    assert found["macro"]["map"] == pytest.approx(theirs.average_precision_score(target, outputs, average="macro"))
    assert found["macro"]["roc_auc"] == pytest.approx(theirs.roc_auc_score(target, outputs, average="macro"))
    assert found["macro"]["f1"] == pytest.approx(theirs.f1_score(target, outputs >= 0.5, average="macro"))
    assert found["micro"]["f1"] == pytest.approx(theirs.f1_score(target, outputs >= 0.5, average="micro"))
    clipped = np.clip(outputs, 1e-12, 1 - 1e-12)
    assert found["loss"] == pytest.approx(np.mean([theirs.log_loss(target[:, c], clipped[:, c]) for c in range(3)]))


@pytest.mark.parametrize("seed", range(3))
def test_distances_of_distributions_equal_scipy(seed):
    target, outputs = distributions(seed)
    found = target_metrics("distribution", target, outputs, NAMES)
    rows = list(zip(target, outputs, strict=True))
    expected = {
        "cross_entropy": np.mean([stats.entropy(true) + rel_entr(true, answer).sum() for true, answer in rows]),
        "kl": np.mean([stats.entropy(true, answer) for true, answer in rows]),
        "js": np.mean([distance.jensenshannon(true, answer) ** 2 for true, answer in rows]),
        "l1": np.mean([distance.cityblock(true, answer) for true, answer in rows]),
        "cosine": np.mean([1 - distance.cosine(true, answer) for true, answer in rows]),
    }
    assert found["distribution"] == {name: pytest.approx(value) for name, value in expected.items()}
    assert found["loss"] == pytest.approx(expected["cross_entropy"])


def test_a_distribution_is_also_scored_by_the_class_of_each_row():
    target, outputs = distributions(0)
    by_largest = classification_metrics(target.argmax(axis=1), outputs, NAMES)
    found = target_metrics("distribution", target, outputs, NAMES)
    assert {**found, "loss": by_largest["loss"]} == {**by_largest, "distribution": found["distribution"]}
    labels = np.zeros(len(target), np.int64)
    by_label = target_metrics("distribution", target, outputs, NAMES, labels=labels)
    assert by_label["accuracy"] == classification_metrics(labels, outputs, NAMES)["accuracy"]
    assert by_label["distribution"] == found["distribution"]


def test_scores_of_a_class_are_those_of_before():
    labels, outputs = np.array([0, 1, 2]), np.eye(3)
    assert target_metrics("class", labels, outputs, NAMES) == classification_metrics(labels, outputs, NAMES)


def test_certain_mistakes_have_finite_distances():
    found = target_metrics("distribution", np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), ["a", "b"])["distribution"]
    assert found["cross_entropy"] == found["kl"] == pytest.approx(-math.log(1e-12))
    assert found["js"] == pytest.approx(math.log(2))
    assert (found["l1"], found["cosine"]) == (2.0, 0.0)


def test_a_constant_column_has_no_agreement_and_does_not_count_in_the_mean():
    target, outputs = numbers(0)
    target[:, 1] = 0.1  # a sum of equal values is not exactly a multiple of them
    found = target_metrics("regression", target, outputs, NAMES)
    assert found["columns"]["arousal"]["ccc"] is None
    assert found["columns"]["arousal"]["pearson"] is None
    assert found["columns"]["arousal"]["rmse"] > 0
    assert found["mean"]["ccc"] == pytest.approx(
        np.mean([found["columns"][n]["ccc"] for n in ("valence", "dominance")])
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_constant_answers_have_a_concordance_of_0_and_no_correlation():
    target, outputs = numbers(0)
    outputs[:, 1] = 0.1
    found = target_metrics("regression", target, outputs, NAMES)
    assert found["columns"]["arousal"]["ccc"] == 0
    assert found["columns"]["arousal"]["pearson"] is None
    assert found["mean"]["pearson"] is None  # the mean of the others would favour a model that gave up on a column
    assert found["mean"]["ccc"] == pytest.approx(np.mean([found["columns"][name]["ccc"] for name in NAMES]))


def test_without_a_column_that_varies_the_mean_is_undefined():
    found = target_metrics("regression", np.ones((5, 1)), np.arange(5.0)[:, None], ["valence"])
    assert found["mean"]["ccc"] is None
    assert found["mean"]["pearson"] is None
    assert found["mean"]["rmse"] == pytest.approx(np.sqrt(np.square(np.arange(5) - 1.0).mean()))


def test_a_label_that_no_row_has_is_undefined_and_does_not_count_in_means():
    target, outputs = several_labels(0)
    target[:, 1] = 0
    target[:, 2] = 1
    found = target_metrics("multilabel", target, outputs, NAMES)
    assert found["columns"]["arousal"] == {"average_precision": None, "roc_auc": None, "f1": None, "rows": 0}
    assert found["columns"]["dominance"]["average_precision"] == 1.0
    assert found["columns"]["dominance"]["roc_auc"] is None
    assert found["macro"]["map"] == pytest.approx((found["columns"]["valence"]["average_precision"] + 1) / 2)
    assert found["macro"]["roc_auc"] == found["columns"]["valence"]["roc_auc"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("kind", MAKERS)
def test_weights_score_rows_as_often_as_they_are_drawn(kind):
    target, outputs = MAKERS[kind](1, 40)
    rng = np.random.default_rng(0)
    drawn = rng.integers(40, size=(6, 40))
    drawn[0] = 3  # one row alone: no correlation
    weights = np.stack([np.bincount(rows, minlength=40) for rows in drawn]).astype(np.float64)
    together = SCORERS[kind](target, outputs)(weights)
    for rows, found in zip(drawn, together, strict=True):
        alone = SCORERS[kind](target[rows], outputs[rows])(np.ones((1, 40)))[0]
        np.testing.assert_allclose(found, alone, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ["ccc", "pearson", "rmse", "mae", "map", "js", "kl"])
def test_a_metric_of_another_target_keeps_the_contract(kind):
    check_metric(METRICS.find(kind))


def test_a_metric_by_name_is_the_mean_of_the_record():
    for kind, name, place in (
        ("regression", "ccc", ("mean", "ccc")),
        ("regression", "rmse", ("mean", "rmse")),
        ("multilabel", "map", ("macro", "map")),
        ("distribution", "js", ("distribution", "js")),
        ("distribution", "kl", ("distribution", "kl")),
    ):
        target, outputs = MAKERS[kind](2)
        scores = target_metrics(kind, target, outputs, NAMES)
        assert METRICS.find(name).score(target, outputs) == scores[place[0]][place[1]]
        drawn = METRICS.find(name).resampled(target, outputs)
        assert drawn.std() > 0
        assert abs(np.nanmean(drawn) - scores[place[0]][place[1]]) < 4 * drawn.std()


def test_metrics_of_classes_score_distributions_too_and_no_other_target():
    assert METRICS.find("kappa").scores_target("class")
    assert METRICS.find("kappa").scores_target("distribution")
    assert not METRICS.find("kappa").scores_target("regression")
    assert METRICS.find("js").scores_target("distribution")
    assert not METRICS.find("js").scores_target("class")
    assert len(DISTANCES) == 5


@pytest.mark.parametrize(
    ("kind", "target", "outputs", "message"),
    [
        ("regression", np.zeros((0, 2)), np.zeros((0, 2)), r"expected targets and outputs \(n, 2\) with n >= 1"),
        ("regression", np.zeros((3, 2)), np.zeros((3, 1)), r"got \(3, 2\) and \(3, 1\)"),
        ("multilabel", np.zeros((3, 1)), np.zeros((3, 1)), r"outputs \(n, 2\)"),
        (
            "regression",
            np.full((3, 2), np.nan),
            np.zeros((3, 2)),
            r"targets: must be finite, row 0 has nan in",
        ),
        ("distribution", np.ones((3, 2)), np.full((3, 2), np.inf), r"outputs: must be finite, row 0 has inf"),
        ("ranks", np.zeros((3, 2)), np.zeros((3, 2)), r"'ranks' is unknown, expected class, distribution, regression"),
    ],
)
def test_wrong_shapes_values_and_kinds_are_refused(kind, target, outputs, message):
    with pytest.raises(ValueError, match=message):
        target_metrics(kind, target, outputs, ["a", "b"])
