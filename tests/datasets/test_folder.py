from __future__ import annotations

import os

import pytest

from emofuse.datasets import list_dataset, read_dataset
from emofuse.errors import DatasetError
from emofuse.specs import FolderSpec, StratifiedSplit

STRATIFIED = StratifiedSplit()


@pytest.fixture
def root(tmp_path, image_at):
    """Two labels without split folders, made in an order that is not the alphabet's."""
    root = tmp_path / "pets"
    for path in ("sad/b.jpg", "sad/a.JPG", "happy/z.png", "happy/10.jpeg", "happy/2.jpg"):
        image_at(root / path)
    return root


def test_rows_are_ordered_by_label_and_path_and_classes_alphabetically(root):
    manifest = read_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert manifest.table["path"].to_list() == ["happy/10.jpeg", "happy/2.jpg", "happy/z.png", "sad/a.JPG", "sad/b.jpg"]
    assert manifest.table["label"].to_list() == ["happy"] * 3 + ["sad"] * 2
    assert manifest.classes == ("happy", "sad")
    assert (manifest.info["name"], manifest.info["kind"], manifest.info["rows"]) == ("pets", "folder", 5)


def test_ids_are_paths_without_suffix_except_where_two_files_would_share_one(root, image_at):
    image_at(root / "sad/a.png")
    image_at(root / "sad/b.jpg.png")
    manifest = read_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert manifest.table["sample_id"].to_list() == [
        "happy/10", "happy/2", "happy/z", "sad/a.JPG", "sad/a.png", "sad/b", "sad/b.jpg.png",
    ]  # fmt: skip


def test_split_folders_give_the_official_split_in_the_order_train_val_test(tmp_path, image_at):
    for path in ("test/x/1.jpg", "Training/x/2.jpg", "valid/y/3.jpg", "Training/y/0.jpg"):
        image_at(tmp_path / path)
    manifest = read_dataset(FolderSpec(root=tmp_path))
    assert manifest.table.select("split", "label", "path").rows() == [
        ("train", "x", "Training/x/2.jpg"),
        ("train", "y", "Training/y/0.jpg"),
        ("val", "y", "valid/y/3.jpg"),
        ("test", "x", "test/x/1.jpg"),
    ]
    assert manifest.classes == ("x", "y")


def test_a_stratified_split_pools_the_split_folders(tmp_path, image_at):
    for split in ("train", "test"):
        for number in range(5):
            image_at(tmp_path / split / "x" / f"{number}.jpg")
    splits = read_dataset(FolderSpec(root=tmp_path, split=STRATIFIED)).table["split"].to_list()
    assert sorted(splits) == ["test"] + ["train"] * 7 + ["val"] * 2


def test_an_official_split_without_split_folders_says_to_ask_for_a_stratified_one(root):
    with pytest.raises(
        DatasetError, match=r"has no official split. Ask for a stratified one: `split: \{kind: stratified\}`"
    ):
        read_dataset(FolderSpec(root=root))


def test_split_folders_beside_label_folders_are_refused(root, image_at):
    image_at(root / "test/sad/c.jpg")
    with pytest.raises(DatasetError, match=r"split folders \(test\) beside others \(happy, sad\)"):
        read_dataset(FolderSpec(root=root, split=STRATIFIED))


def test_images_deeper_below_a_label_are_of_that_label(root, image_at):
    image_at(root / "sad/more/deep/c.jpg")
    table = read_dataset(FolderSpec(root=root, split=STRATIFIED)).table
    assert table.select("path", "label").row(-1) == ("sad/more/deep/c.jpg", "sad")


def test_hidden_names_are_left_out_and_other_files_and_empty_folders_noted(root, image_at):
    image_at(root / ".trash/a.jpg")
    image_at(root / "sad/._b.jpg")
    (root / "sad/notes.txt").write_text("x")
    (root / "__MACOSX").mkdir()
    manifest = read_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert len(manifest) == 5
    assert manifest.classes == ("happy", "sad")
    *others, rare = manifest.info["notes"]
    assert others == [
        "files without an image's suffix, left out: 1, first sad/notes.txt",
        "left by a system, a network storage or an archive, left out: 1, first __MACOSX",
    ]
    assert rare == (
        "labels with too few rows for one in each split: 1 of 2 have fewer than 3, 'sad' (2 rows); 1 of them without a "
        "val row and 1 of them without a test row"
    )


def test_an_image_beside_the_label_folders_is_a_bad_row_without_label(root, image_at):
    image_at(root / "loose.jpg")
    spec = FolderSpec(root=root, split=STRATIFIED)
    with pytest.raises(DatasetError, match=r"image lies in no label's folder: 1\n    row 1: loose.jpg"):
        read_dataset(spec)
    kept = read_dataset(spec, on_bad_rows="keep").table.row(0, named=True)
    assert (kept["label"], kept["split"], kept["problem"]) == (None, None, "row 1: image lies in no label's folder")


def test_a_link_to_an_image_outside_of_the_root_is_a_bad_row(root, tmp_path, image_at):
    image_at(tmp_path / "elsewhere.jpg")
    (root / "sad/c.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (root / "sad/d.jpg").symlink_to(root / "sad/b.jpg")
    with pytest.raises(
        DatasetError, match=r"1 bad row of 7[^\n]*\n  path leaves the root: 1 .*\n    row 6: sad/c.jpg$"
    ):
        read_dataset(FolderSpec(root=root, split=STRATIFIED))


@pytest.mark.parametrize("link", ["sad/more", "angry"])
def test_a_link_to_a_folder_outside_of_the_root_is_one_bad_row_and_is_not_entered(root, tmp_path, image_at, link):
    image_at(tmp_path / "elsewhere/1.jpg")
    image_at(tmp_path / "elsewhere/2.jpg")
    (root / link).symlink_to(tmp_path / "elsewhere")
    listing = list_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert listing.bad_rows.select("path", "fault").rows() == [(link, "path leaves the root")]


def test_a_link_back_up_does_not_go_round_for_ever(root):
    (root / "sad/loop").symlink_to(root / "sad")
    assert len(read_dataset(FolderSpec(root=root, split=STRATIFIED))) == 5


def test_a_root_that_is_a_link_itself_is_fine(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert len(read_dataset(FolderSpec(root=tmp_path / "link", split=STRATIFIED))) == 5


def test_a_name_that_is_not_utf8_is_a_bad_row(root):
    try:
        (root / "sad" / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listing = list_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert listing.bad_rows.select("path", "fault").rows() == [(r"sad/\xff.jpg", "file name is not UTF-8")]


def test_an_empty_root_says_what_was_expected(tmp_path):
    with pytest.raises(DatasetError, match=r"no images in folders of labels. Expected .*/<label>/<name>.jpg"):
        read_dataset(FolderSpec(root=tmp_path, split=STRATIFIED))


def test_a_root_without_images_says_what_there_is_instead(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/video.mp4").write_text("x")
    with pytest.raises(
        DatasetError, match=r"no images in folders of labels \(.* left out: 1 \(1 .mp4\), first a/video.mp4\)"
    ):
        read_dataset(FolderSpec(root=tmp_path, split=STRATIFIED))


def test_a_folder_that_cannot_be_listed_is_named(root, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sad"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=r"pets/sad: cannot be listed \(Permission denied\)"):
        read_dataset(FolderSpec(root=root, split=STRATIFIED))


def test_what_emofuse_wrote_in_the_root_is_no_label_and_is_told(root, image_at):
    out = root / "emofuse-runs/mine"
    for path in ("features.zarr/zarr.json", "runs/0123/run.json", "runs/0123/predictions.npz"):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text("{}")
    image_at(out / "report/figures/summary.png")
    for name in ("index.html", "per_class.csv", "runs.csv"):
        (out / "report" / name).write_text("")
    (out / "features.lock").write_text("")
    image_at(root / "demo/image/joy/1.jpg")
    for name in ("demo.json", "info.json"):
        (root / "demo" / name).write_text("{}")
    manifest = read_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert (len(manifest), manifest.classes) == (5, ("happy", "sad"))
    assert manifest.info["notes"][0] == "written by emofuse, left out: 4, first demo"


def test_a_label_into_which_a_report_was_written_keeps_its_own_pictures(root, image_at):
    image_at(root / "sad/figures/summary.png")
    for name in ("index.html", "per_class.csv", "runs.csv"):
        (root / "sad" / name).write_text("")
    manifest = read_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert manifest.table["path"].to_list()[3:] == ["sad/a.JPG", "sad/b.jpg"]


def test_output_and_debris_beside_split_folders_do_not_stop_the_reader(tmp_path, image_at):
    for path in ("train/x/1.jpg", "val/x/2.jpg", "test/x/3.jpg", "out/report/figures/a.png", "__MACOSX/train/._1.jpg"):
        image_at(tmp_path / path)
    for name in ("index.html", "per_class.csv", "runs.csv"):
        (tmp_path / "out/report" / name).write_text("")
    manifest = read_dataset(FolderSpec(root=tmp_path))
    assert manifest.table["split"].to_list() == ["train", "val", "test"]
    image_at(tmp_path / "more/x/4.jpg")
    with pytest.raises(DatasetError, match=r"split folders \(test, train, val\) beside others \(more\)"):
        read_dataset(FolderSpec(root=tmp_path))


def test_thumbnails_of_network_storage_are_left_out_at_every_depth(root, image_at):
    image_at(root / "@eaDir/sad/a.jpg/SYNOPHOTO_THUMB_M.jpg")
    image_at(root / "sad/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg")
    manifest = read_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert len(manifest) == 5
    assert manifest.info["notes"][0] == "left by a system, a network storage or an archive, left out: 2, first @eaDir"


def test_every_decoded_format_is_listed_and_pictures_of_others_are_counted(root, image_at):
    for name in ("c.avif", "d.jpe", "e.pnm"):
        image_at(root / "sad/real.jpg").rename(root / "sad" / name)
    for name in ("f.heic", "g.heic", "h.mp4"):
        (root / "sad" / name).write_bytes(b"x")
    manifest = read_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert manifest.table["path"].to_list()[-3:] == ["sad/c.avif", "sad/d.jpe", "sad/e.pnm"]
    assert manifest.info["notes"] == [
        "pictures of formats that are not decoded, and clips, left out: 3 (2 .heic, 1 .mp4), first sad/f.heic"
    ]


def test_names_alike_but_for_bytes_that_are_not_utf8_are_told_apart(root):
    try:
        for name in (b"\xe8.jpg", b"\xe9.jpg"):
            (root / "sad" / os.fsdecode(name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listing = list_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert listing.bad_rows.select("path", "fault").rows() == [
        (rf"sad/\x{byte}.jpg", "file name is not UTF-8") for byte in ("e8", "e9")
    ]


def test_pipes_and_sockets_are_bad_rows_and_nothing_waits_for_them(root):
    os.mkfifo(root / "sad/pipe.jpg")
    listing = list_dataset(FolderSpec(root=root, split=STRATIFIED))
    assert listing.bad_rows.select("path", "fault").rows() == [("sad/pipe.jpg", "not a file")]


def test_links_out_of_the_root_are_followed_if_the_spec_says_so_and_the_manifest_keeps_it(tmp_path, image_at):
    for name in ("1", "2", "3"):
        image_at(tmp_path / "elsewhere" / f"{name}.jpg")
        link = tmp_path / "snapshot/joy" / f"{name}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tmp_path / "elsewhere" / f"{name}.jpg")
    (tmp_path / "snapshot/awe").symlink_to(tmp_path / "elsewhere")
    spec = FolderSpec(root=tmp_path / "snapshot", split=STRATIFIED)
    with pytest.raises(DatasetError, match="links of your own are followed with --follow-links"):
        read_dataset(spec)
    manifest = read_dataset(spec.model_copy(update={"follow_links": True}))
    assert manifest.table["label"].to_list() == ["awe"] * 3 + ["joy"] * 3
    assert manifest.table["problem"].null_count() == 6
    assert manifest.info["follow_links"] is True
