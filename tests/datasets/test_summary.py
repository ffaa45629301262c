from __future__ import annotations

import pytest
from PIL import Image

from emofuse.datasets import list_dataset
from emofuse.datasets.summary import count_rows, measure_images
from emofuse.specs import CsvSpec, FolderSpec, StratifiedSplit

STRATIFIED = StratifiedSplit()


def test_rows_are_counted_per_label_and_split_with_the_unlabelled_ones(tmp_path, image_at):
    for name in "abcd":
        image_at(tmp_path / f"{name}.jpg")
    (tmp_path / "labels.csv").write_text("path,label,split\na.jpg,y,train\nb.jpg,x,test\nc.jpg,y,train\nd.jpg,,\n")
    table = count_rows(list_dataset(CsvSpec(root=tmp_path, split_column="split")).manifest)
    assert table.splits == ("train", "test", "none")
    assert dict(table.counts) == {"x": (0, 1, 0), "y": (2, 0, 0), "none": (0, 0, 1)}
    assert table.totals == (2, 1, 1)


def test_a_class_without_rows_is_counted_as_zero(emoset):
    from emofuse.specs import EmoSetSpec

    table = count_rows(list_dataset(EmoSetSpec(root=emoset.write())).manifest)
    assert table.counts["sadness"] == (0, 0, 0)


@pytest.fixture
def listing(tmp_path, image_at):
    for number, size in enumerate([(10, 20), (30, 40), (50, 90)]):
        image_at(tmp_path / f"x/{number}.jpg", size)
    (tmp_path / "x/3.jpg").write_text("<html>not found</html>")
    (tmp_path / "x/4.jpg").touch()
    return list_dataset(FolderSpec(root=tmp_path, split=STRATIFIED))


def test_sizes_come_from_headers_and_bad_rows_are_left_out(listing):
    sizes = measure_images(listing, limit=None)
    assert (sizes.looked_at, sizes.candidates) == (4, 4)
    assert (sizes.width, sizes.height) == ((10, 30, 50), (20, 40, 90))
    assert list(sizes.unreadable) == [("x/3.jpg", "not an image, or one of an unknown format")]


def test_a_limited_look_is_the_same_for_the_same_seed(listing):
    assert measure_images(listing, limit=2, seed=1) == measure_images(listing, limit=2, seed=1)
    assert measure_images(listing, limit=2).looked_at == 2


def test_sizes_are_zero_when_no_header_can_be_read(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.jpg").write_text("text")
    sizes = measure_images(list_dataset(FolderSpec(root=tmp_path, split=STRATIFIED)))
    assert (sizes.width, len(sizes.unreadable)) == ((0, 0, 0), 1)


def test_a_picture_too_large_to_decode_is_measured_or_named_without_a_warning(tmp_path, monkeypatch, image_at, recwarn):
    image_at(tmp_path / "x/a.jpg", (30, 30))
    listing = list_dataset(FolderSpec(root=tmp_path, split=STRATIFIED))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert measure_images(listing).width == (30, 30, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    ((_, reason),) = measure_images(listing).unreadable
    assert "decompression bomb" in reason
    assert not recwarn.list


def test_every_file_that_breaks_readers_is_measured_or_named(shared_data):
    root = shared_data / "robustness"
    listing = list_dataset(FolderSpec(root=root.parent, split=STRATIFIED))
    sizes = measure_images(listing, limit=None)
    assert sizes.looked_at == sizes.candidates
    assert all(reason for _, reason in sizes.unreadable)
