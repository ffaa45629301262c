"""Images in containers: Parquet files, WebDataset's archives, and folders in zip and tar archives."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from member_files import images, picture, write_parquet, write_zip

from emofuse.datasets.folder import FolderSpec
from emofuse.datasets.near_duplicates import find_near_duplicates
from emofuse.datasets.parquet import ParquetSpec
from emofuse.datasets.roots import open_files
from emofuse.datasets.sources import sources_of
from emofuse.datasets.summary import measure_images
from emofuse.datasets.webdataset import WebdatasetSpec
from emofuse.errors import DatasetError
from emofuse.media.decode import read_image
from emofuse.specs import DecodeSpec, OfficialSplit, StratifiedSplit
from emofuse.testing import check_dataset

LABELS = {"image": {"_type": "Image"}, "label": {"names": ["sad", "happy", "angry"], "_type": "ClassLabel"}}
DRAWN = StratifiedSplit()


def columns(manifest, *names):
    return manifest.table.select(names).rows()


def greys(spec):
    """The grey of the picture of every row."""
    manifest = spec.read().manifest
    sources = sources_of(manifest.table, manifest.root, open_files(manifest.root))
    return [None if each is None else int(read_image(each, DecodeSpec())[0, 0, 0]) for each in sources]


# Parquet


def shard(path, first, count, **more):
    rows = range(first, first + count)
    values = {"image": images(*(picture(row) for row in rows)), "label": [row % 3 for row in rows]}
    return write_parquet(path, {**values, "age": [20 + row for row in rows], **more}, LABELS)


@pytest.fixture
def hub(tmp_path):
    """A dataset as the library `datasets` pushes it to a hub."""
    root = tmp_path / "emotions"
    shard(root / "data/train-00000-of-00002.parquet", 0, 9)
    shard(root / "data/train-00001-of-00002.parquet", 9, 9)
    shard(root / "data/validation-00000-of-00001.parquet", 18, 6)
    shard(root / "data/test-00000-of-00001.parquet", 24, 6)
    (root / "README.md").write_text("A dataset")
    return root


def test_parquet_files_of_a_hub_are_read_in_place(hub):
    spec = ParquetSpec(root=hub)
    check_dataset(spec)
    listing = spec.read()
    listing.check_no_bad_rows()
    manifest = listing.manifest
    assert manifest.classes == ("sad", "happy", "angry")
    names = ("sample_id", "path", "member", "label", "split", "age")
    test = "data/test-00000-of-00001"
    assert columns(manifest, *names)[1] == (f"{test}/1", f"{test}.parquet", "image[1]", "happy", "test", 45)
    assert sorted(manifest.table["split"].value_counts().rows()) == [("test", 6), ("train", 18), ("val", 6)]
    assert greys(spec) == [*range(24, 30), *range(18), *range(18, 24)]
    assert "'validation' as val (1)" in manifest.info["notes"][0]
    assert measure_images(listing).width == (6, 6, 6)


def test_one_parquet_file_is_a_dataset_too(hub):
    path = hub / "data/train-00000-of-00002.parquet"
    manifest = ParquetSpec(root=path, split=DRAWN).read().manifest
    assert len(manifest) == 9
    assert manifest.root == path.parent
    assert set(manifest.table["split"]) == {"train", "val", "test"}


def test_columns_of_a_parquet_file_are_found_or_asked_for(tmp_path):
    raw = {"jpg": [picture(1), picture(2)], "emotion": ["joy", "fear"], "who": ["a", "b"], "set": ["train", "dev"]}
    path = write_parquet(tmp_path / "a.parquet", raw)
    spec = ParquetSpec(root=path, label_column="emotion", group_column="who", split_column="set")
    check_dataset(spec)
    manifest = spec.read().manifest
    assert columns(manifest, "member", "label", "group", "split") == [
        ("jpg[0]", "joy", "a", "train"),
        ("jpg[1]", "fear", "b", "val"),
    ]
    assert manifest.attributes == []
    with pytest.raises(DatasetError, match=r"label_column: there is no column 'label'.*Set `label_column: null`"):
        ParquetSpec(root=path, split=DRAWN).read()
    for none in (None, ""):
        assert ParquetSpec(root=path, label_column=none, split=DRAWN).read().manifest.classes == ()
    write_parquet(path, {**raw, "thumbnail": raw["jpg"]})
    with pytest.raises(DatasetError, match=r"several columns could hold the images: set `image_column` \(jpg, thumb"):
        ParquetSpec(root=path, label_column="emotion").read()
    write_parquet(path, {"emotion": ["joy"]})
    with pytest.raises(DatasetError, match=r"no column holds bytes of images; set `image_column` \(columns: emotion\)"):
        ParquetSpec(root=path).read()


def test_the_only_class_label_of_the_metadata_is_the_label(tmp_path):
    columns_of = {"image": images(picture(1)), "expression": [1], "bbox": [[1, 2]]}
    features = {"expression": {"names": ["sad", "happy"], "_type": "ClassLabel"}, "broken": None}
    path = write_parquet(tmp_path / "a.parquet", columns_of, features)
    manifest = ParquetSpec(root=path, split=DRAWN).read().manifest
    assert columns(manifest, "label") == [("happy",)]
    assert manifest.info["notes"][:2] == [
        "the labels are in column 'expression', the only one that the metadata call a label",
        "columns of structures or bytes, left out: bbox",
    ]


def test_numbers_of_labels_without_names_are_ordered_by_value(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"image": [picture(1)] * 4, "label": [10, 2, -1, 2]})
    manifest = ParquetSpec(root=path, split=DRAWN).read().manifest
    assert manifest.classes == ("2", "10")
    assert manifest.table["label"].to_list() == ["10", "2", None, "2"]


def test_bad_rows_and_files_of_parquet_are_said(hub):
    shard(hub / "data/train-00001-of-00002.parquet", 9, 2, label=[7, -1])
    listing = ParquetSpec(root=hub).read()
    with pytest.raises(
        DatasetError, match=r"train-00001-of-00002\.parquet row 1: .*: 7, expected a number from 0 to 2"
    ):
        listing.check_no_bad_rows()
    assert listing.bad_count == 1
    write_parquet(hub / "data/train-00001-of-00002.parquet", {"image": [picture(1)]})
    with pytest.raises(DatasetError, match=r"00001-of-00002\.parquet: there is no column age, label, which the first"):
        ParquetSpec(root=hub).read()
    (hub / "data/train-00001-of-00002.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DatasetError, match=r"00001-of-00002\.parquet: no whole Parquet table"):
        ParquetSpec(root=hub).read()


def test_files_without_a_split_in_their_name_need_a_drawn_one(tmp_path):
    shard(tmp_path / "part-0.parquet", 0, 9)
    with pytest.raises(DatasetError, match=r"no file says of which split it is, .* \(the first is part-0\.parquet\)"):
        ParquetSpec(root=tmp_path).read()
    shard(tmp_path / "default/val/0.parquet", 9, 9)  # the folder says it
    manifest = ParquetSpec(root=tmp_path).read().manifest
    assert manifest.table["split"].to_list() == ["val"] * 9 + [None] * 9
    with pytest.raises(DatasetError, match=r"the parquet dataset has no file \*\.parquet"):
        ParquetSpec(root=tmp_path / "default" / "none").read() if (tmp_path / "default/none").mkdir() is None else None


# WebDataset


def write_tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else str(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path):
    root = tmp_path / "web"
    for split, first, count in (
        ("train-000000", 0, 6),
        ("train-000001", 6, 6),
        ("val-000000", 12, 3),
        ("test-0", 15, 3),
    ):
        files = {}
        for row in range(first, first + count):
            files |= {f"./{row:04}.png": picture(row), f"./{row:04}.cls": row % 3}
        write_tar(root / f"{split}.tar", files)
    return root


def test_archives_of_webdataset_are_read_in_place(shards):
    spec = WebdatasetSpec(root=shards, classes=("sad", "happy", "angry"))
    check_dataset(spec)
    listing = spec.read()
    listing.check_no_bad_rows()
    manifest = listing.manifest
    assert manifest.classes == ("sad", "happy", "angry")
    assert columns(manifest, "sample_id", "path", "member", "label", "split")[4] == (
        "train-000000/0001", "train-000000.tar", "./0001.png", "happy", "train",
    )  # fmt: skip
    assert greys(spec) == [15, 16, 17, *range(12), 12, 13, 14]
    assert WebdatasetSpec(root=shards).read().manifest.classes == ("0", "1", "2")
    assert find_near_duplicates(manifest).unreadable == 0


def test_labels_of_webdataset_may_be_names_or_values_of_json(tmp_path):
    first = {"label": "joy", "who": 7, "age": 31, "box": [1]}
    second = {"label": "fear", "who": "b", "age": 2.5, "smiles": True}
    path = write_tar(
        tmp_path / "all.tar",
        {
            "a/1.png": picture(1), "a/1.json": json.dumps(first), "a/1.seg.png": picture(9), "a/1.txt": "a face",
            "a/2.png": picture(2), "a/2.json": json.dumps(second), "a/3.json": "{}", "a/._1.png": "debris",
        },
    )  # fmt: skip
    spec = WebdatasetSpec(root=path, split=DRAWN, label="json", group_key="who")
    check_dataset(spec)
    manifest = spec.read().manifest
    assert columns(manifest, "sample_id", "label", "group", "age", "smiles") == [
        ("all/a/1", "joy", "7", 31.0, None),
        ("all/a/2", "fear", "b", 2.5, True),
    ]
    assert manifest.info["notes"][:2] == [
        "samples without a picture, clip or sound, left out: 1, first all.tar/a/3",
        "further pictures, clips and sounds of samples, left out: 1, first all.tar/a/1.seg.png",
    ]


def test_bad_samples_of_webdataset_are_listed(tmp_path):
    files = {"1.png": picture(1), "1.cls": 0, "2.png": picture(2), "3.png": picture(3), "3.cls": b"\xff"}
    path = write_tar(tmp_path / "train.tar", files)
    listing = WebdatasetSpec(root=path).read()
    with pytest.raises(DatasetError, match=r"there is no 2\.cls(.|\n)*train\.tar row 3: train\.tar: 3: 'utf-8' codec"):
        listing.check_no_bad_rows()
    assert listing.bad_count == 2
    assert len(WebdatasetSpec(root=path, classes=("sad",)).read().manifest.classes) == 1


def test_compressed_and_missing_archives_are_said(tmp_path):
    (tmp_path / "train-0.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(
        DatasetError, match=r"has no file \*\.tar; train-0\.tar\.gz is compressed as a whole: unpack it"
    ):
        WebdatasetSpec(root=tmp_path).read()
    (tmp_path / "train-0.tar").write_bytes(b"\x1f\x8b" * 600)
    with pytest.raises(DatasetError, match=r"train-0\.tar: no tar archive whose members can be sought"):
        WebdatasetSpec(root=tmp_path).read()
    write_tar(tmp_path / "train-0.tar", {"a.txt": "x"})
    with pytest.raises(DatasetError, match=r"no picture, clip or sound in 1 tar archives"):
        WebdatasetSpec(root=tmp_path).read()


# Folders in archives


FILES = {f"{split}/{label}/{number}.png": picture(10 * number) for split in ("train", "val", "test")
         for label in ("happy", "sad") for number in range(3)}  # fmt: skip


def pack(path, files):
    return write_zip(path, files) if path.suffix == ".zip" else write_tar(path, files)


@pytest.mark.parametrize("name", ["faces.zip", "faces.tar"])
@pytest.mark.parametrize("above", ["", "faces48/"])
def test_a_folder_in_an_archive_is_a_dataset_of_its_own(tmp_path, name, above):
    path = pack(tmp_path / name, {above + each: data for each, data in FILES.items()} | {"__MACOSX/x/._1.png": b"x"})
    spec = FolderSpec(root=path, split=OfficialSplit())
    check_dataset(spec)
    listing = spec.read()
    listing.check_no_bad_rows()
    manifest = listing.manifest
    assert manifest.info["name"] == "faces"
    assert columns(manifest, "sample_id", "path", "member", "label", "split")[4] == (
        "train/sad/1", name, f"{above}train/sad/1.png", "sad", "train",
    )  # fmt: skip
    assert greys(spec) == [0, 10, 20] * 6
    below = FolderSpec(root=f"{path}/{above}train", split=DRAWN).read().manifest
    assert len(below) == 6
    unpacked = tmp_path / "unpacked"
    for each, data in FILES.items():
        (unpacked / each).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / each).write_bytes(data)
    same = FolderSpec(root=unpacked, split=OfficialSplit()).read().manifest
    assert same.table.select("sample_id", "label", "split").equals(manifest.table.select("sample_id", "label", "split"))


def test_a_group_is_found_in_the_path_within_an_archive(tmp_path):
    files = {f"{label}/s{subject}_{number}.png": picture(1) for label in ("happy", "sad") for subject in range(4)
             for number in range(2)}  # fmt: skip
    manifest = FolderSpec(root=write_zip(tmp_path / "a.zip", files), split=DRAWN, group=r"(s\d+)_").read().manifest
    assert set(manifest.groups) == {"s0", "s1", "s2", "s3"}


def test_a_wrong_archive_or_folder_in_it_is_said(tmp_path):
    path = write_zip(tmp_path / "faces.zip", FILES)
    with pytest.raises(DatasetError, match=r"faces\.zip: the archive has no folder 'trian'"):
        FolderSpec(root=path / "trian", split=DRAWN).read()
    with pytest.raises(DatasetError, match=r"face\.zip: no such folder"):
        FolderSpec(root=tmp_path / "face.zip", split=DRAWN).read()
    with pytest.raises(DatasetError, match=r"faces\.zip/train/sad: no images in folders of labels"):
        FolderSpec(root=path / "train/sad", split=DRAWN).read()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DatasetError, match=r"faces\.zip: no whole zip archive"):
        FolderSpec(root=path, split=DRAWN).read()


def test_names_with_backslashes_are_paths(tmp_path):
    path = write_zip(tmp_path / "windows.zip", {name.replace("/", "\\"): data for name, data in FILES.items()})
    assert len(FolderSpec(root=path, split=OfficialSplit()).read().manifest) == 18


def test_the_place_of_a_dataset_is_the_file_that_it_is_in(tmp_path):
    path = write_zip(tmp_path / "faces.zip", FILES)
    assert FolderSpec(root=path, split=OfficialSplit()).read().manifest.place == path
    shard(tmp_path / "data/train-0.parquet", 0, 3)
    shard(tmp_path / "data/test-0.parquet", 3, 3)
    assert ParquetSpec(root=tmp_path / "data").read().manifest.place == tmp_path / "data"
