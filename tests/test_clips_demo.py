"""The demo of clips, from nothing to the report: what movement and voice are worth against what is reachable."""

from __future__ import annotations

import math

import pytest

from emofuse.datasets.clips_demo import reachable_accuracy
from emofuse.extraction import BuildOptions
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.report.grouping import group_runs
from emofuse.specs import read_pipeline_spec

CUES = {
    "Frames (mean)": (),
    "Frames (mean and deviation)": (),
    "Frames (GRU)": ("mouth", "blush"),
    "Voice": ("voice",),
    "Voice + frames (mean)": ("voice",),
    "Voice + frames (GRU)": ("mouth", "blush", "voice"),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The summary of `emofuse run clips_demo`."""
    options = PipelineOptions(out=tmp_path_factory.mktemp("clips"), build=BuildOptions(workers=0), device="cpu")
    return run_pipeline(read_pipeline_spec("clips_demo"), options, say=lambda _: None)


@pytest.fixture(scope="module")
def accuracy(done):
    """Configuration -> its accuracy on the 576 rows, each of which is tested once."""
    results = group_runs(done.records, "runs")
    return {item.name: item.metric("accuracy").mean for item in results.configurations}


def test_a_stem_that_knows_the_order_sees_a_movement_that_the_pooled_frames_do_not_show(accuracy):
    pooled = max(accuracy["Frames (mean)"], accuracy["Frames (mean and deviation)"])
    assert accuracy["Frames (GRU)"] > pooled + 0.15
    assert accuracy["Voice + frames (GRU)"] > accuracy["Voice + frames (mean)"] + 0.3


def test_fusion_of_movement_and_voice_comes_near_what_is_reachable(accuracy):
    reachable = reachable_accuracy(CUES["Voice + frames (GRU)"])
    assert accuracy["Voice + frames (GRU)"] > reachable - 0.15
    assert accuracy["Voice + frames (GRU)"] > max(accuracy["Frames (GRU)"], accuracy["Voice"]) + 0.15


@pytest.mark.parametrize("name", CUES)
def test_no_model_exceeds_what_is_reachable_beyond_chance(accuracy, name):
    reachable = reachable_accuracy(CUES[name])
    assert accuracy[name] < reachable + 4 * math.sqrt(reachable * (1 - reachable) / 576)


def test_the_report_shows_what_is_reachable_for_each_stem(done):
    results = group_runs(done.records, "runs")
    shown = {item.name: results.reachable(item) for item in results.configurations}
    assert shown == pytest.approx({name: reachable_accuracy(cues) for name, cues in CUES.items()})
    assert "0.822" in done.report.page.read_text(encoding="utf-8")


def test_the_weights_are_random_and_the_report_says_so(done):
    assert "ran with random instead of pretrained weights" in done.report.page.read_text(encoding="utf-8")
