from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emofuse.datasets import read_dataset
from emofuse.datasets.demo import demo_info, face, generate_demo, generator
from emofuse.errors import DatasetError, DecodeError
from emofuse.media.decode import read_image
from emofuse.specs import DecodeSpec, DemoSpec


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "demo"
    generate_demo(root, images=24, seed=0)
    return root


def read_truth(root):
    return json.loads((root / "demo.json").read_text())


def image_path(root, row):
    return root / "image" / row["label"] / f"{row['sample_id']}.jpg"


def fingerprint(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_images_and_seed_give_the_same_bytes(demo, tmp_path):
    generate_demo(tmp_path / "again", images=24, seed=0)
    assert fingerprint(tmp_path / "again") == fingerprint(demo)


def test_another_seed_gives_other_pictures(demo, tmp_path):
    generate_demo(tmp_path / "other", images=24, seed=1)
    shared = set(fingerprint(tmp_path / "other").values()) & set(fingerprint(demo).values())
    assert not any("jpg" in name for name, value in fingerprint(demo).items() if value in shared)


def test_it_reads_as_an_emoset_without_a_bad_row(tmp_path):
    manifest = read_dataset(DemoSpec(root=tmp_path / "demo", images=24, seed=0))
    assert len(manifest) == 24
    assert manifest.classes[:5] == ("amusement", "awe", "contentment", "excitement", "anger")
    assert manifest.table["problem"].null_count() == 24
    assert sorted(manifest.table["split"].unique()) == ["test", "train", "val"]
    assert manifest.info["kind"] == "demo"
    assert set(manifest.info) >= {"cue_accuracy", "reachable_accuracy", "cue_streams"}
    happy = manifest.table.filter(manifest.table["facial_expression"] == "happy")
    assert 0 < len(happy) < 24


def test_all_vocabularies_of_emoset_are_there(demo):
    info = json.loads((demo / "info.json").read_text())
    assert list(info) == [
        "emotion", "brightness", "colorfulness", "scene", "object", "facial_expression", "human_action",
    ]  # fmt: skip
    for words in info.values():
        assert words["idx2label"] == {str(index): word for word, index in words["label2idx"].items()}
    for row in read_truth(demo)["samples"]:
        annotation = json.loads((demo / "annotation" / row["label"] / f"{row['sample_id']}.json").read_text())
        assert annotation["emotion"] == row["label"]
        assert annotation["scene"] in info["scene"]["label2idx"]
        assert ("facial_expression" in annotation) == row["has_face"]


def test_the_truth_tells_what_is_in_the_files(demo):
    data = read_truth(demo)
    assert (data["images"], data["seed"], data["generator_version"]) == (24, 0, generator.GENERATOR_VERSION)
    sizes = set()
    for row in data["samples"]:
        if row["damage"] is None:
            with Image.open(image_path(demo, row)) as image:
                assert image.size == (row["width"], row["height"])
                sizes.add(image.size)
        smiles = row["look"] is not None and row["look"]["expression"] > 0
        shown = row["cues"]["expression"]["shown"]
        assert shown is None or shown == ("smile" if smiles else "frown")
    assert len(sizes) > 12
    assert all(320 <= max(size) <= 640 for size in sizes)


def test_damaged_files_cannot_be_decoded_and_all_others_can(demo):
    for row in read_truth(demo)["samples"]:
        if row["damage"] is None:
            assert read_image(image_path(demo, row), DecodeSpec()).shape == (row["height"], row["width"], 3)
        else:
            with pytest.raises(DecodeError):
                read_image(image_path(demo, row), DecodeSpec())


def test_the_scene_that_is_shown_is_behind_the_person(demo):
    for row in read_truth(demo)["samples"]:
        if row["damage"] is None:
            top = np.asarray(Image.open(image_path(demo, row)))[:12].reshape(-1, 3).mean(axis=0)
            assert row["cues"]["scene"]["shown"] == ("warm" if top[0] > top[2] else "cool"), row["sample_id"]


def test_a_demo_that_is_there_is_left_alone(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    generate_demo(demo, images=24, seed=0)
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_another_demo_in_its_place_is_refused(demo):
    there, asked = "generator_version 1, images 24, seed 0", "generator_version 1, images 32, seed 0"
    message = f"{demo}: holds the demo dataset of {there}; asked for was {asked}. Name another folder, or delete"
    with pytest.raises(DatasetError, match=re.escape(message)):
        generate_demo(demo, images=32, seed=0)


def test_a_folder_of_the_users_is_refused_and_kept(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    message = f"{tmp_path}: no generated demo dataset (it has no demo.json); name a folder that does not exist yet"
    with pytest.raises(DatasetError, match=re.escape(message)):
        generate_demo(tmp_path, images=24, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(DatasetError, match="no generated demo dataset"):
        generate_demo(tmp_path / "demo", images=24, seed=0)


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "demo").mkdir()
    generate_demo(tmp_path / "demo", images=24, seed=0)
    assert read_truth(tmp_path / "demo")["images"] == 24


def test_an_interrupted_generation_keeps_its_images_and_continues_to_the_same_bytes(demo, tmp_path, monkeypatch):
    """The command line says that finished work is kept."""
    root = tmp_path / "demo"
    drawn = []
    draw_sample = generator.draw_sample

    def draw(sample, rng):
        drawn.append(sample.sample_id)
        if len(drawn) == 10:
            raise KeyboardInterrupt
        return draw_sample(sample, rng)

    monkeypatch.setattr(generator, "draw_sample", draw)
    with pytest.raises(KeyboardInterrupt):
        generate_demo(root, images=24, seed=0)
    assert not root.exists()
    [hidden] = tmp_path.iterdir()
    kept = len(list((hidden / "records").glob("*.json")))
    assert 8 <= kept < 24  # each thread may have had one more in the works
    monkeypatch.undo()
    drawn.clear()
    monkeypatch.setattr(generator, "draw_sample", lambda *both: drawn.append(both) or draw_sample(*both))
    generate_demo(root, images=24, seed=0)
    assert len(drawn) == 24 - kept
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert fingerprint(root) == fingerprint(demo)


def test_an_unfinished_demo_of_another_size_is_left_alone(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generator, "_vocabularies", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate_demo(tmp_path / "demo", images=24, seed=1)
    [unfinished] = tmp_path.iterdir()
    monkeypatch.undo()
    generate_demo(tmp_path / "demo", images=25, seed=1)
    assert len(read_truth(tmp_path / "demo")["samples"]) == 25
    assert len(list(unfinished.rglob("*.jpg"))) == 24


def test_an_error_while_it_is_drawn_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(generator, "_annotation", fail)
    with pytest.raises(OSError, match="disk full"):
        generate_demo(tmp_path / "demo", images=24, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_generation_is_not_taken_for_a_dataset(tmp_path, monkeypatch):
    def kill():
        raise RuntimeError("killed")

    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # nobody tidies up after a kill
    monkeypatch.setattr(generator, "_vocabularies", kill)
    with pytest.raises(RuntimeError, match="killed"):
        generate_demo(tmp_path / "demo", images=24, seed=0)
    assert not (tmp_path / "demo").exists()
    monkeypatch.undo()
    generate_demo(tmp_path / "demo", images=24, seed=0)
    assert read_truth(tmp_path / "demo")["images"] == 24


def test_the_same_dataset_finished_meanwhile_by_another_is_taken(tmp_path, monkeypatch):
    root = tmp_path / "demo"
    write = generator._write_dataset

    def write_while_another_finishes(partial, identity):
        write(partial, identity)
        write(tmp_path / "other", identity)
        (tmp_path / "other").rename(root)

    monkeypatch.setattr(generator, "_write_dataset", write_while_another_finishes)
    generate_demo(root, images=24, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_without_the_photograph_an_error_says_what_brings_it(tmp_path, monkeypatch):
    face.plate.cache_clear()
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(DatasetError, match=r"comes with scikit-image: pip install 'emofuse\[demo\]' \(ModuleNotFound"):
        generate_demo(tmp_path / "demo", images=24, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_info_of_another_generator_version_is_refused(tmp_path):
    (tmp_path / "demo.json").write_text('{"generator_version": 0}')
    with pytest.raises(DatasetError, match="generator version 0, expected 1; delete the folder and generate it again"):
        demo_info(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "must be an object, got list")])
def test_a_damaged_truth_file_is_named(tmp_path, text, message):
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(DatasetError, match=rf"demo\.json: {message}.*delete the folder and generate it again"):
        demo_info(tmp_path)


def test_info_is_plain_json(demo):
    info = demo_info(demo)
    assert json.loads(json.dumps(info)) == info
    assert info["cue_accuracy"] == {"expression": 0.9, "scene": 0.92, "texture": 0.88}
    assert info["cue_streams"]["texture"] == ["lbp"]
