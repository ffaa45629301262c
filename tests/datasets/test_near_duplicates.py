"""Copies that were changed are found by what they show, and different faces of one set are not copies."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from emofuse.datasets import list_dataset, near_duplicates
from emofuse.datasets.duplicates import DuplicateGroup, groups_of_duplicates
from emofuse.datasets.near_duplicates import _differing_bits, _near_pairs, find_near_duplicates
from emofuse.errors import DatasetError
from emofuse.specs import CsvSpec

pytest.importorskip("imagehash")
SIZE = 160


def picture(seed: int) -> Image.Image:
    """A smooth scene with shapes and some noise, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.integers(0, SIZE, 2).tolist()
        width, height = rng.integers(8, 50, 2).tolist()
        draw.ellipse((x, y, x + width, y + height), fill=tuple(rng.integers(0, 256, 3).tolist()))
    noise = rng.normal(0, 4, (SIZE, SIZE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def face(seed: int) -> Image.Image:
    """An aligned drawn face in one kind of light: eyes and mouth are in almost the same places in all of them."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (SIZE, SIZE), int(rng.integers(20, 60)))
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = rng.integers(-10, 11, 4).tolist()
    draw.ellipse((28 + left, 12 + top, 132 + right, 150 + bottom), fill=int(rng.integers(150, 220)))
    draw.pieslice(
        (20 + left, 4 + top, 140 + right, 120), 180 + 4 * left, 360 + 4 * right, fill=int(rng.integers(10, 90))
    )
    for x in (60, 100):
        height = int(rng.integers(3, 9))
        draw.ellipse((x - 10, 65 - height, x + 10, 65 + height), fill=int(rng.integers(20, 80)))
        draw.line((x - 14, 48 - int(rng.integers(0, 9)), x + 14, 48 - int(rng.integers(0, 9))), fill=40, width=4)
    width, height = rng.integers(12, 32).item(), rng.integers(2, 16).item()
    draw.ellipse((80 - width, 112 - height, 80 + width, 112 + height), fill=int(rng.integers(40, 110)))
    shade = Image.fromarray(rng.integers(0, 90, (7, 7), dtype=np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(image, int) + np.asarray(shade, int) - 45, 0, 255).astype(np.uint8))


CHANGES = {
    "encoded again": lambda image, path: image.save(path.with_suffix(".jpg"), quality=40),
    "scaled": lambda image, path: image.resize((64, 64)).save(path),
    "cropped": lambda image, path: image.crop((4, 6, SIZE - 5, SIZE - 3)).save(path),
    "brighter": lambda image, path: ImageEnhance.Brightness(image).enhance(1.25).save(path),
    "less contrast": lambda image, path: ImageEnhance.Contrast(image).enhance(0.6).save(path),
    "grey": lambda image, path: image.convert("L").save(path),
    "mirrored": lambda image, path: ImageOps.mirror(image).save(path),
}


@pytest.fixture
def manifest_of(tmp_path):
    """Lists the pictures of a folder by a table of (label, split), in the order of their names."""

    def make(rows=None):
        names = sorted(path.name for path in tmp_path.iterdir() if path.suffix in {".png", ".jpg"})
        rows = rows or ["joy,train"] * len(names)
        lines = [f"{name},{row}\n" for name, row in zip(names, rows, strict=True)]
        (tmp_path / "labels.csv").write_text("path,label,split\n" + "".join(lines))
        return list_dataset(CsvSpec(root=tmp_path, split_column="split")).manifest

    return make


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_other_pictures(tmp_path, manifest_of, change):
    for seed in range(20):
        picture(seed).save(tmp_path / f"{seed:02d}.png")
    for seed in (3, 11):
        CHANGES[change](picture(seed), tmp_path / f"{seed:02d}_copy.png")
    found = find_near_duplicates(manifest_of())
    assert [group.sample_ids for group in found.groups] == [("03", "03_copy"), ("11", "11_copy")]
    assert [group.mirrored for group in found.groups] == [(False, change == "mirrored")] * 2
    assert (found.unreadable, found.flat) == (0, 0)


def test_different_faces_of_one_set_are_not_copies(tmp_path, manifest_of):
    for seed in range(60):
        face(seed).save(tmp_path / f"{seed:02d}.png")
    assert find_near_duplicates(manifest_of()).groups == ()
    face(7).resize((48, 48)).save(tmp_path / "07_small.png")
    (group,) = find_near_duplicates(manifest_of()).groups
    assert group.sample_ids == ("07", "07_small")


def test_groups_name_splits_and_contradicting_labels(tmp_path, manifest_of):
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        picture(seed).save(tmp_path / f"{name}1.png")
        ImageOps.mirror(picture(seed)).save(tmp_path / f"{name}2.png")
    rows = ["joy,train", "joy,train", "joy,train", "joy,test", "joy,val", "fear,val"]
    found = find_near_duplicates(manifest_of(rows)).groups
    assert [str(group) for group in found] == [
        "c1.png (joy, val) ~ c2.png (fear, val, mirrored)",
        "b1.png (joy, train) ~ b2.png (joy, test, mirrored)",
        "a1.png (joy, train) ~ a2.png (joy, train, mirrored)",
    ]


def test_copies_of_copies_are_one_group(tmp_path, manifest_of):
    picture(0).save(tmp_path / "a.png")
    picture(0).resize((60, 60)).save(tmp_path / "b.png")
    ImageOps.mirror(picture(0)).save(tmp_path / "c.png")
    (group,) = find_near_duplicates(manifest_of()).groups
    assert (group.sample_ids, group.mirrored) == (("a", "b", "c"), (False, False, True))


def test_files_that_are_no_pictures_and_flat_ones_are_counted_and_not_compared(tmp_path, manifest_of):
    for name in "ab":
        Image.new("RGB", (40, 40), "teal").save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    found = find_near_duplicates(manifest_of())
    assert (found.groups, found.unreadable, found.flat) == ((), 1, 2)


def test_pairs_of_hashes_are_those_of_a_comparison_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, 60, dtype=np.uint64)
    noise = np.zeros(300, np.uint64)
    for _ in range(9):
        noise ^= np.uint64(1) << rng.integers(0, 64, 300, dtype=np.uint64)
    hashes = np.concatenate([hashes, hashes[rng.integers(0, 60, 300)] ^ noise])
    others = np.roll(hashes, 5)
    bits = _differing_bits(hashes[:, None] ^ others[None]).reshape(360, 360)
    expected = np.argwhere(np.triu(bits <= near_duplicates.MOST_BITS, 1))
    assert len(expected) > 100
    assert _near_pairs(hashes, others).tolist() == expected.tolist()
    monkeypatch.setattr(near_duplicates, "_PAIRS_AT_ONCE", 7)
    assert _near_pairs(hashes, others).tolist() == expected.tolist()


def test_without_the_package_an_error_says_what_brings_it(tmp_path, manifest_of, monkeypatch):
    picture(0).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(DatasetError, match=r"by the package ImageHash: pip install 'emofuse\[duplicates\]'"):
        find_near_duplicates(manifest_of())


def test_overlapping_groups_become_one():
    def group(*ids):
        return DuplicateGroup(ids, (None,) * len(ids), (None,) * len(ids), ids)

    found = groups_of_duplicates([group("a", "b"), group("c", "d"), group("e", "f"), group("d", "b")])
    assert found == dict.fromkeys("abcd", "copies of a") | dict.fromkeys("ef", "copies of e")
