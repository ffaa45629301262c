"""make_stream, stream_identity and stream_weights."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

import numpy as np
import pytest

from emofuse.errors import StreamError, WeightsError
from emofuse.media import decode
from emofuse.specs import (
    ActionUnitsSpec,
    BackboneSpec,
    CacheSpec,
    CustomStreamSpec,
    DecodeSpec,
    FaceSpec,
    FileWeights,
    LandmarksSpec,
    LbpSpec,
    Places365Spec,
    RandomWeights,
    RegistryWeights,
    digest,
)
from emofuse.status import Status
from emofuse.streams import make_stream, stream_identity, stream_weights
from emofuse.streams.action_units import ActionUnitsStream
from emofuse.streams.base import NEEDS_FACE, NEEDS_IMAGE, Rows, needs_of
from emofuse.streams.landmarks import LandmarksStream
from emofuse.streams.texture import LbpStream


class Brightness:
    shape = (1,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = NEEDS_IMAGE
    flag_names = ()
    columns = ("brightness",)

    def extract(self, samples):
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.OK)
        rows.features[:, 0] = [sample.image.mean() for sample in samples]
        return rows

    def close(self):
        pass


class BrightnessSpec(CustomStreamSpec):
    kind: Literal["brightness"] = "brightness"
    gain: float = 1.0

    def make(self, device):
        return Brightness()


class LacksMembersSpec(BrightnessSpec):
    def make(self, device):
        return object()


class DisagreesSpec(BrightnessSpec):
    needs: ClassVar[frozenset[str]] = NEEDS_FACE


def cache_spec(*streams, **settings):
    return CacheSpec(streams=streams or (LbpSpec(),), **settings)


def identity(spec, **settings):
    return stream_identity(spec, cache_spec(spec, **settings))


@pytest.mark.parametrize(
    ("spec", "stream", "dim"),
    [
        (LbpSpec(), LbpStream, 512),
        (LandmarksSpec(), LandmarksStream, 1404),
        (ActionUnitsSpec(), ActionUnitsStream, 30),
        (BrightnessSpec(), Brightness, 1),
    ],
)
def test_a_spec_makes_its_stream(spec, stream, dim):
    made = make_stream(spec)
    assert isinstance(made, stream)
    assert made.shape == (dim,)
    assert made.needs == spec.needs
    made.close()


def test_a_stream_of_ones_own_must_have_the_members_of_a_stream():
    lacking = "shape, dimensions, dtype, needs, flag_names, columns, extract, close"
    with pytest.raises(
        StreamError, match=rf"^LacksMembersSpec\.make returned a object without {lacking}: a stream has"
    ):
        make_stream(LacksMembersSpec())


class FormerFaceSpec(BrightnessSpec):
    """As plugin files of versions that knew pictures and faces alone declare it."""

    needs_face: ClassVar[bool] = True

    def make(self, device):
        members = {name: value for name, value in vars(Brightness).items() if name != "needs"}
        return type("FormerFace", (), {**members, "needs_face": True})()


class NeedsSoundSpec(BrightnessSpec):
    needs: ClassVar[frozenset[str]] = frozenset({"audo"})

    def make(self, device):
        stream = Brightness()
        stream.needs = self.needs
        return stream


def test_an_unknown_need_is_refused():
    with pytest.raises(
        StreamError,
        match=r"^NeedsSoundSpec: its stream needs 'audo', did you mean 'audio'\?; `needs` is a set out of image, ",
    ):
        make_stream(NeedsSoundSpec())


def test_a_plugin_that_declares_needs_face_still_gets_faces():
    assert FormerFaceSpec().needs == NEEDS_FACE
    assert "face" in identity(FormerFaceSpec())
    assert needs_of(make_stream(FormerFaceSpec())) == NEEDS_FACE


def test_spec_and_stream_must_agree_about_faces():
    with pytest.raises(
        StreamError, match=r"^DisagreesSpec\.needs is face, image and its stream's is image: they must agree"
    ):
        make_stream(DisagreesSpec())


def test_an_identity_is_plain_json_without_the_name():
    found = identity(BrightnessSpec(name="mine", gain=2.0))
    assert found == {
        "kind": "brightness",
        "version": 1,
        "parameters": {"dtype": "float32", "gain": 2.0},
        "decode": {"version": decode.VERSION, "max_pixels": 100_000_000},
    }
    assert json.loads(json.dumps(found)) == found


def test_the_name_is_no_part_of_an_identity():
    assert identity(BrightnessSpec(name="one")) == identity(BrightnessSpec(name="two"))


def test_what_changes_the_bytes_changes_the_identity():
    class Newer(BrightnessSpec):
        version: ClassVar[int] = 2

    identities = [
        identity(BrightnessSpec()),
        identity(BrightnessSpec(gain=2)),
        identity(BrightnessSpec(dtype="float16")),
        identity(BrightnessSpec(), decode=DecodeSpec(max_pixels=10)),
        identity(Newer()),
    ]
    assert len({digest(found) for found in identities}) == len(identities)


def test_the_face_detector_counts_only_for_streams_that_need_a_face(face):
    plain, strict = FaceSpec(**face), FaceSpec(**face, min_confidence=0.9)
    assert identity(LbpSpec(), face=plain) != identity(LbpSpec(), face=strict)
    assert identity(LbpSpec(), face=plain)["face"]["detector"] == face["detector"]
    assert identity(BrightnessSpec()) == identity(BrightnessSpec(), face=strict)


def test_an_identity_does_not_depend_on_the_other_streams(face):
    spec, found = LbpSpec(), FaceSpec(**face)
    alone, beside = cache_spec(spec, face=found), cache_spec(spec, BrightnessSpec(), face=found)
    assert stream_identity(spec, alone) == stream_identity(spec, beside)


def test_random_weights_count_by_their_seed():
    found = identity(BackboneSpec(model="resnet18", weights=RandomWeights(seed=3)))
    assert found["weights"] == {"random_seed": 3}
    assert found["parameters"] == {"dtype": "float16", "model": "resnet18", "precision": "float32"}


def test_weights_count_by_their_hash_wherever_they_come_from(tmp_path):
    here, there = tmp_path / "a.pth", tmp_path / "b.pth"
    for path in (here, there):
        path.write_bytes(b"the same weights")
    one, other = (identity(BackboneSpec(model="resnet18", weights=FileWeights(path=path))) for path in (here, there))
    assert one == other
    assert set(one["weights"]) == {"sha256"}
    there.write_bytes(b"other weights")
    assert identity(BackboneSpec(model="resnet18", weights=FileWeights(path=there))) != one


@pytest.mark.parametrize("spec", [BackboneSpec(model="resnet50"), Places365Spec()])
def test_weights_that_are_missing_are_an_error(spec):
    for function in (identity, stream_weights):
        with pytest.raises(WeightsError):
            function(spec)


def test_weights_are_described_for_reports(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")
    described = stream_weights(BackboneSpec(model="resnet18", weights=FileWeights(path=path)))
    assert described["kind"] == "file"
    assert len(described["sha256"]) == 64
    random = stream_weights(BackboneSpec(model="resnet18", weights=RandomWeights(seed=5)))
    assert (random["kind"], random["seed"], random["sha256"]) == ("random", 5, None)
    assert stream_weights(LbpSpec()) is None
    assert stream_weights(BrightnessSpec()) is None


def test_a_stream_of_ones_own_can_have_weights_too():
    class Weighted(BrightnessSpec):
        weights: RegistryWeights | RandomWeights = RandomWeights(seed=7)

    assert identity(Weighted())["weights"] == {"random_seed": 7}
    assert stream_weights(Weighted())["seed"] == 7
