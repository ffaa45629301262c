"""Histograms of oriented gradients, held against scikit-image's and against pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.feature import hog

from emofuse.specs import CacheSpec, digest
from emofuse.status import Status
from emofuse.streams import stream_identity
from emofuse.streams.base import Sample
from emofuse.streams.hog import LENGTH, HogSpec, describe
from emofuse.streams.regions import face_region
from emofuse.testing import check_stream, example_samples


@pytest.mark.parametrize("region", ["mesh", "face", "image"])
@pytest.mark.parametrize("without_face", ["whole_image", "no_detection"])
def test_hog_is_a_stream(region, without_face):
    check_stream(HogSpec(region=region, without_face=without_face))


def test_the_region_is_the_square_around_the_mesh_the_aligned_face_or_the_picture():
    sample = example_samples()[0]
    parts = {"mesh": face_region(sample.image, sample.face), "face": sample.crop, "image": sample.image}
    for region, part in parts.items():
        row = HogSpec(region=region).make("cpu").extract([sample]).features[0]
        assert np.array_equal(row, describe(part))


def test_the_default_region_is_not_part_of_the_digest():
    assert "region" not in HogSpec().model_dump(mode="json")
    assert HogSpec(region="face").needs == {"image", "crop"}


def test_a_cache_spec_names_it_by_its_kind():
    (spec,) = CacheSpec.model_validate({"streams": [{"kind": "hog"}]}).streams
    assert (spec.name, spec.needs, spec.stored_shape) == ("hog", {"image", "face"}, (3780,))


@pytest.mark.parametrize("angle", [0, 45, 90, 135])
def test_stripes_fill_the_bins_of_their_gradient(angle):
    down, right = np.mgrid[:128, :64]
    wave = right * np.cos(np.radians(angle)) + down * np.sin(np.radians(angle))
    grey = (127 + 100 * np.sin(wave / 3)).astype(np.uint8)
    bins = describe(np.repeat(grey[:, :, None], 3, axis=2)).reshape(-1, 9).sum(axis=0)
    nearest = np.argsort(np.abs((np.arange(9) * 20 + 10 - angle + 90) % 180 - 90))[:2]
    assert bins[nearest].sum() > 0.7 * bins.sum()


def test_it_resembles_the_descriptor_of_scikit_image():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (16, 8)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    ours = describe(np.repeat(grey[:, :, None], 3, axis=2)).reshape(7, 15, 4, 9)
    theirs = hog(grey, 9, (8, 8), (2, 2), block_norm="L2-Hys").reshape(15, 7, 4, 9)
    # scikit-image gives a pixel's gradient to one cell and one bin, OpenCV shares it among neighbours: both say which
    # cells have gradients of which direction.
    one, other = ours.sum(axis=2).transpose(1, 0, 2).ravel(), theirs.sum(axis=2).ravel()
    assert one.shape == other.shape
    assert np.corrcoef(one, other)[0, 1] > 0.5


def test_the_face_region_alone_counts():
    sample = next(each for each in example_samples() if each.face is not None)
    changed = sample.image.copy()
    changed[:2] = 255 - changed[:2]
    stream = HogSpec().make("cpu")
    one, other = stream.extract([sample, Sample(changed, sample.face)]).features
    assert np.array_equal(one, other)


def test_a_picture_without_a_face_is_flagged_or_left_out():
    bare = Sample(example_samples()[2].image)
    rows = HogSpec(without_face="whole_image").make("cpu").extract([bare])
    assert (rows.status[0], rows.flags[0]) == (Status.OK, 1)
    assert rows.features.any()
    rows = HogSpec().make("cpu").extract([bare])
    assert (rows.status[0], rows.flags[0], rows.features.any()) == (Status.NO_DETECTION, 0, False)


def test_every_block_of_cells_has_about_the_same_length():
    sample = example_samples()[0]
    row = HogSpec().make("cpu").extract([sample]).features[0]
    assert row.shape == (LENGTH,)
    assert np.isclose(np.linalg.norm(row.reshape(-1, 36), axis=1), 1, atol=0.01).all()


def test_its_identity_is_kind_version_parameters_pictures_and_faces(has_face_mesh):
    if not has_face_mesh:
        pytest.skip("this MediaPipe has no Face Mesh")
    spec = CacheSpec(streams=(HogSpec(),))
    identity = stream_identity(spec.streams[0], spec)
    assert (identity["kind"], identity["version"]) == ("hog", 1)
    assert digest(identity) != digest(stream_identity(HogSpec(without_face="whole_image"), spec))
