"""Augmented views: added to a cache without computing anything twice."""

from __future__ import annotations

import numpy as np
import pytest
from cheap_streams import MeanColourSpec, SizeSpec

from emofuse.cache.reader import open_cache
from emofuse.errors import IncompleteCacheError, StaleCacheError
from emofuse.extraction import build_cache
from emofuse.extraction.plan import plan_build
from emofuse.media.decode import read_image
from emofuse.media.views import apply_view, draw_view
from emofuse.specs import AugmentSpec, CacheSpec

STREAMS = (MeanColourSpec(), SizeSpec())


def spec(views, **settings):
    return CacheSpec(block_rows=8, streams=STREAMS, views=views, **settings)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.zarr"


def test_views_added_later_are_those_built_at_once(tmp_path, path, manifest, in_process, contents):
    build_cache(path, manifest, spec(1), in_process)
    plain = {name: stream.read()[0] for name, stream in open_cache(path).streams.items()}
    summary = build_cache(path, manifest, spec(3), in_process)
    assert summary.rows == 2 * len(manifest)
    build_cache(tmp_path / "at_once.zarr", manifest, spec(3), in_process)
    assert contents(path) == contents(tmp_path / "at_once.zarr")
    for name, stream in open_cache(path).streams.items():
        assert stream.views == 3
        assert np.array_equal(stream.read()[0], plain[name])
        assert stream.features.shape[:2] == stream.status.shape == (len(manifest), 3)


def test_every_view_shows_its_own_draw_to_all_streams(path, manifest, in_process):
    build_cache(path, manifest, spec(3), in_process)
    stream = open_cache(path).streams["mean_colour"]
    row = 12
    image = read_image(manifest.root / manifest.table["path"][row], spec(3).decode)
    for view in range(3):
        shown = apply_view(image, draw_view(AugmentSpec(), manifest.table["sample_id"][row], view)) if view else image
        assert stream.read(view)[0][row] == pytest.approx(shown.mean(axis=(0, 1)), rel=1e-3)


def test_fewer_views_than_there_are_are_enough(path, manifest, in_process):
    build_cache(path, manifest, spec(3), in_process)
    assert build_cache(path, manifest, spec(2), in_process).rows == 0
    assert open_cache(path).streams["size"].views == 3


def test_other_draws_are_refused(path, manifest, in_process):
    build_cache(path, manifest, spec(1), in_process)
    build_cache(path, manifest, spec(2, augment=AugmentSpec(rotation_deg=5)), in_process)
    with pytest.raises(StaleCacheError, match=r"the 1 augmented views of .* augment\.rotation_deg 5\.0, .* says 10\.0"):
        build_cache(path, manifest, spec(2), in_process)
    assert build_cache(path, manifest, spec(1), in_process).rows == 0


def test_a_build_that_was_stopped_between_the_views_goes_on(path, manifest, in_process, monkeypatch):
    build_cache(path, manifest, spec(1), in_process)
    written = []

    def stop(*arguments, **values):
        written.append(values["view"])
        if len(written) > 5:
            raise KeyboardInterrupt
        return write_block(*arguments, **values)

    from emofuse.extraction import worker

    write_block = worker.write_block
    monkeypatch.setattr(worker, "write_block", stop)
    with pytest.raises(KeyboardInterrupt):
        build_cache(path, manifest, spec(3), in_process)
    monkeypatch.undo()
    cache = open_cache(path)
    cache.streams["size"].check_complete()
    with pytest.raises(IncompleteCacheError, match="'size' lacks 4 of 5 blocks"):
        cache.streams["size"].check_complete(views=3)
    before = plan_build(path, manifest, spec(3)).rows
    assert build_cache(path, manifest, spec(3), in_process).rows == before < 2 * len(manifest)
    cache = open_cache(path)
    assert not any(stream.lacking(3).any() for stream in cache.streams.values())


def test_a_picture_that_cannot_be_read_is_said_once(path, manifest, in_process):
    summary = build_cache(path, manifest, spec(3), in_process)
    assert [problem.row for problem in summary.problems] == [9]
    assert summary.counts["size"]["unreadable"] == 3
