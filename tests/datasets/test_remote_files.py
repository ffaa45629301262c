"""Datasets on an S3-compatible store: read into the same manifests as from a disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emofuse import stores
from emofuse.datasets import list_dataset, read_dataset
from emofuse.datasets.duplicates import find_duplicates
from emofuse.datasets.files import DatasetFiles, FileFault
from emofuse.datasets.remote_files import RemoteFiles
from emofuse.datasets.summary import measure_images
from emofuse.errors import DatasetError, StoreError
from emofuse.specs import CsvSpec, EmoSetSpec, FolderSpec, StratifiedSplit
from emofuse.stores import RemotePath, as_path, file_sizes


@pytest.fixture
def upload(s3_bucket) -> Callable[[Path], RemotePath]:
    """Puts a folder on the store."""

    def put(folder: Path) -> RemotePath:
        target = as_path(s3_bucket) / folder.name
        stores.file_system().pipe({f"{target.key}/{name}": (folder / name).read_bytes() for name in file_sizes(folder)})
        return target

    return put


@pytest.fixture
def folder(tmp_path, image_at) -> Path:
    root = tmp_path / "pictures"
    for name in ("joy/b.jpg", "joy/deep/er/a.png", "fear/1.jpg", "fear/.hidden.jpg", "fear/2.jpg"):
        image_at(root / name)
    (root / "fear/2.jpg").write_bytes(b"")
    (root / "fear/3.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (root / "notes.txt").write_text("two kinds")
    return root


def test_a_folder_on_a_store_gives_the_same_manifest(folder, upload):
    root = upload(folder)
    here = list_dataset(FolderSpec(root=folder, split=StratifiedSplit()))
    there = list_dataset(FolderSpec(root=str(root), split=StratifiedSplit()))
    assert there.manifest.table.equals(here.manifest.table)
    assert there.bad_rows.equals(here.bad_rows)
    assert there.manifest.classes == here.manifest.classes
    assert there.manifest.root == root
    assert there.manifest.info == here.manifest.info


def test_split_folders_on_a_store(tmp_path, image_at, upload):
    for name in ("train/joy/a.jpg", "test/joy/b.jpg"):
        image_at(tmp_path / "split" / name)
    manifest = read_dataset(FolderSpec(root=str(upload(tmp_path / "split"))))
    assert manifest.table["split"].to_list() == ["train", "test"]


def test_an_emoset_on_a_store_gives_the_same_manifest(emoset, upload):
    here = emoset.write()
    (here / "annotation/fear/fear_00090.json").unlink()
    (here / "image/awe/awe_00012.jpg").unlink()
    root = upload(here)
    a, b = list_dataset(EmoSetSpec(root=here)), list_dataset(EmoSetSpec(root=str(root)))
    assert b.manifest.table.equals(a.manifest.table)
    assert b.bad_rows.equals(a.bad_rows)
    assert b.manifest.info == a.manifest.info
    with pytest.raises(DatasetError, match=r"info\.json: missing\. .*; there is one in s3://.*/emoset: set --data to"):
        list_dataset(EmoSetSpec(root=str(root.parent)))


def test_a_table_on_a_store_gives_the_same_manifest(tmp_path, image_at, upload):
    here = tmp_path / "csv"
    for name in ("images/a.jpg", "images/b.jpg"):
        image_at(here / name)
    (here / "labels.csv").write_text("\ufeffpath,label\na.jpg,joy\nb.jpg,fear\nc.jpg,joy\n", encoding="utf-8")
    root = upload(here)
    specs = [CsvSpec(root=str(path), image_dir="images", split=StratifiedSplit()) for path in (here, root)]
    a, b = (list_dataset(spec) for spec in specs)
    assert b.manifest.table.equals(a.manifest.table)
    assert b.bad_rows.equals(a.bad_rows)
    with pytest.raises(DatasetError, match=r"s3://.*/other\.csv: no such table; there are: labels\.csv"):
        list_dataset(specs[1].model_copy(update={"table": Path("other.csv")}))
    with pytest.raises(DatasetError, match=r"image_dir: no such folder, did you mean 'images'\? \(folders in "):
        list_dataset(specs[1].model_copy(update={"image_dir": Path("image")}))


def test_a_root_that_is_not_on_the_store_is_named(s3_bucket):
    with pytest.raises(DatasetError, match=r"s3://.*/none: no such folder; set the root of the folder dataset with"):
        list_dataset(FolderSpec(root=f"{s3_bucket}/none", split=StratifiedSplit()))


def test_sizes_of_pictures_on_a_store(folder, upload):
    found = measure_images(list_dataset(FolderSpec(root=str(upload(folder)), split=StratifiedSplit())))
    assert (found.looked_at, found.width, found.height) == (3, (6, 6, 6), (4, 4, 4))


def test_files_on_a_store_have_the_faults_of_those_on_a_disk(folder, upload):
    root = upload(folder)
    paths = ["joy/b.jpg", "joy", "none.jpg", "fear/2.jpg", "fear/3.jpg", "../x", "/x", "joy/b.jpg/c"]
    here, there = list(DatasetFiles(folder).inspect_all(paths)), list(RemoteFiles(root).inspect_all(paths))
    assert [fault for fault, _ in there] == [fault for fault, _ in here]
    assert [stamp and stamp.bytes for _, stamp in there] == [stamp and stamp.bytes for _, stamp in here]
    assert all(stamp.modified_ns > 1_600_000_000_000_000_000 for _, stamp in there if stamp is not None)
    assert {fault for fault, _ in there} >= {FileFault.OUTSIDE, FileFault.EMPTY, FileFault.LFS_POINTER}
    with pytest.raises(ValueError, match="its path leaves the root"):
        RemoteFiles(root).read("../x")
    assert RemoteFiles(root).entries("") == DatasetFiles(folder).entries("")
    assert RemoteFiles(root).entries("none") == []


def test_only_paths_that_stay_below_the_root_are_held():
    files = RemoteFiles(as_path("s3://bucket/root"))
    for path in ("own", "./own", "in/../own"):
        assert files.holds(path), path
    for path in ("../secret", "in/../../secret", "/secret", "..", "./../secret"):
        assert not files.holds(path), path


def test_a_dataset_is_listed_and_its_files_are_not_asked_for_one_by_one(folder, upload, monkeypatch):
    root = upload(folder)
    asked = []
    info = stores.file_system().info
    monkeypatch.setattr(stores.file_system(), "info", lambda key: asked.append(key) or info(key))
    found = stores.file_system().find
    listed = []
    monkeypatch.setattr(stores.file_system(), "find", lambda key, **how: listed.append(key) or found(key, **how))
    list_dataset(FolderSpec(root=str(root), split=StratifiedSplit()))
    assert len(asked) <= 1
    assert listed == [root.key]


def test_a_store_that_does_not_answer_is_not_taken_for_missing_files(folder, upload, monkeypatch):
    root = upload(folder)

    def gone(*_, **__):
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(stores.file_system(), "cat_file", gone)
    with pytest.raises(StoreError, match="reset by peer"):
        list_dataset(FolderSpec(root=str(root), split=StratifiedSplit()))


def test_copies_on_a_store_are_found(tmp_path, image_at, upload):
    root = tmp_path / "pictures"
    image_at(root / "joy/a.png")
    image_at(root / "fear/b.png")
    image_at(root / "fear/other.png", (9, 9))
    root = str(upload(root))
    manifest = list_dataset(FolderSpec(root=root, split=StratifiedSplit())).manifest
    (group,) = find_duplicates(manifest)
    assert group.paths == ("fear/b.png", "joy/a.png")
    assert group.has_contradicting_labels
