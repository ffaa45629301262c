from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from emofuse.datasets import list_dataset, read_dataset
from emofuse.errors import DatasetError
from emofuse.specs import CsvSpec, OfficialSplit, StratifiedSplit

STRATIFIED = StratifiedSplit()


@pytest.fixture
def table_at(tmp_path, image_at):
    """Writes labels.csv and the images a.jpg, b.jpg, c.jpg beside it; gives the root."""

    def write(text: str, encoding: str = "utf-8") -> Path:
        root = tmp_path / "things"
        for name in "abc":
            image_at(root / f"{name}.jpg")
        (root / "labels.csv").write_text(text, encoding=encoding)
        return root

    return write


def read(root, on_bad_rows="raise", **options):
    return read_dataset(CsvSpec(root=root, **{"split": STRATIFIED, **options}), on_bad_rows=on_bad_rows)


def bad_rows(root, **options):
    return list_dataset(CsvSpec(root=root, **{"split": STRATIFIED, **options})).bad_rows.select("row", "fault").rows()


def test_rows_keep_the_order_of_the_table_and_classes_are_alphabetical(table_at):
    manifest = read(table_at("path,label\nc.jpg,sad\na.jpg,happy\nb.jpg,sad\n"))
    assert manifest.table["sample_id"].to_list() == ["c", "a", "b"]
    assert manifest.table["path"].to_list() == ["c.jpg", "a.jpg", "b.jpg"]
    assert manifest.table["label"].to_list() == ["sad", "happy", "sad"]
    assert manifest.classes == ("happy", "sad")
    assert (manifest.info["name"], manifest.info["kind"]) == ("things", "csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_headers_and_values_lose_the_spaces_around_them_and_a_byte_order_mark(table_at, encoding):
    manifest = read(table_at(" path, label\n a.jpg , fröhlich \n", encoding))
    assert manifest.table.select("path", "label").row(0) == ("a.jpg", "fröhlich")


def test_paths_start_from_image_dir_and_ids_do_not(table_at, image_at):
    root = table_at("path,label\nsub/x.jpg,1\n./sub//y.png,2\n")
    image_at(root / "images/faces/sub/x.jpg")
    image_at(root / "images/faces/sub/y.png")
    table = read(root, image_dir=Path("images/faces")).table
    assert table["path"].to_list() == ["images/faces/sub/x.jpg", "images/faces/sub/y.png"]
    assert table["sample_id"].to_list() == ["sub/x", "sub/y"]


def test_backslashes_of_a_table_made_on_windows_become_slashes(table_at, image_at):
    root = table_at("path,label\nsub\\x.jpg,1\n")
    image_at(root / "sub/x.jpg")
    assert read(root).table["path"].to_list() == ["sub/x.jpg"]


def test_two_images_that_differ_in_suffix_only_keep_it_in_their_ids(table_at, image_at):
    root = table_at("path,label\na.jpg,1\na.png,1\nb.jpg,1\n")
    image_at(root / "a.png")
    assert read(root).table["sample_id"].to_list() == ["a.jpg", "a.png", "b"]


def test_other_columns_become_attributes_as_numbers_where_all_are_numbers(table_at):
    header = "path,label,width,score,subject,note,empty"
    table = read(table_at(f"{header}\na.jpg,1,640,0.5,007,x,\nb.jpg,2,480,,008,7,\n")).table
    assert table.schema["width"] == pl.Int64
    assert table["score"].to_list() == [0.5, None]
    assert table["subject"].to_list() == ["007", "008"]
    assert table["note"].to_list() == ["x", "7"]
    assert table["empty"].null_count() == 2


def test_a_column_named_like_one_of_the_manifest_is_kept_under_another_name(table_at):
    text = "image,emotion,path,label,row,table_row,split\na.jpg,sad,p,l,4,5,train\n"
    table = read(table_at(text), path_column="image", label_column="emotion").table
    assert table.columns[6:] == ["table_path", "table_label", "table_table_row", "table_row", "table_split"]
    assert table.row(0)[6:] == ("p", "l", 4, 5, "train")


def test_a_column_without_a_name_is_called_by_its_number(table_at):
    assert read(table_at(",path,label\n0,a.jpg,x\n")).table["column_1"].to_list() == [0]


def test_an_empty_label_is_an_unlabelled_row(table_at):
    manifest = read(table_at("path,label\na.jpg,\nb.jpg, \nc.jpg,x\n"))
    assert manifest.table["label"].to_list() == [None, None, "x"]
    assert manifest.table["split"].to_list() == [None, None, "train"]


def test_a_table_without_any_label_is_read(table_at):
    manifest = read(table_at("path,label\na.jpg,\n"))
    assert (manifest.classes, manifest.table["label"].to_list()) == ((), [None])


def test_split_names_are_recognised(table_at, image_at):
    names = ["train", "Training", "VAL", "valid", "validation", "test"]
    root = table_at("path,label,part\n" + "".join(f"{i}.jpg,x,{name}\n" for i, name in enumerate(names)))
    for index in range(len(names)):
        image_at(root / f"{index}.jpg")
    manifest = read_dataset(CsvSpec(root=root, split_column="part"))
    assert manifest.table["split"].to_list() == ["train", "train", "val", "val", "val", "test"]
    assert manifest.table.columns[-1] == "problem"


def test_an_unknown_split_is_a_bad_row_and_null_when_kept(table_at):
    root = table_at("path,label,split\na.jpg,x,train\nb.jpg,x,tset\nc.jpg,x,\n")
    spec = CsvSpec(root=root, split_column="split")
    with pytest.raises(
        DatasetError, match=r"unknown split: 2 \(known: train or training, .*\)\n    labels.csv row 3: b.jpg: 'tset'"
    ):
        read_dataset(spec)
    kept = read_dataset(spec, on_bad_rows="keep").table
    assert kept["split"].to_list() == ["train", None, None]
    assert kept["problem"][2] == "labels.csv row 4: unknown split: the row has a label but no split"


def test_an_unlabelled_row_needs_no_split(table_at):
    root = table_at("path,label,split\na.jpg,x,train\nb.jpg,,\n")
    assert read_dataset(CsvSpec(root=root, split_column="split")).table["split"].to_list() == ["train", None]


def test_rows_are_numbered_as_in_a_spreadsheet_blank_lines_counted(table_at):
    assert bad_rows(table_at("path,label\na.jpg,x\n\nmissing.jpg,x\n")) == [(4, "missing file")]


@pytest.mark.parametrize(("line", "fields"), [("b.jpg,x,extra", 3), ("b.jpg", 1)])
def test_a_row_of_another_width_is_a_bad_row_that_keeps_its_place(table_at, line, fields):
    root = table_at(f"path,label\na.jpg,x\n{line}\nc.jpg,x\n")
    with pytest.raises(
        DatasetError, match=rf"malformed row: 1\n    labels.csv row 3: has {fields} fields, the header has 2$"
    ):
        read(root)
    assert read(root, "keep").table["sample_id"].to_list() == ["a", "labels.csv#3", "c"]


def test_a_row_of_another_width_has_no_second_fault_for_its_split(table_at):
    root = table_at("path,label,split\na.jpg,x,train\nb.jpg\n")
    assert bad_rows(root, split={"kind": "official"}, split_column="split") == [(3, "malformed row")]


def test_missing_columns_are_named_all_at_once_with_what_there_is(table_at):
    with pytest.raises(DatasetError) as error:
        read(table_at("image,lable,Usage\na.jpg,x,train\n"), path_column="imag", split={"kind": "official"})
    message = str(error.value)
    assert "labels.csv (columns: image, lable, Usage): " in message
    assert (
        "the official split needs the column that holds it: set `split_column: Usage`, or ask for a stratified"
        in message
    )
    assert "path_column: there is no column 'imag', did you mean 'image'?" in message
    assert "label_column: there is no column 'label', did you mean 'lable'?" in message


def test_an_official_split_without_its_column_says_what_to_do(table_at):
    message = (
        r"set `split_column`, if there is such a column, or ask for a stratified split: `split: \{kind: stratified\}`"
    )
    with pytest.raises(DatasetError, match=message):
        read_dataset(CsvSpec(root=table_at("path,label\na.jpg,x\n")))


def test_a_missing_table_names_those_that_there_are(table_at):
    root = table_at("path,label\n")
    with pytest.raises(
        DatasetError, match=r"label.csv: no such table, did you mean 'labels.csv'\?; there are: labels.csv"
    ):
        read(root, table=Path("label.csv"))
    (root / "labels.csv").unlink()
    with pytest.raises(DatasetError, match=r"labels.csv: no such table; there is no \*.csv or \*.tsv in .*things"):
        read(root)


def test_a_missing_image_dir_names_the_folders_that_there_are(table_at, image_at):
    root = table_at("path,label\na.jpg,x\n")
    image_at(root / "images/a.jpg")
    with pytest.raises(
        DatasetError, match=r"image_dir: no such folder, did you mean 'images'\? \(folders in the root: images\)"
    ):
        read(root, image_dir=Path("image"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty; its first row must name the columns"),
        ("path,label\n", "the dataset lists no samples"),
        ("path,label, label\na.jpg,x,y\n", "two columns have the same name: label"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs pointer text instead of a table"),
        ('path,label\na.jpg,"' + "x" * 200_000 + '"\n', r"not a CSV table \(field larger than field limit"),
    ],
)
def test_a_table_that_is_none_is_refused(table_at, text, message):
    with pytest.raises(DatasetError, match=message):
        read(table_at(text))


def test_a_table_in_another_encoding_is_refused(table_at):
    with pytest.raises(DatasetError, match=r"labels.csv: not UTF-8 text; save it as 'CSV UTF-8'"):
        read(table_at("path,label\na.jpg,fröhlich\n", "latin-1"))


def test_the_shared_faces_are_read(shared_data):
    spec = CsvSpec(
        root=shared_data / "faces", path_column="image", image_dir=Path("images"), split=StratifiedSplit(seed=2)
    )
    manifest = read_dataset(spec)
    assert len(manifest) == 840
    assert manifest.classes == ("anger", "disgust", "happiness", "neutral", "sadness", "surprise")
    assert manifest.table.row(0)[:5] == (
        "face_0001",
        "images/face_0001.jpg",
        manifest.table["split"][0],
        "neutral",
        None,
    )
    assert manifest.table.schema["width"] == pl.Int64
    assert sorted(manifest.table["split"].value_counts().rows()) == [("test", 84), ("train", 588), ("val", 168)]


def test_absolute_paths_below_the_root_are_no_escape(tmp_path, image_at):
    inside, outside = image_at(tmp_path / "root/images/a.jpg"), image_at(tmp_path / "b.jpg")
    (tmp_path / "root/labels.csv").write_text(f"path,label\n{inside},joy\n{outside},joy\n")
    listing = list_dataset(CsvSpec(root=tmp_path / "root", image_dir="images", split=StratifiedSplit()))
    assert listing.manifest.table.select("sample_id", "path").row(0) == ("a", "images/a.jpg")
    assert listing.bad_rows.select("row", "fault").rows() == [(3, "path leaves the root")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_table_is_read_whatever_separates_it(table_at, separator):
    text = 'path,label,note\na.jpg,x,"1 2"\nb.jpg,y,3\n'.replace(",", separator)
    root = table_at(text)
    manifest = read(root).table
    assert manifest.select("path", "label").rows() == [("a.jpg", "x"), ("b.jpg", "y")]
    assert manifest["note"].to_list() == ["1 2", "3"]
    notes = [note for note in read(root).info["notes"] if "separated" in note]
    shown = {";": "labels.csv is separated by ';'", "\t": "labels.csv is separated by tabs"}
    assert notes == ([] if separator == "," else [shown.get(separator, "labels.csv is separated by '|'")])


def test_commas_within_a_semicolon_table_are_part_of_its_values(table_at):
    manifest = read(table_at("sep=;\npath;label;height, cm\na.jpg;x;1,5\nb.jpg;x, y;2\n"))
    assert manifest.table["label"].to_list() == ["x", "x, y"]
    assert manifest.table["height, cm"].to_list() == ["1,5", "2"]


def test_the_columns_that_are_wanted_decide_what_separates(table_at):
    manifest = read(table_at("path,label,a;b;c;d;e\na.jpg,x,1\nb.jpg,y,2\n"))
    assert manifest.table["label"].to_list() == ["x", "y"]


def test_a_table_of_one_column_is_said_to_be_separated_by_something_else(table_at):
    with pytest.raises(DatasetError, match=r"the table has only one column: its fields must be separated by one of"):
        read(table_at("path:label\na.jpg:x\n"))


def test_a_table_without_labels_has_its_targets_in_other_columns(table_at):
    root = table_at("path,valence,votes_joy\na.jpg,0.5,3\nb.jpg,-1,0\nc.jpg,,7\n")
    manifest = read(root, label_column=None)
    assert manifest.classes == ()
    assert manifest.table["label"].to_list() == [None] * 3
    assert manifest.table["valence"].to_list() == [0.5, -1.0, None]
    assert manifest.table["votes_joy"].dtype == pl.Int64
    assert sorted(manifest.table["split"].to_list()) == ["test", "train", "val"]  # all rows are one stratum
    assert read(root, label_column="").equals(manifest)


def test_a_table_without_labels_keeps_its_own_splits(table_at):
    root = table_at("path,valence,split\na.jpg,0.5,train\nb.jpg,-1,test\nc.jpg,0,\n")
    manifest = read(root, label_column=None, split_column="split", split=OfficialSplit())
    assert manifest.table["split"].to_list() == ["train", "test", None]


def test_a_missing_label_column_says_how_to_read_a_table_without_labels(table_at):
    with pytest.raises(
        DatasetError, match=r"no column 'label'. .* Set `label_column: null` for a table without labels"
    ):
        read(table_at("path,valence\na.jpg,0.5\n"))


def test_rows_without_label_that_have_numbers_are_counted_where_a_split_is_drawn(table_at):
    root = table_at("path,label,valence\na.jpg,joy,0.5\nb.jpg,,-1\nc.jpg,,\n")
    note = (
        "rows without label that have numbers: 1. The split is drawn by label, so they are in none. A run whose target "
        "is these numbers has them in its own split: `split: {kind: stratified}` of the run"
    )
    assert note in read(root).info["notes"]


def test_groups_are_taken_out_of_paths_by_a_pattern(tmp_path, image_at):
    """CK+ and JAFFE have the subject in the names of files."""
    names = [f"faces/KA.{emotion}{number}.png" for emotion in ("AN", "HA") for number in range(3)]
    names += [name.replace("KA", "KL") for name in names] + ["faces/other.png"]
    for name in names:
        image_at(tmp_path / name)
    lines = ["path,label", *(f"{name},{'anger' if 'AN' in name else 'joy'}" for name in names)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    spec = CsvSpec(root=tmp_path, split=StratifiedSplit(), group_pattern=r"(\w\w)\.[A-Z]{2}\d")
    manifest = spec.read().manifest
    assert manifest.groups == ["KA"] * 6 + ["KL"] * 6 + [None]
    assert any("the pattern of the groups is not in 1 of 13 paths (faces/other.png, ...)" in note
               for note in manifest.info["notes"])  # fmt: skip
    with pytest.raises(DatasetError, match=r"group: the pattern '\(s\\\\d\)' is in none of the 13 paths"):
        CsvSpec(root=tmp_path, split=StratifiedSplit(), group_pattern=r"(s\d)").read()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"group_pattern": "("}, r"'\(' is not a regular expression"),
        ({"group_pattern": "s1"}, r"is not a regular expression with one group in parentheses.*; it has 0"),
        ({"group_pattern": "(s)", "group_column": "who"}, r"group_column and group_pattern cannot be given both"),
    ],
)
def test_a_wrong_pattern_of_groups_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        CsvSpec(root="x", **options)
