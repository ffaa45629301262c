"""The pixels of the aligned face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emofuse.specs import CacheSpec
from emofuse.status import Status
from emofuse.streams.base import Sample
from emofuse.streams.pixels import PixelsSpec
from emofuse.testing import check_stream, example_samples


@pytest.mark.parametrize("region", ["face", "image"])
def test_pixels_are_a_stream(region):
    check_stream(PixelsSpec(region=region))


def test_they_are_the_grey_crop_from_0_to_1():
    sample = next(each for each in example_samples() if each.crop is not None)
    rows = PixelsSpec(size_px=96).make("cpu").extract([sample])
    assert rows.features.shape == (1, 1, 96, 96)
    assert np.array_equal(np.rint(rows.features[0, 0] * 255), cv2.cvtColor(sample.crop, cv2.COLOR_RGB2GRAY))


def test_black_is_0_and_white_is_1_at_the_size_of_fer2013():
    white = Sample(np.zeros((9, 9, 3), np.uint8), crop=np.full((224, 224, 3), 255, np.uint8))
    rows = PixelsSpec().make("cpu").extract([white])
    assert rows.features.shape == (1, 1, 48, 48)
    assert (rows.features == 1).all()


def test_a_picture_without_a_face_has_none_unless_the_whole_picture_is_seen():
    bare = Sample(np.full((50, 60, 3), 51, np.uint8))
    rows = PixelsSpec().make("cpu").extract([bare])
    assert (rows.status[0], rows.features.any()) == (Status.NO_DETECTION, False)
    rows = PixelsSpec(region="image").make("cpu").extract([bare])
    assert rows.status[0] == Status.OK
    assert np.allclose(rows.features, 0.2)


def test_the_stored_half_precision_tells_all_grey_levels_apart():
    levels = (np.arange(256) / 255).astype(np.float16)
    assert PixelsSpec().dtype == "float16"
    assert np.array_equal(np.rint(levels.astype(np.float32) * 255), np.arange(256))


def test_a_cache_spec_names_it_by_its_kind():
    face, image = CacheSpec.model_validate(
        {"streams": [{"kind": "pixels"}, {"kind": "pixels", "name": "whole", "region": "image"}]}
    ).streams
    assert (face.name, face.needs, image.needs) == ("pixels", {"image", "crop"}, {"image"})
