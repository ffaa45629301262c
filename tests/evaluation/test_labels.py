"""The classes that data and model share: by name, by a map on either side, and every fault of a map."""

from __future__ import annotations

import re

import numpy as np
import pytest

from emofuse.errors import SpecError
from emofuse.evaluation.labels import share_classes
from emofuse.specs import LabelMapSpec, bundled_specs, read_label_map

EKMAN = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
MIKELS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
FER = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def _map(labels, **lossy):
    return LabelMapSpec(name="mine", **{"from": "A", "to": "B"}, labels=labels, lossy=lossy)


def test_a_map_on_the_data_renames_its_labels():
    shared = share_classes(EKMAN, MIKELS, read_label_map("mikels8_to_ekman6"))
    assert shared.side == "data"
    assert shared.names == ("anger", "disgust", "fear", "happiness", "sadness")  # no row is a surprise
    labels = np.array([MIKELS.index(label) for label in ("amusement", "awe", "excitement", "anger")] + [-1])
    assert shared.labels(labels).tolist() == [3, -1, 3, 0, -1]


def test_a_map_on_the_model_sums_the_probabilities_of_merged_classes():
    shared = share_classes(MIKELS, EKMAN, read_label_map("mikels8_to_ekman6"))
    assert shared.side == "model"
    assert shared.names == ("anger", "disgust", "fear", "happiness", "sadness")
    probs = np.array([[0.1, 0.2, 0.15, 0.05, 0.2, 0.1, 0.1, 0.1]], np.float32)
    # amusement + contentment + excitement = 0.3; without the 0.2 of awe, all are divided by 0.8
    np.testing.assert_allclose(shared.outputs(probs), [[0.25, 0.125, 0.125, 0.375, 0.125]], atol=1e-7)
    assert shared.labels(np.array([5, 3, 0])).tolist() == [-1, 3, 0]  # nothing of the model is a surprise


def test_answers_without_the_restriction_may_be_another_class():
    shared = share_classes(MIKELS, EKMAN, read_label_map("mikels8_to_ekman6"))
    probs = np.array([[0.1, 0.5, 0.1, 0.1, 0.2, 0, 0, 0], [0.2, 0.3, 0.2, 0.1, 0.2, 0, 0, 0]], np.float32)
    assert shared.without_restriction(probs).tolist() == [-1, 3]
    assert shared.outputs(probs).argmax(axis=1).tolist() == [3, 3]


def test_a_map_that_fits_both_sides_is_applied_to_the_data():
    swap = _map({"a": "b", "b": "a", "c": "c"})
    shared = share_classes(("a", "b", "c"), ("a", "b", "c"), swap)
    assert shared.side == "data"
    assert shared.labels(np.array([0, 1, 2])).tolist() == [1, 0, 2]


def test_equal_names_and_other_spellings_need_no_map():
    shared = share_classes(FER, ("Anger", "Fear", "Happiness", "neutral"))
    assert shared.names == ("angry", "fear", "happy", "neutral")
    assert "Labels of the data: Happiness is another spelling of happy." in shared.sentences


def test_probabilities_that_are_all_zero_stay_finite():
    shared = share_classes(("a", "b", "c"), ("a", "b"))
    assert np.isfinite(shared.outputs(np.array([[0, 0, 1]], np.float32))).all()


def test_merged_and_lost_labels_are_named_with_what_the_map_says():
    shared = share_classes(EKMAN, MIKELS, read_label_map("mikels8_to_ekman6"))
    merged, lost, unseen = shared.sentences
    assert merged == (
        "Labels of the data: amusement, contentment and excitement count as happiness (one of three pleasant emotions "
        "that count as happiness)."
    )
    assert lost == (
        "Labels of the data: awe without a counterpart, whose rows are left out (pleasant, but no basic emotion; what "
        "is awesome may also frighten or surprise)."
    )
    assert unseen == "Classes of the model: surprise without a counterpart, whose probability is left out."


@pytest.mark.parametrize("name", bundled_specs("label_maps"))
def test_every_bundled_map_works_on_either_side(name):
    found = read_label_map(name)
    targets = sorted({label for label in found.labels.values() if label})
    of_data = share_classes(targets, list(found.labels), found)
    of_model = share_classes(list(found.labels), targets, found)
    assert set(of_data.names) == set(of_model.names) == set(targets)


def test_all_faults_of_a_map_are_named_at_once():
    wrong = _map({"amusement": "hapiness", "awe": "wonder", "anger": "anger", "fear": None, "sad": "sadness"})
    message = (
        "label map mine on the data, 4 problems: labels.amusement: 'hapiness' is no class of the model, did you mean "
        "'happiness'?; write null to leave it out | labels.awe: 'wonder' is no class of the model (there are: anger, "
        "disgust, fear, happiness, sadness, surprise); write null to leave it out | labels: label 'calm' of the data "
        "is missing | labels: label 'angr' of the data is missing, did you mean 'anger'?"
    )
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        share_classes(EKMAN, ("amusement", "awe", "calm", "angr", "fear", "sadness"), wrong)


def test_faults_of_a_map_on_the_model_say_so():
    with pytest.raises(
        SpecError, match=r"map mine on the model, 1 problem: labels.awe: 'wonder' is no label of the data"
    ):
        share_classes(("awe", "fear", "anger"), EKMAN, _map({"awe": "wonder", "fear": "fear", "anger": "anger"}))


def test_labels_without_a_class_need_a_map_and_those_that_fit_are_named():
    maps = [read_label_map(name) for name in bundled_specs("label_maps")]
    message = (
        r"evaluate without --map, 5 problems: label 'amusement' of the data is no class of the model \| .*give a label "
        r"map with --map \(maps that fit: mikels8_to_ekman6, mikels8_to_ekman7\)"
    )
    with pytest.raises(SpecError, match=message):
        share_classes(EKMAN, MIKELS, maps=maps)


def test_labels_that_no_map_fits_say_how_to_write_one():
    with pytest.raises(SpecError, match=r"give a label map with --map \(write one: see docs/evaluate.md\)"):
        share_classes(EKMAN, ("odd", "even"), maps=[read_label_map("mikels8_to_ekman6")])


def test_one_shared_class_is_too_few():
    message = "label map mine, 1 problem: data and model must share two classes or more, they share: a"
    with pytest.raises(SpecError, match=message):
        share_classes(("a", "b"), ("x", "y"), _map({"x": "a", "y": None}))
