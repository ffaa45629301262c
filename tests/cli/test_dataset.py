from __future__ import annotations

import pytest
from typer.testing import CliRunner

from emofuse.cli.dataset import app
from emofuse.errors import DatasetError, SpecError


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def error_of(*arguments):
    """The error that ends the command; `emofuse.cli.main` prints its message."""
    result = invoke(*arguments)
    assert result.exit_code == 1
    return result.exception


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    root = tmp_path / "pets"
    for label, colour in (("cat", "tan"), ("dog", "navy")):
        (root / label).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (30 + number, 20), colour).save(root / label / f"{number}.jpg")
    return root


def test_check_prints_counts_sizes_and_that_all_is_well(folder):
    result = invoke("check", "folder", "--data", folder, "--split", "stratified")
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert lines == [
        f"folder dataset at {folder}: 20 rows, 2 labels",
        "",
        "label  train  val  test  total",
        "cat        7    2     1     10",
        "dog        7    2     1     10",
        "total     14    4     2     20",
        "",
        "Sizes in pixels, from the headers of all 20 images",
        "",
        "        min  median  max",
        "width    30      34   39",
        "height   20      20   20",
        "",
        "Problems: none",
    ]


def test_check_lists_problems_and_ends_with_status_1(folder):
    (folder / "cat/3.jpg").write_text("no image")
    (folder / "dog/4.jpg").write_bytes(b"")
    (folder / "dog/readme.txt").touch()
    result = invoke("check", "folder", "--data", folder, "--split", "stratified")
    assert result.exit_code == 1
    assert "Note: files without an image's suffix, left out: 1, first dog/readme.txt" in result.output
    assert "Problems: bad rows 1, images with an unreadable header 1" in result.output
    assert "  empty file: 1\n    row 15: dog/4.jpg" in result.output
    assert "    cat/3.jpg: not an image, or one of an unknown format" in result.output


def test_check_ends_with_status_0_when_bad_rows_are_to_be_kept(folder):
    (folder / "dog/4.jpg").write_bytes(b"")
    result = invoke("check", "folder", "--data", folder, "--split", "stratified", "--on-bad-rows", "keep")
    assert result.exit_code == 0
    assert "Problems: bad rows 1" in result.output


def test_check_cuts_a_long_list_of_unreadable_images(folder):
    for number in range(22):
        (folder / f"cat/bad{number}.jpg").write_text("no image")
    assert "    ... and 2 more" in invoke("check", "folder", "--data", folder, "--split", "stratified").output


def test_check_looks_at_2000_images_unless_all_are_asked_for(folder, monkeypatch):
    from emofuse.datasets import summary

    limits = []
    measure = summary.measure_images
    monkeypatch.setattr(
        summary, "measure_images", lambda listing, limit: (limits.append(limit), measure(listing, limit=5))[1]
    )
    output = invoke("check", "folder", "--data", folder, "--split", "stratified").output
    invoke("check", "folder", "--data", folder, "--split", "stratified", "--all")
    assert limits == [2000, None]
    assert "from the headers of 5 of 20 images, chosen at random (--all reads every one)" in output


def test_check_takes_the_columns_of_a_table(folder):
    (folder / "list.csv").write_text("file,animal,part\n1.jpg,tom,train\n2.jpg,kitty,test\n")
    columns = ("--path-column", "file", "--label-column", "animal", "--split-column", "part")
    result = invoke("check", "csv", "--data", folder, "--table", "list.csv", "--image-dir", "cat", *columns)
    assert result.exit_code == 0
    assert "csv dataset" in result.output
    assert "kitty      0     1      1" in result.output


def test_check_takes_a_pipeline_whose_root_and_split_can_be_overridden(folder, tmp_path):
    stream = "{name: mine, streams: [{kind: lbp}]}"
    pipeline = tmp_path / "mine.yaml"
    run = "{name: one, features: {streams: [lbp]}}"
    pipeline.write_text(f"dataset: {{kind: folder, root: /nowhere}}\ncache: {stream}\nruns: [{run}]\n")
    assert "/nowhere: no such folder" in str(error_of("check", pipeline))
    assert invoke("check", pipeline, "--data", folder, "--split", "stratified").exit_code == 0


def test_check_of_the_bundled_faces_pipeline_reads_the_shared_faces(shared_data):
    result = invoke("check", "faces", "--data", shared_data / "faces")
    assert result.exit_code == 0
    assert "csv dataset" in result.output
    assert "total        588  168    84    840" in result.output


def test_check_names_one_image_under_two_names_with_contradicting_labels(folder):
    (folder / "dog/copy.jpg").write_bytes((folder / "cat/3.jpg").read_bytes())
    for options, status in (((), 1), (("--on-bad-rows", "keep"), 0)):
        result = invoke("check", "folder", "--data", folder, "--split", "stratified", *options)
        assert result.exit_code == status
        assert "Problems: none" not in result.output
        assert (
            "Problem: files with the same bytes: 1 image in 2 rows, 1 with contradicting labels, "
            "0 in several splits\n    cat/3.jpg (cat, train) = dog/copy.jpg (dog, train)\n"
        ) in result.output
    result = invoke("check", "folder", "--data", folder, "--split", "stratified", "--no-duplicates")
    assert result.exit_code == 0
    assert "Problems: none" in result.output


def test_copies_with_one_label_in_one_split_are_a_note(folder):
    (folder / "cat/copy.jpg").write_bytes((folder / "cat/3.jpg").read_bytes())
    table = folder / "labels.csv"
    table.write_text("path,label,split\ncat/3.jpg,cat,train\ncat/copy.jpg,cat,train\ndog/1.jpg,dog,train\n")
    result = invoke("check", "csv", "--data", folder, "--split-column", "split")
    assert result.exit_code == 0
    assert (
        "Note: files with the same bytes: 1 image in 2 rows, 0 with contradicting labels, 0 in several splits\n"
        "    cat/3.jpg (cat, train) = cat/copy.jpg (cat, train)\n"
    ) in result.output
    assert "No bad rows; notes: 1, above" in result.output


def test_check_cuts_a_long_list_of_copies(folder):
    for number in range(22):
        for label in ("cat", "dog"):
            (folder / label / f"copy{number}.jpg").write_bytes(b"\xff\xd8" + bytes([number]))
    output = invoke("check", "folder", "--data", folder, "--split", "stratified").output
    assert "22 images in 44 rows, 22 with contradicting labels" in output
    assert "    ... and 2 more\n" in output


def test_check_refuses_a_target_that_is_neither_kind_nor_pipeline(tmp_path):
    error = error_of("check", "fases")
    assert isinstance(error, SpecError)
    assert "neither a kind of dataset nor a pipeline, did you mean 'faces'? (kinds: " in str(error)
    assert f"but a folder, so say what kind it is: emofuse dataset check folder --data {tmp_path}" in str(
        error_of("check", tmp_path)
    )


def test_check_refuses_an_option_that_the_kind_does_not_have(tmp_path):
    error = error_of("check", "emoset", "--data", tmp_path, "--path-column", "x")
    assert isinstance(error, SpecError)
    assert "path_column: unknown key" in str(error)


def test_check_without_a_root_says_how_to_set_it():
    error = error_of("check", "demo")
    assert isinstance(error, DatasetError)
    assert "the demo dataset has no root" in str(error)


def test_check_generates_no_demo_dataset(tmp_path):
    error = error_of("check", "demo", "--data", tmp_path / "demo")
    assert f"no demo dataset here yet; make it: emofuse dataset demo --out {tmp_path / 'demo'}" in str(error)
    assert not (tmp_path / "demo").exists()


def test_demo_makes_a_dataset_that_check_can_read(tmp_path):
    made = invoke("demo", "--out", tmp_path / "demo", "--images", 24, "--seed", 3)
    assert made.exit_code == 0
    assert f"24 images (seed 3) in {tmp_path / 'demo'}" in made.output
    checked = invoke("check", "demo", "--data", tmp_path / "demo")
    assert "demo dataset at" in checked.output
    assert "24 rows, 8 labels" in checked.output


def test_demo_refuses_too_few_images(tmp_path):
    assert invoke("demo", "--out", tmp_path / "demo", "--images", 3).exit_code == 2


@pytest.fixture
def look_alikes(tmp_path):
    """A table of four pictures, of which one is a scaled copy in another split with another label."""
    np = pytest.importorskip("numpy")
    pytest.importorskip("imagehash")
    from PIL import Image

    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((90, 90), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.png")
    Image.open(tmp_path / "a.png").resize((50, 50)).save(tmp_path / "d.png")
    rows = "a.png,joy,train\nb.png,fear,train\nc.png,joy,val\nd.png,fear,test\n"
    (tmp_path / "labels.csv").write_text(f"path,label,split\n{rows}")
    return tmp_path


def test_check_near_names_pictures_that_look_the_same_and_writes_their_groups(look_alikes):
    arguments = ("check", "csv", "--data", look_alikes, "--split-column", "split")
    assert "look the same" not in invoke(*arguments).output
    result = invoke(*arguments, "--near", "--write-groups", look_alikes / "groups.csv")
    assert result.exit_code == 1
    assert (
        "Problem: pictures that look the same: 1 image in 2 rows, 1 with contradicting labels, 1 in several splits\n"
        "    a.png (joy, train) ~ d.png (fear, test)\n"
    ) in result.output
    assert result.output.endswith(
        f"1 group of 2 rows written to {look_alikes / 'groups.csv'}. Splits keep them together with `group_file: "
        "groups.csv` of the dataset\n"
    )
    assert (look_alikes / "groups.csv").read_text() == "sample_id,group\na,copies of a\nd,copies of a\n"


def test_the_groups_that_check_writes_are_kept_together(look_alikes):
    arguments = ("check", "csv", "--data", look_alikes, "--split-column", "split")
    invoke(*arguments, "--near", "--write-groups", look_alikes / "groups.csv")
    result = invoke(*arguments, "--group-file", "groups.csv")
    assert "Groups: 1 group in 2 rows, the largest 'copies of a' with 2; 2 rows without a group" in result.output
    assert "groups are shared between train, val and test: 1 of 1 are in several splits" in result.output
    drawn = invoke("check", "csv", "--data", look_alikes, "--split", "stratified", "--group-file", "groups.csv")
    assert "groups are shared" not in drawn.output


def test_check_writes_no_groups_where_there_are_none(folder):
    result = invoke("check", "folder", "--data", folder, "--split", "stratified", "--write-groups", folder / "g.csv")
    assert f"No duplicates: {folder / 'g.csv'} has no row" in result.output
    assert (
        invoke("check", "folder", "--data", folder, "--split", "stratified", "--group-file", folder / "g.csv").exit_code
        == 0
    )


@pytest.fixture
def annotated(folder):
    """A table without labels beside the pictures: votes, valence and the label of an annotator."""
    lines = ["path,votes_joy,votes_fear,valence,seen,split"]
    for number in range(10):
        split = "train" if number < 6 else "val" if number < 8 else "test"
        valence = -2 if number in {2, 3} else number / 10
        seen = "joy" if number % 2 else "fear"
        lines.append(f"cat/{number}.jpg,{number},{10 - number},{valence},{seen},{split}")
    (folder / "votes.csv").write_text("\n".join(lines))
    return folder


def test_check_lists_the_columns_that_could_be_targets(annotated):
    options = ("--table", "votes.csv", "--label-column", "", "--split-column", "split")
    result = invoke("check", "csv", "--data", annotated, *options)
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert lines[:13] == [
        f"csv dataset at {annotated}: 10 rows, no labels",
        "",
        "label  train  val  test  total",
        "none       6    2     2     10",
        "total      6    2     2     10",
        "Note: without labels, a run needs the columns of its `target`",
        "",
        "Columns that could be the target of a run",
        "",
        "column           kind                      values  missing",
        "votes_*  distribution  2 columns, 0 to 10, sum 10        0",
        "valence    regression                   -2 to 0.9        0",
        "seen            class         2 labels: fear, joy        0",
    ]
    code = "Note: column 'valence' has -2 in 2 rows, and 0 to 0.9 in all others. "
    assert lines[13] == f"{code}If it stands for a missing value, empty these cells"
    assert lines[-1] == "No bad rows; notes: 1, above"


def test_check_of_a_pipeline_says_what_its_targets_lack(annotated):
    pipeline = annotated / "mine.yaml"
    pipeline.write_text(
        f"""
name: mine
dataset: {{kind: csv, root: {annotated}, table: votes.csv, label_column: null, split_column: split}}
cache: {{streams: [{{kind: lbp}}]}}
runs: [{{name: a, features: {{streams: [lbp]}}, target: {{kind: regression, columns: [valance]}}}}]
"""
    )
    result = invoke("check", pipeline)
    assert result.exit_code == 1
    assert "cannot be trained on this dataset:" in result.output
    assert "target.columns: there is no column 'valance', did you mean 'valence'?" in result.output
    pipeline.write_text(pipeline.read_text().replace("valance", "valence"))
    assert invoke("check", pipeline).exit_code == 0


def test_check_near_says_what_the_features_of_a_cache_confirm(look_alikes, write_cache):
    import numpy as np

    for row, name in enumerate("abcd"):
        (look_alikes / f"{name}.png").rename(look_alikes / f"s{row:04d}.png")
    rows = "s0000.png,joy,train\ns0001.png,fear,train\ns0002.png,joy,val\ns0003.png,fear,test\n"
    (look_alikes / "labels.csv").write_text(f"path,label,split\n{rows}")
    features = np.eye(4, 6, dtype=np.float32)
    features[3] = features[0]
    streams = {"net": ("backbone", features, np.ones(4, np.uint8))}
    path = write_cache(look_alikes / "a.zarr", ["fear", "joy"], np.zeros(4, np.int64), ["train"] * 4, streams)
    arguments = ("check", "csv", "--data", look_alikes, "--split-column", "split", "--cache", path)
    result = invoke(*arguments, "--near")
    assert f"Confirmed by the features of 'net' in {path}: 1 of 1\n    cosine 1.000, to other rows" in result.output
    assert "Problems: none" not in result.output
    assert invoke(*arguments).exit_code == 2
