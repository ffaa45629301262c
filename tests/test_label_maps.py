"""Label maps: the files that come with emofuse, and the faults of a user's own."""

from __future__ import annotations

import re

import pytest

from emofuse.errors import SpecError
from emofuse.specs import bundled_specs, read_label_map
from emofuse.specs.label_maps import find_label

TAXONOMIES = {
    "mikels8": {"amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness"},
    "ekman6": {"anger", "disgust", "fear", "happiness", "sadness", "surprise"},
    "ekman7": {"anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"},
    "affectnet8": {"neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"},
    "fer2013": {"angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"},
}


def test_there_is_a_map_from_every_taxonomy_to_every_other():
    pairs = {f"{one}_to_{other}" for one in TAXONOMIES for other in TAXONOMIES if one != other}
    assert set(bundled_specs("label_maps")) == pairs


@pytest.mark.parametrize("name", bundled_specs("label_maps"))
def test_a_bundled_map_covers_its_taxonomies_and_names_every_loss(name):
    found = read_label_map(name)
    source, target = name.split("_to_")
    assert set(found.labels) == TAXONOMIES[source]
    assert {label for label in found.labels.values() if label} <= TAXONOMIES[target]
    merged = {label for labels in found.merged.values() for label in labels}
    assert set(found.lossy) == merged | {label for label, counts_as in found.labels.items() if counts_as is None}


def test_the_three_pleasant_emotions_of_emoset_are_happiness_and_awe_is_left_out():
    found = read_label_map("mikels8_to_ekman6")
    assert found.merged == {"happiness": ["amusement", "contentment", "excitement"]}
    assert [label for label, counts_as in found.labels.items() if counts_as is None] == ["awe"]
    assert (found.source, found.target) == ("Mikels 8", "Ekman 6")


def test_a_users_own_map_is_read_by_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("from: A\nto: B\nlabels: {glad: happiness, odd: null}\n")
    found = read_label_map(path)
    assert (found.name, dict(found.labels), dict(found.lossy)) == ("mine", {"glad": "happiness", "odd": None}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("to: B\nlabels: {a: b}\n", "from: is missing"),
        ("from: A\nto: B\nlabels: {}\n", "labels"),
        ("from: A\nto: B\nlabels: {a: null}\n", "labels: all are null, so that there is nothing to test"),
        ("from: A\nto: B\nlabels: {a: ' '}\n", "labels: blank text at 'a'; write null for a label without counterpart"),
        ("from: A\nto: B\nlabels: {glad: b}\nlossy: {glda: x}\n", "lossy: 'glda', did you mean 'glad'?: no label of"),
        ("from: A\nto: B\nlabels: {a: b}\nlossly: {a: x}\n", "lossly: unknown key"),
        ("from: A\nto: B\nlabels: [a, b]\n", "labels"),
    ],
)
def test_a_faulty_map_is_an_error(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=rf"mine\.yaml.*{re.escape(message)}"):
        read_label_map(path)


def test_an_unknown_name_is_an_error_with_the_nearest_one():
    with pytest.raises(SpecError, match="no label map of this name, did you mean 'mikels8_to_ekman6'"):
        read_label_map("mikels_to_ekman6")


def test_labels_mean_the_same_in_other_spellings():
    assert find_label("Happy", ["anger", "happiness"]) == "happiness"
    assert find_label("anger", ["Anger", "angry"]) is None  # it may be either
    assert find_label("angry", ["Angry", "angry"]) == "angry"
    assert find_label("calm", ["neutral"]) is None
