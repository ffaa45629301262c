"""The streams of the generated demo are worth what their planted cues allow."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from emofuse.analysis.planted import planted_worth
from emofuse.analysis.subsets import SolvedOptions, solve_subsets
from emofuse.analysis.worth import measure_worth
from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.extraction import BuildOptions, build_cache
from emofuse.specs import CacheSpec, DatasetSpec, parse_spec
from emofuse.statistics import Resampling

IMAGES = 320


@pytest.fixture(scope="module")
def demo_cache(tmp_path_factory, session_face):
    """The demo's texture and expression, and the scene as the mean colours of a coarse grid would tell it."""
    folder = tmp_path_factory.mktemp("demo")
    plain = {"kind": "demo", "images": IMAGES, "seed": 0, "root": str(folder / "dataset")}
    manifest = read_dataset(TypeAdapter(DatasetSpec).validate_python(plain))
    spec = parse_spec(
        CacheSpec,
        {"face": session_face, "block_rows": 64, "streams": [{"kind": "lbp"}, {"kind": "action_units"}]},
        "test",
    )
    build_cache(folder / "features.zarr", manifest, spec, BuildOptions(workers=0))
    return open_cache(folder / "features.zarr")


@pytest.mark.slow
def test_each_hand_made_stream_is_worth_what_its_cue_allows_within_its_interval(demo_cache):
    answers = solve_subsets(demo_cache, ("lbp", "action_units"), SolvedOptions(folds=5, landmarks=200)).subsets
    worth = measure_worth(answers, Resampling(1000, 0))
    by_design = planted_worth(demo_cache.manifest.info, answers.streams)
    assert by_design is not None
    for stream, value in by_design.items():
        measured = worth.get(stream)
        assert measured.interval.low <= value <= measured.interval.high, (stream, measured, value)
        assert measured.interval.low > 0.03
    index = worth.interactions["accuracy"][0]  # two cues that lie independently multiply: together they add more
    assert index.interval.low > -0.05
    assert np.isclose(sum(worth.get(stream).value for stream in answers.streams), worth.total)
