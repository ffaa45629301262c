"""The grey squares that textures share."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.specs import LbpSpec
from emofuse.specs.streams import STREAMS
from emofuse.streams import make_stream, regions
from emofuse.streams.base import Sample, SampleBatch


@pytest.fixture
def samples() -> list[Sample]:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 60, 70, 3), dtype=np.uint8)
    return [Sample(picture, crop=None if row == 1 else picture[:40, :40]) for row, picture in enumerate(pictures)]


def test_textures_of_one_region_and_side_resize_it_once_and_give_what_they_give_alone(samples, monkeypatch):
    kinds = {name: STREAMS.find(name) for name in ("lbp", "gabor", "lpq")}
    streams = [make_stream(kind(region="face", region_px=48)) for kind in kinds.values()]
    streams.append(make_stream(STREAMS.find("pixels")(region="face", size_px=48)))
    streams.append(make_stream(LbpSpec(region="image", region_px=48)))
    alone = [stream.extract(list(samples)) for stream in streams]
    sides = []
    square_grey = regions.square_grey
    monkeypatch.setattr(regions, "square_grey", lambda cut, side: sides.append(cut.shape[:2]) or square_grey(cut, side))
    batch = SampleBatch(samples)
    together = [stream.extract(batch) for stream in streams]
    assert sides == [(40, 40)] * 2 + [(60, 70)] * 3  # the second sample has no face
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.features, other.features)
        assert np.array_equal(one.status, other.status)
        assert np.array_equal(one.flags, other.flags)
