from __future__ import annotations

import json

import pytest

from emofuse.datasets import list_dataset, read_dataset
from emofuse.errors import DatasetError
from emofuse.specs import EmoSetSpec, StratifiedSplit

ORDER = ["awe_00007", "fear_00103", "awe_00012", "anger_00001", "fear_00090"]

LACKING = "no train row has 'anger'; no val row has 'fear'; no test row has 'anger', 'awe'"
NOTE = f"labels that are missing in a split: {LACKING}"


def read(root, **options):
    return read_dataset(EmoSetSpec(root=root), **options)


def bad_rows(root):
    """(file, row, fault) of every bad row."""
    return list_dataset(EmoSetSpec(root=root)).bad_rows.select("file", "row", "fault").rows()


def test_rows_come_in_the_order_of_train_val_test_with_the_official_split(emoset):
    manifest = read(emoset.write())
    assert manifest.table["sample_id"].to_list() == ORDER
    assert manifest.table["split"].to_list() == ["train", "train", "val", "val", "test"]
    assert manifest.table["label"].to_list() == ["awe", "fear", "awe", "anger", "fear"]
    assert manifest.table["path"][1] == "image/fear/fear_00103.jpg"
    assert manifest.table["problem"].null_count() == 5


def test_classes_come_in_the_order_of_label2idx_which_is_not_alphabetical(emoset):
    expected = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
    assert read(emoset.write()).classes == expected


def test_info_says_what_was_read(emoset):
    info = read(emoset.write()).info
    assert json.loads(json.dumps(info)) == {
        "name": "EmoSet",
        "kind": "emoset",
        "rows": 5,
        "bad_rows": 0,
        "split": {"kind": "official"},
        "notes": [NOTE],
    }


def test_an_info_file_with_seven_vocabularies_is_read_like_the_flat_one(emoset):
    flat = emoset.info
    actions = {"label2idx": {"boxing ": 0}, "idx2label": {"0": "boxing "}}
    emoset.info = {
        "emotion": flat,
        "brightness": {"label2idx": {"0.0": 0}, "idx2label": {"0": "0.0"}},
        "human_action": actions,
    }
    assert read(emoset.write()).classes == tuple(flat["label2idx"])


def test_label_names_lose_the_spaces_around_them(emoset):
    emoset.info["label2idx"] = {f"{label} ": index for label, index in emoset.info["label2idx"].items()}
    emoset.rows["val"][0][0] = " awe"
    manifest = read(emoset.write())
    assert manifest.classes[1] == "awe"
    assert manifest.table["label"][2] == "awe"


def test_split_rows_of_four_fields_are_read_like_those_of_three(emoset):
    plain = read(emoset.write())
    emoset.rows = {split: [[r[0], "any id", *r[1:]] for r in rows] for split, rows in emoset.rows.items()}
    assert read(emoset.write()).table.equals(plain.table)


def test_attributes_of_the_annotations_become_columns_with_null_where_they_are_missing(emoset):
    full = {
        "emotion": "awe",
        "brightness": 0.1,
        "colorfulness": 1,
        "scene": "beach ",
        "object": ["Tree", "Car "],
        "facial_expression": "happy",
        "human_action ": "boxing ",
    }
    emoset.annotations["annotation/awe/awe_00012.json"] = full
    table = read(emoset.write()).table
    assert table["brightness"].to_list() == [0.5, 0.5, 0.1, 0.5, 0.5]
    assert table["colorfulness"][2] == 1.0
    assert table["object"].to_list() == [None, None, ["Tree", "Car"], None, None]
    assert table.row(2, named=True)["scene"] == "beach"
    assert table["facial_expression"].to_list() == [None, None, "happy", None, None]
    assert table["human_action"][2] == "boxing"


def test_a_missing_annotation_is_a_note_and_not_a_bad_row(emoset):
    root = emoset.write()
    (root / "annotation/awe/awe_00007.json").unlink()
    manifest = read(root)
    assert manifest.table["brightness"][0] is None
    assert manifest.info["notes"] == [
        "annotation files missing: 1 of 5; the attributes of these rows are null",
        NOTE,
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[1]", "must be an object, got list"),
        ('{"brightness": "dark"}', "brightness is 'dark', expected a number"),
        ('{"brightness": true}', "brightness is True, expected a number"),
        ('{"scene": 3}', "scene is 3, expected a word"),
        ('{"object": "Tree"}', "object is 'Tree', expected a list of words"),
        ('{"scene": "\\ud800"}', "surrogates not allowed"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer text"),
    ],
)
def test_a_damaged_annotation_is_a_bad_row(emoset, text, reason):
    root = emoset.write()
    (root / "annotation/awe/awe_00012.json").write_text(text)
    with pytest.raises(
        DatasetError, match=r"damaged annotation: 1\n    val.json row 1: image/awe/awe_00012.jpg: annotation"
    ) as error:
        read(root)
    assert reason in str(error.value)


def test_an_annotation_outside_of_the_root_is_not_read(emoset, tmp_path):
    root = emoset.write()
    secret = tmp_path / "secret.json"
    secret.write_text('{"scene": "secret"}')
    (root / "annotation/awe/awe_00007.json").unlink()
    (root / "annotation/awe/awe_00007.json").symlink_to(secret)
    emoset.rows["val"][0][-1] = "../secret.json"
    (root / "val.json").write_text(json.dumps(emoset.rows["val"]))
    listing = list_dataset(EmoSetSpec(root=root))
    assert listing.bad_rows["row"].to_list() == [1, 1]
    assert all("its path leaves the root" in detail for detail in listing.bad_rows["detail"])
    assert listing.manifest.table["scene"].null_count() == 5


@pytest.mark.parametrize(
    "row",
    [
        ["awe", "image/awe/awe_1.jpg"],
        "awe",
        ["awe", 3, "x"],
        ["awe", "a", "b", "c", "d"],
        {"emotion": "awe"},
        ["\ud800", "a", "b"],
    ],
)
def test_a_row_of_another_shape_is_a_bad_row_that_keeps_its_place(emoset, row):
    emoset.rows["val"].insert(1, row)
    root = emoset.write()
    message = (
        r"malformed row: 1\n    val.json row 2: .*expected \[emotion, image, annotation\] or \[emotion, image_id, image"
    )
    with pytest.raises(DatasetError, match=message):
        read(root)
    kept = read(root, on_bad_rows="keep").table.row(3, named=True)
    assert (kept["sample_id"], kept["path"], kept["label"], kept["split"]) == ("val.json#2", "", None, "val")
    assert kept["problem"].startswith("val.json row 2: malformed row: ")


def test_an_unknown_label_is_a_bad_row_with_a_suggestion_and_null_when_kept(emoset):
    emoset.rows["test"][0][0] = "fera"
    root = emoset.write()
    with pytest.raises(
        DatasetError, match=r"test.json row 1: image/fear/fear_00090.jpg: 'fera', did you mean 'fear'\?"
    ):
        read(root)
    kept = read(root, on_bad_rows="keep")
    assert kept.table["label"][4] is None
    assert kept.table["problem"][4] == "test.json row 1: unknown label: 'fera', did you mean 'fear'?"


def test_a_row_that_is_listed_in_two_splits_is_a_duplicate(emoset):
    emoset.rows["test"].append(emoset.row("awe_00007"))
    root = emoset.write()
    assert bad_rows(root) == [("test.json", 2, "duplicate id")]
    with pytest.raises(DatasetError, match=r"'awe_00007' is the id of train.json row 1 too"):
        read(root)
    assert read(root, on_bad_rows="keep").table["sample_id"].to_list() == [*ORDER, "awe_00007#2"]


def test_a_stratified_split_replaces_the_official_one_and_keeps_the_order(emoset):
    emoset.rows["train"] = [emoset.row(f"awe_{n:05d}") for n in range(100, 110)]
    emoset.rows["val"] = emoset.rows["test"] = []
    manifest = read_dataset(EmoSetSpec(root=emoset.write(), split=StratifiedSplit(seed=1)))
    assert sorted(manifest.table["split"]) == [
        "test",
        "train",
        "train",
        "train",
        "train",
        "train",
        "train",
        "train",
        "val",
        "val",
    ]
    assert manifest.table["sample_id"].to_list() == [f"awe_{n:05d}" for n in range(100, 110)]
    assert manifest.info["split"] == {"kind": "stratified", "train": 0.7, "val": 0.2, "test": 0.1, "seed": 1}


def test_repairing_a_file_moves_no_other_row_to_another_split(emoset):
    emoset.rows["train"] = [emoset.row(f"awe_{n:05d}") for n in range(100, 120)]
    root = emoset.write()
    spec = EmoSetSpec(root=root, split=StratifiedSplit())
    whole = read_dataset(spec).table["split"]
    (root / "image/awe/awe_00104.jpg").unlink()
    assert read_dataset(spec, on_bad_rows="keep").table["split"].equals(whole)


@pytest.mark.parametrize("name", ["info.json", "train.json", "val.json", "test.json"])
def test_a_missing_file_of_the_layout_is_named(emoset, name):
    root = emoset.write()
    (root / name).unlink()
    with pytest.raises(DatasetError, match=rf"{name}: missing. The root of an EmoSet holds info.json, train.json"):
        read(root)


def test_a_root_one_level_too_high_is_recognised(emoset):
    root = emoset.write()
    with pytest.raises(DatasetError, match=rf"there is one in {root}: set --data to that folder"):
        read(root.parent)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.json", "[", r"train.json: not valid JSON \(Expecting value"),
        ("train.json", "\xff", "train.json: not valid JSON"),
        ("train.json", "{}", "train.json: must be a list of rows, got dict"),
        (
            "train.json",
            "version https://git-lfs.github.com/spec/v1",
            "train.json: git-lfs pointer text instead of JSON",
        ),
        ("info.json", "[]", "info.json: has neither `emotion.label2idx` nor `label2idx`"),
        ("info.json", '{"emotion": {}}', "info.json: has neither `emotion.label2idx` nor `label2idx`"),
        ("info.json", '{"label2idx": {"awe": 1, "fear": 2}}', r"label2idx must number the emotions 0, 1, 2, ..., got"),
        ("info.json", '{"label2idx": {"awe": 0, "awe ": 1}}', r"label2idx must number the emotions 0, 1, 2, ..., got"),
        ("info.json", '{"label2idx": {"awe": 0, "awe": 0}}', r"info.json: 'awe' is given twice in one mapping"),
        ("info.json", '{"label2idx": {"awe": "a"}}', r"label2idx must number the emotions"),
        ("info.json", '{"label2idx": {"awe": [0]}}', r"label2idx must number the emotions"),
    ],
)
def test_a_damaged_file_of_the_layout_is_named(emoset, name, text, message):
    root = emoset.write()
    (root / name).write_bytes(text.encode("latin1"))
    with pytest.raises(DatasetError, match=message):
        read(root)


def test_a_byte_order_mark_is_no_obstacle(emoset):
    root = emoset.write()
    (root / "val.json").write_bytes(b"\xef\xbb\xbf" + (root / "val.json").read_bytes())
    assert len(read(root)) == 5


def test_an_emoset_without_rows_is_an_error(emoset):
    emoset.rows = {"train": [], "val": [], "test": []}
    with pytest.raises(DatasetError, match="the dataset lists no samples"):
        read(emoset.write())
