from __future__ import annotations

import pytest

from emofuse.datasets import read_dataset
from emofuse.datasets.split_names import read_split_folders, read_split_names
from emofuse.specs import CsvSpec, FolderSpec


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["Training", "PublicTest", "PrivateTest"], ["train", "val", "test"]),
        (["train", "dev", "test"], ["train", "val", "test"]),
        (["train_set", "val_set"], ["train", "val"]),
        (["TRAINING", "validation", "Testing"], ["train", "val", "test"]),
        (["train", "Public Test", "private-test"], ["train", "val", "test"]),
        (["train", "eval", "test"], ["train", "val", "test"]),
        (["train", "eval"], ["train", "val"]),
        (["train", "dev", "evaluation"], ["train", "val", "test"]),
        (["train", "development", "test split"], ["train", "val", "test"]),
    ],
)
def test_names_of_public_datasets_are_understood(names, splits):
    assert read_split_names(names) == dict(zip(names, splits, strict=True))


def test_other_names_are_not():
    assert read_split_names(["tset", "set", "happy", "trainer"]) == {}


def test_a_label_that_is_called_dev_is_no_split():
    assert read_split_folders(["dev", "happy", "sad"]) == {}
    assert read_split_folders(["dev", "eval"]) == {"dev": "val", "eval": "test"}
    assert read_split_folders([]) == {}


def test_the_usage_of_fer2013_is_read_and_noted(tmp_path, image_at):
    lines = ["image,label,Usage"]
    for number in range(9):
        image_at(tmp_path / f"{number}.png")
        usage = ("Training", "PublicTest", "PrivateTest")[number // 3]
        lines.append(f"{number}.png,{'abc'[number % 3]},{usage}")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    manifest = read_dataset(CsvSpec(root=tmp_path, path_column="image", split_column="Usage"))
    assert manifest.table["split"].to_list() == ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    assert manifest.info["notes"] == ["column 'Usage' is read so: 'PublicTest' as val, 'PrivateTest' as test"]


def test_folders_of_other_names_are_read_and_noted(tmp_path, image_at):
    for folder in ("Training", "dev", "Testing"):
        for label in ("happy", "sad"):
            image_at(tmp_path / folder / label / "a.png")
    manifest = read_dataset(FolderSpec(root=tmp_path))
    assert dict(zip(manifest.table["path"], manifest.table["split"], strict=True))["dev/sad/a.png"] == "val"
    assert manifest.info["notes"] == ["split folders are read so: 'Testing' as test, 'dev' as val"]
