"""FER2013, FER+, RAF-DB and AffectNet, in all forms that circulate."""

from __future__ import annotations

import gzip
import shutil
import zipfile

import numpy as np
import pytest
from member_files import pixels
from PIL import Image

from emofuse.datasets.affectnet import AffectnetSpec
from emofuse.datasets.duplicates import find_duplicates
from emofuse.datasets.fer2013 import Fer2013Spec
from emofuse.datasets.ferplus import FerPlusSpec
from emofuse.datasets.rafdb import RafdbSpec
from emofuse.datasets.sources import sources_of
from emofuse.datasets.summary import measure_images
from emofuse.datasets.target_columns import find_target_columns
from emofuse.datasets.targets import read_targets
from emofuse.errors import DatasetError
from emofuse.media.decode import read_image
from emofuse.specs import DecodeSpec, OfficialSplit, StratifiedSplit
from emofuse.specs.targets import DistributionTarget, RegressionTarget
from emofuse.testing import check_dataset

USAGES = ("Training", "Training", "PublicTest", "PrivateTest")
VOTES = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def columns(manifest, *names):
    return manifest.table.select(names).rows()


def write_images(root, *names):
    for value, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4), value).save(path)
    return root


def write_fer(path, rows=None, header=("emotion", "pixels", "Usage"), separator=","):
    """A table of (emotion, pixels, usage), in the order of the header."""
    rows = rows or [(index % 7, pixels(index), usage) for index, usage in enumerate(USAGES * 4)]
    lines = [separator.join(header)]
    places = [("emotion", "pixels", "Usage").index(name.strip()) for name in header]
    lines += [",".join(str(row[place]) for place in places) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


# FER2013


@pytest.mark.parametrize(
    ("name", "header"),
    [("fer2013.csv", ("emotion", "pixels", "Usage")), ("icml_face_data.csv", ("emotion", " Usage", " pixels"))],
)
def test_fer2013_is_read_from_its_table_in_place(tmp_path, name, header):
    write_fer(tmp_path / name, header=header)
    spec = Fer2013Spec(root=tmp_path)
    check_dataset(spec)
    manifest = spec.read().manifest
    assert manifest.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert columns(manifest, "sample_id", "path", "member", "label", "split")[:4] == [
        ("fer0000000", name, "pixels[0]", "angry", "train"),
        ("fer0000001", name, "pixels[1]", "disgust", "train"),
        ("fer0000002", name, "pixels[2]", "fear", "val"),
        ("fer0000003", name, "pixels[3]", "happy", "test"),
    ]
    source = sources_of(manifest.table, tmp_path, spec_files(spec))[5]
    np.testing.assert_array_equal(read_image(source, DecodeSpec()), np.full((48, 48, 3), 5))


def spec_files(spec):
    from emofuse.datasets.roots import open_files

    return open_files(spec.root)


def test_the_root_of_fer2013_may_be_the_table_or_its_archive_may_be_unpacked_beside(tmp_path):
    path = write_fer(tmp_path / "fer2013" / "fer2013.csv")
    assert len(Fer2013Spec(root=path).read().manifest) == 16
    assert Fer2013Spec(root=tmp_path).read().manifest.table["path"][0] == "fer2013/fer2013.csv"
    with pytest.raises(DatasetError, match=r"fer\.csv: no such table.* Set it with `table`"):
        Fer2013Spec(root=tmp_path, table="fer.csv").read()


def test_bad_rows_of_fer2013_are_listed_with_their_numbers(tmp_path):
    rows = [(0, pixels(1), "Training"), (9, pixels(2), "Training"), (1, pixels(3, 2303), "Training")]
    rows += [(1, pixels(4), "Fourth"), (2, pixels(5), ""), (1, "", "Training"), (2, pixels(5) + ",1", "Training")]
    write_fer(tmp_path / "fer2013.csv", rows)
    listing = Fer2013Spec(root=tmp_path).read()
    with pytest.raises(DatasetError) as info:
        listing.check_no_bad_rows()
    for line in (
        "row 3: fer2013.csv: '9', expected one of angry",
        "row 4: fer2013.csv: has 2303 pixels, expected 48 x 48 = 2304",
        "row 5: fer2013.csv: 'Fourth'",
        "row 7: fer2013.csv: has 0 pixels",
        "row 8: fer2013.csv: has 4 fields, the header has 3",
    ):
        assert line in str(info.value)
    assert listing.bad_count == 5


def test_fer2013_without_usage_needs_a_drawn_split(tmp_path):
    write_fer(tmp_path / "train.csv", header=("emotion", "pixels"))
    with pytest.raises(DatasetError, match=r"there is no column 'Usage', so there is no official split"):
        Fer2013Spec(root=tmp_path).read()
    assert len(Fer2013Spec(root=tmp_path, split=StratifiedSplit()).read().manifest) == 16


def test_checks_of_a_dataset_look_into_the_table(tmp_path):
    rows = [(index % 7, pixels(index // 2), usage) for index, usage in enumerate(USAGES * 4)]
    rows[9] = (2, pixels(300), "Training")
    write_fer(tmp_path / "fer2013.csv", rows)
    listing = Fer2013Spec(root=tmp_path).read()
    sizes = measure_images(listing)
    assert (sizes.looked_at, sizes.candidates, sizes.width) == (16, 16, (48, 48, 48))
    assert sizes.unreadable == [("fer2013.csv/pixels[9]", "pixel values must be from 0 to 255, got 300")]
    groups = find_duplicates(listing.manifest)
    assert len(groups) == 7
    assert str(groups[0]) == "fer2013.csv/pixels[2] (fear, val) = fer2013.csv/pixels[3] (happy, test)"


FOLDERS = [
    f"{folder}/{emotion}/{usage}_{index}.png"
    for index, (folder, usage) in enumerate([("train", "Training"), ("test", "PublicTest"), ("test", "PrivateTest")])
    for emotion in ("angry", "Disgust", "fear", "happy", "sad", "surprise", "neutral")
]


def test_folders_of_fer2013_have_the_split_in_the_names_of_files(tmp_path):
    write_images(tmp_path, *FOLDERS, "test/happy/im7.png")
    spec = Fer2013Spec(root=tmp_path)
    check_dataset(spec)
    manifest = spec.read().manifest
    assert manifest.classes[3] == "happy"
    assert sorted(manifest.table["split"].value_counts().rows()) == [("test", 8), ("train", 7), ("val", 7)]
    assert manifest.table["label"].value_counts().filter(label="disgust")["count"].item() == 3
    assert manifest.info["notes"][:2] == [
        "splits are read from the names of files: 7 PrivateTest as test, 7 PublicTest as val, 7 Training as train",
        "names without a split, which have that of their folder: 1",
    ]


def test_folders_of_fer2013_are_read_out_of_a_zip_archive(tmp_path):
    write_images(tmp_path / "unpacked", *FOLDERS)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for name in FOLDERS:
            archive.write(tmp_path / "unpacked" / name, name)
    manifest = Fer2013Spec(root=tmp_path / "archive.zip").read().manifest
    same = Fer2013Spec(root=tmp_path / "unpacked").read().manifest
    assert manifest.table.select("sample_id", "label", "split").equals(same.table.select("sample_id", "label", "split"))
    assert columns(manifest, "path", "member")[0] == ("archive.zip", same.table["path"][0])


def test_what_is_no_fer2013_says_what_is_expected(tmp_path):
    with pytest.raises(DatasetError, match=r"is no FER2013: expected fer2013\.csv, icml_face_data\.csv, or folders"):
        Fer2013Spec(root=tmp_path).read()
    (tmp_path / "fer2013.csv").write_text("path,label\na.jpg,happy\n")
    with pytest.raises(DatasetError, match=r"there is no column 'emotion', 'pixels' \(columns: path, label\)"):
        Fer2013Spec(root=tmp_path).read()


# FER+


def write_votes(path, *rows):
    """Rows of (usage, image name, votes of the eight emotions, unknown, no face)."""
    lines = [",".join([usage, name, *map(str, votes)]) for usage, name, *votes in rows]
    path.write_text("\n".join([VOTES, *lines]) + "\n")


@pytest.fixture
def ferplus(tmp_path):
    write_fer(tmp_path / "fer2013.csv", [(6, pixels(index), USAGES[index % 4]) for index in range(8)])
    write_votes(
        tmp_path / "fer2013new.csv",
        ("Training", "fer0000000.png", 8, 1, 0, 0, 0, 0, 0, 0, 1, 0),
        ("Training", "", 0, 0, 0, 0, 0, 0, 0, 0, 0, 10),  # FER+ gave it up
        ("PublicTest", "fer0000002.png", 4, 4, 2, 0, 0, 0, 0, 0, 0, 0),  # two share the most
        ("PrivateTest", "fer0000003.png", 0, 0, 0, 4, 1, 0, 0, 0, 5, 0),  # most could not tell
        ("Training", "fer0000004.png", 0, 0, 4, 0, 3, 0, 3, 0, 0, 0),  # most, and no majority
        ("Training", "fer0000005.png", 0, 0, 0, 0, 0, 0, 0, 9, 1, 0),
        ("PublicTest", "fer0000006.png", 0, 0, 0, 0, 0, 9, 0, 0, 0, 1),
        ("PrivateTest", "fer0000007.png", 0, 10, 0, 0, 0, 0, 0, 0, 0, 0),
    )
    return tmp_path


def test_ferplus_has_votes_and_the_label_that_most_chose(ferplus):
    spec = FerPlusSpec(root=ferplus)
    check_dataset(spec)
    manifest = spec.read().manifest
    assert manifest.classes == EMOTIONS
    assert columns(manifest, "sample_id", "member", "split", "label", "fer2013_label") == [
        ("fer0000000", "pixels[0]", "train", "neutral", "neutral"),
        ("fer0000002", "pixels[2]", "val", None, "neutral"),
        ("fer0000003", "pixels[3]", "test", None, "neutral"),
        ("fer0000004", "pixels[4]", "train", "surprise", "neutral"),
        ("fer0000005", "pixels[5]", "train", "contempt", "neutral"),
        ("fer0000006", "pixels[6]", "val", "disgust", "neutral"),
        ("fer0000007", "pixels[7]", "test", "happiness", "neutral"),
    ]
    assert manifest.info["notes"][:2] == [
        "rows without an image name in fer2013new.csv, left out: 1 of 8",
        "rows in which no emotion alone has most votes, which have votes and no label: 2 of 7",
    ]
    assert FerPlusSpec(root=ferplus, label="majority").read().manifest.table["label"][3] is None


def test_votes_of_ferplus_are_the_target_of_a_distribution(ferplus):
    manifest = FerPlusSpec(root=ferplus).read().manifest
    targets = read_targets(manifest, DistributionTarget(columns=[f"votes_{name}" for name in EMOTIONS]))
    assert targets.names == EMOTIONS
    np.testing.assert_allclose(targets.values[0], [8 / 9, 1 / 9, 0, 0, 0, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(targets.values[1, :3], [0.4, 0.4, 0.2], rtol=1e-6)
    assert columns(manifest, "unknown_votes", "no_face_votes")[:3] == [(1, 0), (0, 0), (5, 0)]


def test_votes_that_belong_to_another_table_are_refused(ferplus):
    votes = (ferplus / "fer2013new.csv").read_text().splitlines()
    (ferplus / "fer2013new.csv").write_text("\n".join([votes[0], *reversed(votes[1:])]))
    with pytest.raises(DatasetError, match=r"row 2 is 'PrivateTest', in the other 'Training'; rows are joined by"):
        FerPlusSpec(root=ferplus).read()
    (ferplus / "fer2013new.csv").write_text("\n".join(votes[:-1]))
    with pytest.raises(DatasetError, match=r"does not belong to fer2013\.csv: it has 7 rows, the other 8"):
        FerPlusSpec(root=ferplus).read()
    (ferplus / "fer2013new.csv").write_text("\n".join([votes[0], votes[1].replace(",8,", ",8.5,")]))
    with pytest.raises(DatasetError, match=r"row 2: column 'neutral' must hold a number of votes, got '8\.5'"):
        FerPlusSpec(root=ferplus).read()
    (ferplus / "fer2013new.csv").unlink()
    with pytest.raises(DatasetError, match=r"no such table; it is fer2013new\.csv of"):
        FerPlusSpec(root=ferplus).read()


def test_real_rows_of_fer2013_and_ferplus_are_read(shared_data, tmp_path):
    folder = shared_data / "faces48"
    if not (folder / "fer2013_sample.csv.gz").is_file():
        pytest.skip("there is no sample of FER2013 in the shared data")
    with gzip.open(folder / "fer2013_sample.csv.gz") as packed, (tmp_path / "fer2013.csv").open("wb") as file:
        shutil.copyfileobj(packed, file)
    shutil.copy(folder / "fer2013new_sample.csv", tmp_path / "fer2013new.csv")
    spec = Fer2013Spec(root=tmp_path)
    check_dataset(spec)
    manifest = spec.read().manifest
    assert manifest.table["split"].value_counts().sort("split").rows() == [("train", 400), ("val", 100)]
    assert manifest.table["label"].value_counts().filter(label="happy")["count"].item() == 140
    assert measure_images(spec.read()).unreadable == []
    plus = FerPlusSpec(root=tmp_path)
    check_dataset(plus)
    votes = plus.read().manifest
    agree = votes.table.filter(label="happiness")["fer2013_label"].value_counts(sort=True)
    assert agree["fer2013_label"][0] == "happy"
    assert agree["count"][0] / agree["count"].sum() > 0.9


# RAF-DB


def write_list(root, *lines, base="basic/"):
    (root / base / "EmoLabel").mkdir(parents=True, exist_ok=True)
    (root / base / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("base", ["basic/", ""])
def test_rafdb_is_read_as_its_authors_give_it_out(tmp_path, base):
    lines = [f"train_{number:05} {number % 7 + 1}".replace(" ", ".jpg ") for number in range(28)]
    lines += [f"test_{number:04}.jpg {number % 7 + 1}" for number in range(7)]
    write_list(tmp_path, *lines, base=base)
    write_images(tmp_path, *(f"{base}Image/aligned/{line.split('.')[0]}_aligned.jpg" for line in lines))
    spec = RafdbSpec(root=tmp_path)
    check_dataset(spec)
    listing = spec.read()
    listing.check_no_bad_rows()
    manifest = listing.manifest
    assert manifest.classes == ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    assert columns(manifest, "sample_id", "path", "label")[:2] == [
        ("train_00000", f"{base}Image/aligned/train_00000_aligned.jpg", "surprise"),
        ("train_00001", f"{base}Image/aligned/train_00001_aligned.jpg", "fear"),
    ]
    assert sorted(manifest.table["split"].value_counts().rows()) == [("test", 7), ("train", 21), ("val", 7)]
    official = RafdbSpec(root=tmp_path, split=OfficialSplit()).read().manifest
    assert sorted(official.table["split"].value_counts().rows()) == [("test", 7), ("train", 28)]


def test_bad_lines_of_rafdb_are_listed_with_their_numbers(tmp_path):
    write_list(tmp_path, "train_00001.jpg 5", "train_00002.jpg 8", "something", "", "test_0001.jpg 1")
    write_images(tmp_path, "basic/Image/original/train_00001.jpg", "basic/Image/original/train_00002.jpg")
    with pytest.raises(DatasetError) as info:
        RafdbSpec(root=tmp_path, images="original", split=OfficialSplit()).read().check_no_bad_rows()
    place = "basic/EmoLabel/list_patition_label.txt row"
    assert f"{place} 2: basic/Image/original/train_00002.jpg: '8', expected one of surprise" in str(info.value)
    assert f"{place} 3: 'something', expected a line such as 'train_00001.jpg 5'" in str(info.value)
    assert f"{place} 5: basic/Image/original/test_0001.jpg" in str(info.value)


def test_rafdb_is_read_from_folders_with_numbers(tmp_path):
    names = [f"train/{number % 7 + 1}/train_{number:05}_aligned.jpg" for number in range(14)]
    names += [f"test/{number % 7 + 1}/test_{number:04}_aligned.jpg" for number in range(7)]
    write_images(tmp_path / "DATASET", *names)
    spec = RafdbSpec(root=tmp_path)
    check_dataset(spec)
    manifest = spec.read().manifest
    assert columns(manifest, "sample_id", "path", "label")[6] == (
        "train_00006", "DATASET/train/7/train_00006_aligned.jpg", "neutral",
    )  # fmt: skip
    assert manifest.table["split"].value_counts().filter(split="test")["count"].item() == 7
    with pytest.raises(DatasetError, match=r"is no RAF-DB: expected basic/EmoLabel/list_patition_label\.txt and"):
        RafdbSpec(root=tmp_path / "DATASET" / "train" / "1").read()


# AffectNet


HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"


@pytest.fixture
def affectnet(tmp_path):
    """The lists of the authors, of which that of validation has no header."""
    train = [f"{number}/a{number}.jpg,10,20,100,110,1.5;2.5,{number % 8},0.5,-0.25" for number in range(24)]
    train += [
        "1/none.jpg,0,0,50,50,1;1,8,0,0",
        "1/unsure.jpg,0,0,50,50,1;1,9,-2,-2",
        "1/noface.jpg,NULL,NULL,NULL,NULL,,10,-2,-2",
    ]
    val = [f"{number}/v{number}.jpg,1,2,30,40,1;1,{number},-1,1" for number in range(8)]
    lists = tmp_path / "Manually_Annotated_file_lists"
    lists.mkdir()
    (lists / "training.csv").write_text("\n".join([HEADER, *train]) + "\n")
    (lists / "validation.csv").write_text("\n".join(val) + "\n")
    return write_images(tmp_path, *(f"Manually_Annotated_Images/{line.split(',')[0]}" for line in (*train, *val)))


def test_affectnet_is_read_from_its_lists_with_boxes_and_numbers(affectnet):
    spec = AffectnetSpec(root=affectnet)
    check_dataset(spec)
    listing = spec.read()
    listing.check_no_bad_rows()
    manifest = listing.manifest
    assert manifest.classes == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    names = ("sample_id", "path", "label", "valence", "arousal")
    assert columns(manifest, *names)[1] == ("1/a1", "Manually_Annotated_Images/1/a1.jpg", "happy", 0.5, -0.25)
    boxes = ("face_left", "face_top", "face_width", "face_height")
    assert columns(manifest, *boxes)[0] == (10, 20, 100, 110)
    assert columns(manifest, *boxes)[-1] == (1, 2, 30, 40)
    assert sorted(manifest.table["split"].value_counts().rows()) == [("test", 8), ("train", 16), ("val", 8)]
    assert manifest.info["notes"][0] == (
        "rows of other categories, left out (`expressions: all` keeps them): 1 none, 1 uncertain, 1 no face"
    )
    assert [column.name for column in find_target_columns(manifest)] == ["valence", "arousal"]
    assert sources_of(manifest.table[:1], manifest.root, spec_files(spec))[0].face_box == (10, 20, 100, 110)
    seven = AffectnetSpec(root=affectnet, expressions=7).read().manifest
    assert seven.classes == manifest.classes[:7]
    assert len(seven) == 28


def test_affectnet_with_all_rows_has_unknown_numbers_empty(affectnet):
    manifest = AffectnetSpec(root=affectnet, expressions="all", split=OfficialSplit()).read().manifest
    assert len(manifest) == 35
    assert columns(manifest, "label", "valence")[24:27] == [(None, 0.0), (None, None), (None, None)]
    assert columns(manifest, "face_left")[26] == (None,)
    assert manifest.info["notes"][:2] == [
        "rows of the categories none, uncertain, no face, which have no label: 3",
        "valence or arousal is -2, which stands for an unknown value and is empty here, in 2 rows",
    ]
    targets = read_targets(manifest, RegressionTarget(columns=["valence", "arousal"]))
    assert (targets.labels >= 0).sum() == 33


def test_bad_rows_of_affectnet_are_listed(affectnet):
    path = affectnet / "Manually_Annotated_file_lists" / "training.csv"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace(",1,0.5,", ",happy,0.5,")
    lines[3] += ",more"
    lines[4] = lines[4].replace(",3,0.5,", ",12,0.5,")
    path.write_text("\n".join(lines))
    with pytest.raises(DatasetError) as info:
        AffectnetSpec(root=affectnet).read().check_no_bad_rows()
    for line in (
        "training.csv row 3: Manually_Annotated_Images/1/a1.jpg: expression is 'happy', expected a number from 0 to 10",
        "training.csv row 4: has 10 fields, the header has 9",
        "training.csv row 5: Manually_Annotated_Images/3/a3.jpg: '12', expected one of neutral",
    ):
        assert line in str(info.value)


@pytest.fixture
def compact(tmp_path):
    """The form with one .npy file for each annotation; numbers may be texts."""
    for folder, count in (("train_set", 20), ("val_set", 8)):
        write_images(tmp_path, *(f"{folder}/images/{number}.jpg" for number in range(count)))
        (tmp_path / folder / "annotations").mkdir()
        for number in range(count):
            for suffix, value in (("exp", str(number % 8)), ("val", "0.25"), ("aro", -0.5), ("lnd", [1.0, 2.0])):
                np.save(tmp_path / folder / "annotations" / f"{number}_{suffix}.npy", np.array(value))
    return tmp_path


def test_affectnet_is_read_from_its_compact_form(compact):
    spec = AffectnetSpec(root=compact)
    check_dataset(spec)
    manifest = spec.read().manifest
    assert columns(manifest, "sample_id", "path", "label", "valence", "arousal")[10] == (
        "train_10", "train_set/images/10.jpg", "sad", 0.25, -0.5,
    )  # fmt: skip
    assert sorted(manifest.table["split"].value_counts().rows()) == [("test", 8), ("train", 12), ("val", 8)]


def test_missing_and_damaged_annotations_of_affectnet_are_bad_rows(compact):
    (compact / "train_set/annotations/3_exp.npy").unlink()
    (compact / "train_set/annotations/4_val.npy").write_bytes(b"\x93NUMPY")
    np.save(compact / "train_set/annotations/5_aro.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    listing = AffectnetSpec(root=compact).read()
    assert listing.bad_count == 3
    with pytest.raises(DatasetError, match=r"train_set/annotations/3_exp\.npy: missing"):
        listing.check_no_bad_rows()


def test_what_is_no_affectnet_says_what_is_expected(tmp_path):
    with pytest.raises(DatasetError, match=r"is no AffectNet: expected training\.csv and validation\.csv"):
        AffectnetSpec(root=tmp_path).read()
