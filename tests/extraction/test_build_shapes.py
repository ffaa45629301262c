"""Sequences, maps and sequences of maps are built, resumed, extended and failed as vectors are, with their masks."""

from __future__ import annotations

import numpy as np
import pytest
from cheap_streams import SizeSpec
from shaped_streams import FLAKY, SHAPES, DeadlyStripsSpec, FilmSpec, StripsSpec, ThumbnailSpec

from emofuse.cache.reader import open_cache
from emofuse.datasets.manifest import Manifest
from emofuse.extraction import BuildOptions, build_cache
from emofuse.media.decode import read_image
from emofuse.specs import CacheSpec
from emofuse.status import Status, Step
from emofuse.streams.base import Sample
from emofuse.upkeep.verify import verify_cache

STREAMS = (SizeSpec(), *SHAPES)
SPEC = CacheSpec(block_rows=8, streams=STREAMS)
SEQUENCES = ("strips", "film")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.zarr"


@pytest.fixture
def built(path, manifest, in_process):
    build_cache(path, manifest, SPEC, in_process)
    return path


@pytest.mark.parametrize("spec", SHAPES, ids=lambda spec: spec.kind)
def test_every_row_has_the_features_and_steps_that_its_stream_gave(built, manifest, spec):
    cached = open_cache(built).streams[spec.name]
    stream = spec.make("cpu")
    assert (cached.shape, cached.dimensions) == (stream.shape, stream.dimensions)
    features, status = cached.read()
    mask = cached.read_mask()
    assert (mask is None) == (spec.name not in SEQUENCES)
    for row, name in enumerate(manifest.table["path"]):
        if row == 9:
            assert status[row] == Status.UNREADABLE
            assert not features[row].any()
            assert mask is None or (mask[row] == Step.PADDING).all()
            continue
        expected = stream.extract([Sample(read_image(manifest.root / name, SPEC.decode))])
        assert status[row] == expected.status[0] == (Status.NO_DETECTION if row == 4 else Status.OK)
        np.testing.assert_array_equal(features[row], expected.features[0].astype(spec.dtype))
        if mask is not None:
            np.testing.assert_array_equal(mask[row], expected.mask[0])
    assert verify_cache(built).faults == ()


def test_a_cheap_sequence_has_steps_of_every_kind(built):
    mask = open_cache(built).streams["strips"].read_mask()
    assert mask[0].tolist() == [Step.OK, Step.NO_DETECTION, Step.OK]
    assert mask[1].tolist() == [Step.OK, Step.OK, Step.PADDING]
    assert mask[4].tolist() == [Step.NO_DETECTION, Step.NO_DETECTION, Step.PADDING]


def test_rows_on_which_a_stream_fails_have_no_features_and_no_steps(path, manifest, in_process, monkeypatch):
    monkeypatch.setenv(FLAKY, "3,12")
    summary = build_cache(path, manifest, SPEC, in_process)
    for spec in SHAPES:
        assert summary.counts[spec.name] == {"ok": 36, "no_detection": 1, "unreadable": 1, "failed": 2}
        cached = open_cache(path).streams[spec.name]
        assert cached.reasons()[3, 0] == "ZeroDivisionError: as the environment says"
        assert not cached.read()[0][[3, 12]].any()
        if cached.is_sequence:
            assert (cached.read_mask()[[3, 12]] == Step.PADDING).all()
    assert verify_cache(path).faults == ()


def test_a_row_with_a_step_that_is_not_finite_fails_whole(path, manifest, in_process):
    """The third step of wide images is three times as loud as the first, and float16 ends at 65,504."""
    some = Manifest(manifest.table[:8], manifest.classes, manifest.root, manifest.info)
    spec = CacheSpec(block_rows=8, streams=(StripsSpec(name="loud", dtype="float16", scale=150),))
    assert build_cache(path, some, spec, in_process).counts["loud"] == {"ok": 4, "no_detection": 1, "failed": 3}
    loud = open_cache(path).streams["loud"]
    assert np.flatnonzero(loud.status[:, 0] == Status.FAILED).tolist() == [0, 3, 6]
    assert (loud.read_mask()[[0, 3, 6]] == Step.PADDING).all()
    assert loud.reasons()[0, 0] == "features are not finite as float16"
    assert verify_cache(path).faults == ()


def test_a_picture_that_a_sequence_does_not_survive_fails_in_it_alone(path, manifest):
    some = Manifest(manifest.table[:16], manifest.classes, manifest.root, manifest.info)
    spec = CacheSpec(block_rows=8, streams=(DeadlyStripsSpec(red=10), FilmSpec(), ThumbnailSpec()))
    build_cache(path, some, spec, BuildOptions(workers=1, device="cpu"))
    streams = open_cache(path).streams
    deadly = streams["deadly_strips"]
    assert np.flatnonzero(deadly.status[:, 0] == Status.FAILED).tolist() == [10]
    assert deadly.reasons()[10, 0].startswith("ended its process with SIGKILL")
    assert (deadly.read_mask()[10] == Step.PADDING).all()
    assert (streams["film"].read_mask()[11] == Step.OK).sum() == 2
    assert all((streams[name].status[10] == Status.OK).all() for name in ("film", "thumbnail"))
    assert verify_cache(path).faults == ()
