"""What `emofuse predict` says of one image, for each kind of target."""

from __future__ import annotations

from pathlib import Path

import pytest

from emofuse.cli.predict import as_text
from emofuse.predict import Prediction


def prediction(kind, **answer):
    parts = {"probs": {}} | answer
    return Prediction(Path("a.jpg"), face=None, action_units=(), missing={}, problem=None, kind=kind, **parts)


@pytest.mark.parametrize("kind", ["class", "distribution"])
def test_classes_are_told_with_the_most_probable_one(kind):
    found = prediction(kind, probs={"joy": 0.75, "fear": 0.25})
    assert found.to_json() == {
        "path": "a.jpg",
        "label": "joy",
        "probs": {"joy": 0.75, "fear": 0.25},
        "face": None,
        "action_units": [],
        "missing": {},
        "problem": None,
    }
    assert as_text(found).splitlines()[1].split()[:2] == ["joy", "75.0%"]


def test_numbers_are_told_in_the_order_and_unit_of_their_columns():
    found = prediction("regression", values={"valence": 51.25, "arousal": -3.0625})
    assert list(found.to_json()) == ["path", "values", "face", "action_units", "missing", "problem"]
    assert found.to_json()["values"] == {"valence": 51.25, "arousal": -3.0625}
    assert found.label is None
    assert as_text(found).splitlines() == ["a.jpg", "  valence  51.25", "  arousal  -3.062"]


def test_several_labels_are_told_with_all_that_are_more_probable_than_not():
    found = prediction("multilabel", probs={"happy": 0.9, "tense": 0.6, "calm": 0.1})
    assert found.to_json()["labels"] == ["happy", "tense"]
    assert found.to_json()["probs"] == {"happy": 0.9, "tense": 0.6, "calm": 0.1}
    assert "label" not in found.to_json()
    assert [line.split()[0] for line in as_text(found).splitlines()[1:]] == ["happy", "tense", "calm"]


@pytest.mark.parametrize("kind", ["class", "regression", "multilabel"])
def test_an_image_that_cannot_be_read_has_a_problem_and_no_answer(kind):
    found = Prediction(Path("a.jpg"), {}, None, (), {}, "no image", kind)
    assert found.to_json()["problem"] == "no image"
    assert as_text(found) == "a.jpg\n  cannot be read: no image"
