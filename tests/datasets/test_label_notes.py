"""Spellings that make labels of their own, missing values as text, and labels that a split lacks are noted."""

from __future__ import annotations

import unicodedata

import pytest

from emofuse.datasets import read_dataset
from emofuse.datasets.label_notes import label_notes, same_label
from emofuse.specs import CsvSpec, OfficialSplit, StratifiedSplit

STRATIFIED = StratifiedSplit()


def notes(labels, splits=None, split=STRATIFIED):
    return label_notes(labels, splits or ["train"] * len(labels), split)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Happy", "happy"),
        ("very happy", "very  happy"),
        ("very_happy", "Very-Happy"),
        ("happy ", "happy"),
        ("1", "1.0"),
        ("01", "1"),
        ("1e1", "10"),
        ("caf\u00e9", "cafe\u0301"),
        ("\uff28appy", "happy"),
        ("happy\u200b", "happy"),
        ("STRASSE", "stra\u00dfe"),
    ],
)
def test_spellings_of_one_label_are_noted_with_their_rows(one, other):
    assert same_label(one) == same_label(other)
    (note,) = notes([one] * 4 + [other] * 3)
    assert "count as different labels: " in note
    assert "(4 rows)" in note
    assert "(3 rows)" in note


@pytest.mark.parametrize(("one", "other"), [("1", "-1"), ("1", "2"), ("1-2", "12"), ("happy", "happyy"), ("_", "-")])
def test_other_labels_stay_apart(one, other):
    assert same_label(one) != same_label(other)
    assert notes([one] * 4 + [other] * 3) == []


def test_labels_that_look_alike_are_told_apart_by_their_code_points():
    (note,) = notes([unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD") for _ in range(3)])
    assert r"'e\u0301' (3 rows) and '\xe9' (3 rows)" in note


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "null", "N/A", "#N/A"])
def test_missing_values_written_as_text_are_noted(text):
    (note,) = notes([text] * 3 + ["sad"] * 3)
    assert note == (
        f"labels that look like missing values, and count as labels: {text!r} (3 rows). Leave a label empty if "
        "there is none"
    )


def test_labels_that_a_split_of_the_dataset_lacks_are_noted():
    splits = ["train", "train", "val", "test", "train", "val", "val", "test"]
    assert notes(["a", "b", "a", "a", "b", "b", "c", "b"], splits, OfficialSplit()) == [
        "labels that are missing in a split: no train row has 'c'; no test row has 'c'"
    ]
    assert notes(["a", "b"], ["train", "train"], OfficialSplit()) == []


def test_rare_labels_of_a_stratified_split_are_counted():
    labels = ["a"] * 3 + ["b", "b", "c"]
    (note,) = notes(labels, ["train", "val", "test", "train", "train", "train"])
    assert note == (
        "labels with too few rows for one in each split: 2 of 3 have fewer than 3, 'b' (2 rows), 'c' (1 row); 2 of "
        "them without a val row and 2 of them without a test row"
    )


def test_many_of_them_are_counted_not_listed():
    (note,) = notes([f"{number}{letter}" for number in range(30) for letter in "xX" for _ in range(3)])
    assert note.count(" rows)") == 10
    assert "25 more" in note


def test_they_are_notes_of_the_dataset_and_no_bad_rows(tmp_path, image_at):
    lines = ["path,label"]
    for number in range(12):
        image_at(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{('happy', 'Happy', 'nan')[number % 3]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    manifest = read_dataset(CsvSpec(root=tmp_path, split=StratifiedSplit()))
    assert manifest.info["bad_rows"] == 0
    assert manifest.classes == ("Happy", "happy", "nan")
    assert [note.split(":")[0][:30] for note in manifest.info["notes"]] == [
        "labels that differ only in cas",
        "labels that look like missing ",
    ]
