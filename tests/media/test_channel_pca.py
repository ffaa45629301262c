"""Principal components of a picture's channels, held against scikit-learn's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from skimage import data
from sklearn.decomposition import PCA

from emofuse.media.channel_pca import keep_variance
from emofuse.media.decode import decode_image
from emofuse.specs import CacheSpec, DecodeSpec, digest


@pytest.mark.parametrize("shape", [(120, 90), (90, 120), (64, 64), (300, 7)])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_channels_equal_those_that_scikit_learn_rebuilds(shape, share):
    image = data.astronaut()[: shape[0], 100 : 100 + shape[1]]
    rebuilt = keep_variance(image, share)
    for channel in range(3):
        pca = PCA(n_components=share, svd_solver="full")
        expected = pca.inverse_transform(pca.fit_transform(image[..., channel].astype(float)))
        assert np.abs(rebuilt[..., channel] - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-6


def test_it_keeps_the_share_of_the_variance_and_drops_the_rest():
    image = data.astronaut()[:200, :200]
    lost = np.square(keep_variance(image, 0.95).astype(float) - image).sum()
    centred = image - image.mean(axis=0)
    assert 0.02 < lost / np.square(centred).sum() < 0.05


@pytest.mark.parametrize("image", [np.full((9, 7, 3), 200, np.uint8), np.zeros((1, 5, 3), np.uint8)])
def test_a_picture_without_variance_stays_as_it_is(image):
    assert np.array_equal(keep_variance(image, 0.95), image)


def test_rows_that_are_alike_stay_as_they_are():
    image = np.broadcast_to(np.arange(60, dtype=np.uint8).reshape(20, 3), (15, 20, 3))
    assert np.array_equal(keep_variance(image, 0.95), image)


def test_decoding_rebuilds_the_picture_if_the_spec_says_so():
    image = data.astronaut()[:100, :80]
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    assert np.array_equal(decode_image(file.getvalue(), DecodeSpec()), image)
    rebuilt = decode_image(file.getvalue(), DecodeSpec(pca_variance=0.9))
    assert np.array_equal(rebuilt, keep_variance(image, 0.9))
    assert not np.array_equal(rebuilt, image)


def test_it_is_part_of_the_digest_only_if_it_is_set():
    assert "pca_variance" not in DecodeSpec().model_dump(mode="json")
    plain, rebuilt = (
        CacheSpec.model_validate({"streams": [{"kind": "hog"}], "decode": decode})
        for decode in ({}, {"pca_variance": 0.95})
    )
    assert digest(plain) != digest(rebuilt)


@pytest.mark.parametrize("share", [0, 1, 1.5])
def test_a_share_that_keeps_nothing_or_all_is_refused(share):
    with pytest.raises(ValidationError, match="pca_variance"):
        DecodeSpec(pca_variance=share)
