"""Which images are measured."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from media_files import write_clip

from emofuse.errors import DatasetError
from emofuse.media.decode import read_image
from emofuse.profile.images import draw_images, pick_images
from emofuse.specs import CacheSpec, ClipSpec, DecodeSpec, LbpSpec

DECODE = DecodeSpec()
SPEC = CacheSpec(streams=(LbpSpec(),))


@pytest.fixture
def folder(tmp_path):
    for number in range(10):
        path = tmp_path / "ab"[number // 5] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((20, 30, 3), number, np.uint8))
    return tmp_path


def test_pictures_are_picked_evenly_over_a_folder(folder):
    assert [path.stem for path in pick_images(folder, 4, SPEC)] == ["0", "3", "6", "9"]


def test_a_folder_with_fewer_gives_all_that_it_has(folder):
    assert len(pick_images(folder, 100, SPEC)) == 10


def test_pictures_that_cannot_be_read_are_left_out(folder):
    (folder / "a" / "0.jpg").write_bytes(b"no picture")
    assert [path.stem for path in pick_images(folder, 4, SPEC)] == ["3", "6", "9"]


def test_a_folder_of_nothing_but_those_is_refused(folder):
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"none of 4 files can be read; the first: 0\.jpg, empty file\. Name a"):
        pick_images(folder, 4, SPEC)


def test_drawn_pictures_are_whole_and_the_same_every_time(tmp_path):
    paths = draw_images(tmp_path, 3)
    (tmp_path / "again").mkdir()
    again = draw_images(tmp_path / "again", 3)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert all(min(read_image(path, DECODE).shape[:2]) > 200 for path in paths)


def test_clips_are_picked_for_a_spec_of_clips(folder):
    write_clip(folder / "a.mp4", frames=3)
    (folder / "b.mp4").write_bytes(b"no clip")
    assert pick_images(folder, 4, SPEC.model_copy(update={"clip": ClipSpec(frames=2)})) == [folder / "a.mp4"]
