"""The votes, valence and arousal of the demo follow the cues that an image shows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from emofuse.datasets.demo.annotators import draw_annotations
from emofuse.datasets.demo.truth import CLASSES, CUE_VALUES, CUES, LIES, plan_samples, true_bits
from emofuse.datasets.targets import read_targets
from emofuse.specs import DemoSpec, DistributionTarget, RegressionTarget

VOTES = [f"votes_{name}" for name in CLASSES]


@pytest.fixture(scope="module")
def samples():
    return [sample.as_json() for sample in plan_samples(2000, 1)]


@pytest.fixture(scope="module")
def table(samples):
    return draw_annotations(samples, LIES, 1)


def test_votes_have_the_posterior_of_the_cues_in_the_mean(samples, table):
    votes = table.select(VOTES).to_numpy()
    seen = [{cue: value["shown"] for cue, value in sample["cues"].items()} for sample in samples]
    rows = [row for row, shown in enumerate(seen) if shown == {cue: CUE_VALUES[cue][0] for cue in CUES}]
    chances = []
    for name in CLASSES:
        bits = true_bits(name)
        chances.append(np.prod([1 - LIES[cue] if bits[cue] == 0 else LIES[cue] for cue in CUES]))
    assert len(rows) > 150
    np.testing.assert_allclose(votes[rows].mean(axis=0) / 10, np.array(chances) / sum(chances), atol=0.02)
    assert set(votes.sum(axis=1).tolist()) == {0, 10}


def test_valence_follows_the_expression_and_arousal_the_scene(samples, table):
    for column, cue, means in (
        ("valence", "expression", {"smile": 0.6, "frown": -0.6, None: 0.0}),
        ("arousal", "scene", {"warm": 0.5, "cool": -0.5}),
    ):
        shown = [sample["cues"][cue]["shown"] for sample in samples]
        for value, mean in means.items():
            rows = [row for row, each in enumerate(shown) if each == value and samples[row]["damage"] is None]
            numbers = table[column].gather(rows).to_numpy()
            assert numbers.mean() == pytest.approx(mean, abs=0.04)
            assert numbers.std() == pytest.approx(0.15, abs=0.03)
    assert table["valence"].abs().max() <= 1


def test_corrupt_files_have_no_numbers_and_no_votes(samples, table):
    corrupt = pl.Series([sample["damage"] is not None for sample in samples])
    assert corrupt.sum() == 10
    assert (table["valence"].is_null() == corrupt).all()
    assert (table.select(pl.sum_horizontal(VOTES)).to_series() == 0).equals(corrupt)


def test_what_a_sample_gets_depends_on_the_seed_and_its_id_alone(samples, table):
    assert draw_annotations(samples[::-1], LIES, 1).equals(table.reverse())
    assert not draw_annotations(samples, LIES, 2).equals(table)


def test_the_manifest_of_the_demo_has_them_as_targets(tmp_path):
    spec = DemoSpec(root=tmp_path / "demo", images=24)
    manifest = spec.read().manifest
    assert spec.look().manifest.table.equals(manifest.table)
    numbers = read_targets(manifest, RegressionTarget(columns=["valence", "arousal"], range=(-1, 1)))
    votes = read_targets(manifest, DistributionTarget(columns=VOTES))
    assert votes.names == CLASSES
    assert (numbers.labels < 0).sum() == (votes.labels < 0).sum() == 2
