"""The streams of the generated demo are worth what their planted cues allow."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from emofuse.analysis.planted import planted_values, planted_worth, read_cues, read_worth
from emofuse.analysis.solved_outputs import SolvedOptions
from emofuse.analysis.subsets import solve_subsets
from emofuse.analysis.worth import measure_worth
from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.extraction import BuildOptions, build_cache
from emofuse.specs import CacheSpec, DatasetSpec, parse_spec
from emofuse.statistics import Resampling

IMAGES = 320
STREAMS = ("lbp", "landmarks", "action_units")


@pytest.fixture(scope="module")
def demo_cache(tmp_path_factory, session_face):
    """The hand-made streams of the demo: one tells the texture of the skin, two the expression."""
    folder = tmp_path_factory.mktemp("demo")
    plain = {"kind": "demo", "images": IMAGES, "seed": 0, "root": str(folder / "dataset")}
    manifest = read_dataset(TypeAdapter(DatasetSpec).validate_python(plain))
    streams = [{"kind": kind} for kind in STREAMS]
    spec = parse_spec(CacheSpec, {"face": session_face, "block_rows": 64, "streams": streams}, "test")
    build_cache(folder / "features.zarr", manifest, spec, BuildOptions(workers=0))
    return open_cache(folder / "features.zarr")


@pytest.fixture(scope="module")
def answers(demo_cache):
    return solve_subsets(demo_cache, STREAMS, SolvedOptions(folds=5))


@pytest.mark.slow
def test_each_hand_made_stream_is_worth_what_its_cue_allows_within_its_interval(demo_cache, answers):
    worth = measure_worth(answers.subsets, Resampling(1000, 0))
    by_design, as_read = planted_worth(demo_cache.manifest.info, STREAMS), read_worth(answers, demo_cache)
    for stream in STREAMS:
        measured = worth.get(stream)
        assert measured.interval.low <= by_design[stream] <= measured.interval.high, (stream, measured, by_design)
        assert measured.interval.low <= as_read[stream] <= measured.interval.high, (stream, measured, as_read)
        assert measured.value > 0.02
    assert worth.get("lbp").interval.low > 0.03  # the other two share a cue, so each is worth half of it
    assert np.isclose(sum(worth.get(stream).value for stream in STREAMS), worth.total)
    values = planted_values(demo_cache.manifest.info, STREAMS)
    expected = worth.game.interactions @ worth.game.values(values)
    for pair, index, design in zip(worth.game.pairs, worth.interactions["accuracy"], expected, strict=True):
        assert index.interval.low <= design <= index.interval.high, (pair, index, design)
    index = dict(zip(worth.game.pairs, worth.interactions["accuracy"], strict=True))
    assert index["landmarks", "action_units"].interval.high < 0  # they say the same


@pytest.mark.slow
def test_each_stream_tells_its_own_cue_nearly_as_surely_as_it_was_drawn(demo_cache, answers):
    told = read_cues(answers, demo_cache)
    surely = demo_cache.manifest.info["cue_accuracy"]
    for cue, streams in {"texture": ["lbp"], "expression": ["landmarks", "action_units"]}.items():
        for stream in streams:
            assert surely[cue] - 0.04 < told[stream][cue].max() < surely[cue] + 0.04
    assert all(told[stream]["scene"].max() == 0.5 for stream in STREAMS)  # no stream sees the place
    without_face = demo_cache.streams["lbp"].status[answers.rows, 0] != 1
    assert without_face.any()
    assert (told["lbp"]["texture"][without_face] == 0.5).all()
