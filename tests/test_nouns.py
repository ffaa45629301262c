"""Rows are called what they are: images, faces, clips, sounds, or samples."""

from __future__ import annotations

import pytest

from emofuse.cli.progress import describe_build
from emofuse.extraction.estimate import BuildEstimate
from emofuse.extraction.tally import Tally
from emofuse.progress import BuildState
from emofuse.specs import (
    BackboneSpec,
    CacheSpec,
    ClipSpec,
    FaceSpec,
    ImportedSpec,
    LandmarksSpec,
    LbpSpec,
    RandomWeights,
)
from emofuse.specs.nouns import common_noun, noun_of
from emofuse.streams.mfcc import MfccSpec

MEL = BackboneSpec(model="squeezenet1_1", input="mel", weights=RandomWeights(seed=0))


@pytest.mark.parametrize(
    ("streams", "options", "many"),
    [
        ((LbpSpec(),), {}, "images"),
        ((LbpSpec(), ImportedSpec(name="own")), {}, "images"),
        ((MfccSpec(), MEL), {}, "sounds"),
        ((MfccSpec(), LbpSpec()), {}, "samples"),
        ((MfccSpec(), LbpSpec()), {"clip": ClipSpec()}, "clips"),
        ((MfccSpec(),), {"clip": ClipSpec()}, "clips"),
        ((LandmarksSpec(),), {"face": FaceSpec(which="all")}, "faces"),
        ((ImportedSpec(name="own"),), {}, "samples"),
    ],
)
def test_rows_are_called_what_the_streams_see(streams, options, many):
    spec = CacheSpec(streams=streams, **options)
    assert noun_of(spec).many == many
    assert common_noun([spec.model_dump(mode="json")] * 2).many == many


def test_rows_of_several_kinds_or_of_unknown_streams_are_samples():
    image, sound = (CacheSpec(streams=(each,)).model_dump(mode="json") for each in (LbpSpec(), MfccSpec()))
    assert common_noun([image, sound]).an == "a sample"
    assert common_noun([{"streams": [{"kind": "of_a_lost_plugin"}]}]).many == "samples"
    assert common_noun([{"streams": [{"kind": "of_a_lost_plugin"}], "clip": {"frames": 4}}]).many == "clips"
    assert common_noun([image]).an == "an image"


def test_builds_name_them():
    assert describe_build(BuildState(0, 7, 0.0, {}, "clips")) == "extracting 7 clips"
    assert describe_build(BuildState(4, 8, 2.0, {}, "sounds")).startswith("extracted 4 of 8 sounds, 2.0 sounds/s")
    assert "(2.0 clips/s)" in Tally(rows=4, noun="clips").summary(2.0).describe()
    lines = BuildEstimate(4, 1, ("mfcc",), 1, 2, 2.0, 5, None, 1, noun="sounds").describe()
    assert lines[0] == "4 sounds to extract in 1 blocks: mfcc"
    assert "2.0 sounds/s (measured on 2 sounds)" in lines[1]
