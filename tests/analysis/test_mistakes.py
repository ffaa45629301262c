"""Mistakes, rescued samples, and confident learning against an example that was worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.analysis.mistakes import confident_mistakes, find_label_noise, find_rescued

# Six rows of three classes. Thresholds are the mean probability of a class in the rows that are labelled so:
#   class 0: (0.9 + 0.7 + 0.2) / 3 = 0.6     class 1: (0.8 + 0.6) / 2 = 0.7     class 2: 0.5
# Row 2 (label 0) reaches only class 1 (0.75): it is off the diagonal. Row 4 (label 1, 0.6) reaches nothing.
PROBS = np.array(
    [
        [0.90, 0.05, 0.05],
        [0.70, 0.20, 0.10],
        [0.20, 0.75, 0.05],
        [0.10, 0.80, 0.10],
        [0.30, 0.60, 0.10],
        [0.25, 0.25, 0.50],
    ]
)
LABEL = np.array([0, 0, 0, 1, 1, 2])


def test_confident_learning_gives_the_counts_that_are_worked_out_by_hand():
    """cleanlab 2 (`compute_confident_joint`) gives these counts, and [[2, 1, 0], [0, 2, 0], [0, 0, 1]] calibrated."""
    found = find_label_noise(PROBS, LABEL)
    assert found.thresholds == pytest.approx([0.6, 0.7, 0.5])
    assert found.confident.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert found.joint == pytest.approx(np.array([[2, 1, 0], [0, 2, 0], [0, 0, 1]]))
    assert found.suspects.tolist() == [2]
    assert found.suggested.tolist() == [1]
    assert found.margin == pytest.approx([0.2 - 0.75])
    assert found.noisy == pytest.approx(1)


def test_of_several_classes_above_their_thresholds_the_most_probable_counts():
    probs = np.array([[0.5, 0.5], [0.2, 0.8], [0.45, 0.55], [0.3, 0.7]])
    found = find_label_noise(probs, np.array([0, 1, 0, 0]))
    # thresholds: class 0 (0.5 + 0.45 + 0.3) / 3 = 0.417, class 1 0.8; row 2 reaches 0 alone, row 3 nothing
    assert found.confident.tolist() == [[2, 0], [0, 1]]
    both = find_label_noise(np.array([[0.6, 0.4], [0.45, 0.55], [0.8, 0.2], [0.6, 0.4]]), np.array([1, 1, 0, 0]))
    # thresholds 0.7 and 0.475: row 1 reaches class 1 alone, rows 0 and 3 nothing
    assert both.confident.tolist() == [[1, 0], [0, 1]]


def test_flipped_labels_are_found_among_clear_ones():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    label = truth.copy()
    flipped = rng.choice(300, 30, replace=False)
    label[flipped] = (truth[flipped] + 1) % 3
    probs = np.full((300, 3), 0.1)
    probs[np.arange(300), truth] = 0.8
    probs += rng.random((300, 3)) * 0.1
    probs /= probs.sum(axis=1, keepdims=True)
    found = find_label_noise(probs, label)
    assert set(found.suspects.tolist()) <= set(flipped.tolist())
    assert len(found.suspects) > 15
    assert found.noisy == pytest.approx(30, abs=8)
    assert (found.suggested == truth[found.suspects]).all()


def test_a_class_without_rows_suggests_nothing():
    found = find_label_noise(PROBS[:5], LABEL[:5])
    assert np.isnan(found.thresholds[2])
    assert not (found.suggested == 2).any()


def test_rescued_rows_are_wrong_by_all_others_and_right_by_fusion():
    label = np.zeros(4, np.int64)
    right, wrong = [0.9, 0.1], [0.2, 0.8]
    fusion = np.array([right, right, wrong, wrong])
    others = {"a": np.array([wrong, right, right, wrong]), "b": np.array([wrong, wrong, right, wrong])}
    found = find_rescued(fusion, others, label)
    assert found.rescued.tolist() == [0]
    assert found.spoiled.tolist() == [2]
    assert (found.nobody, found.everybody) == (1, 0)


def test_the_most_confident_mistakes_come_first():
    probs = np.array([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert confident_mistakes(probs, np.array([1, 0, 0, 0]), 5).tolist() == [1, 3, 0]
    assert confident_mistakes(probs, np.array([1, 0, 0, 0]), 1).tolist() == [1]
