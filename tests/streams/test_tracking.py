"""Faces of clips: followed over short gaps, detected anew behind longer ones, whatever ran before."""

from __future__ import annotations

import time

import numpy as np
import pytest
from media_files import write_clip
from PIL import Image

from emofuse.datasets.sources import Source
from emofuse.media.video import read_clip
from emofuse.specs import ActionUnitsSpec, CacheSpec, ClipSpec, DecodeSpec, FaceSpec, LandmarksSpec, LbpSpec
from emofuse.status import Status, Step
from emofuse.streams import batches
from emofuse.streams.base import Face, Sample, SampleBatch
from emofuse.streams.extractor import Extractor
from emofuse.streams.faces import FaceFinder, make_face_detector
from emofuse.streams.hog import HogSpec
from emofuse.streams.tracking import CLOSE_S, FaceTracker, _same

LANDMARKER = FaceSpec(detector="landmarker")


class Scripted:
    """A detector that returns numbered faces, and notes what it was asked."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def detect_all(self, image):
        self.log.append(self.name)
        return [face(int(image[0, 0, 0]))]

    def forget(self):
        self.log.append("forget")

    def close(self):
        self.log.append("close")


def face(left, size=10):
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]])
    return Face(np.pad(corners + np.array([left, 0]), ((0, 0), (0, 1))).astype(np.float32))


def picture(left):
    return np.full((4, 4, 3), left, np.uint8)


@pytest.fixture
def tracker(monkeypatch):
    log = []
    monkeypatch.setattr("emofuse.streams.tracking.FaceMeshDetector", lambda **options: Scripted("follow", log))
    tracker = FaceTracker(FaceFinder(Scripted("detect", log), FaceSpec()), FaceSpec())
    tracker.log = log
    return tracker


def test_a_face_is_followed_only_over_short_gaps(tracker):
    for time_s in (0.0, 0.1, 0.2, 0.2 + 2 * CLOSE_S, 0.2 + 2.5 * CLOSE_S):
        tracker.detect(picture(5), 0, time_s)
    assert tracker.log == ["detect", "forget", "follow", "follow", "detect", "forget", "follow"]


def test_another_clip_or_block_starts_anew(tracker):
    tracker.detect(picture(5), 0, 0.0)
    tracker.detect(picture(5), 1, 0.1)
    tracker.forget()
    tracker.detect(picture(5), 1, 0.2)
    assert tracker.log == ["detect"] * 3


def test_the_landmarker_detects_in_every_frame(tracker):
    other = FaceTracker(FaceFinder(Scripted("detect", tracker.log), LANDMARKER), LANDMARKER)
    for time_s in (0.0, 0.1, 0.2):
        other.detect(picture(5), 0, time_s)
    assert tracker.log == ["detect"] * 3


def test_of_several_faces_the_one_that_was_followed_is_kept():
    assert _same([face(0, 10), face(50, 20)], face(2, 10)).points[0, 0] == 0
    assert _same([face(0, 10), face(50, 20)], face(200, 10)) is None
    assert _same([face(0, 10), face(50, 20)], None) is None
    assert _same([], face(0)) is None


@pytest.fixture(scope="module")
def moving(tmp_path_factory, astronaut_picture):
    """A photograph of a face that moves to the right by two pixels a frame, and nothing in the second half."""
    return write_clip(
        tmp_path_factory.mktemp("face") / "face.mp4",
        frames=40,
        size=(256, 192),
        picture=lambda number, width, height: (
            np.roll(astronaut_picture, 2 * number, axis=1) if number < 20 else np.full((height, width, 3), 90, np.uint8)
        ),
    )


@pytest.fixture(scope="module")
def astronaut_picture():
    from skimage import data

    return np.asarray(Image.fromarray(data.astronaut()[:384, :512]).resize((256, 192)))


@pytest.fixture(autouse=True)
def _needs_face_mesh(request, has_face_mesh):
    if "moving" in request.fixturenames and not has_face_mesh:
        pytest.skip("the installed MediaPipe has no Face Mesh")


def extract(sources, **spec):
    spec = CacheSpec(streams=(LandmarksSpec(),), clip=ClipSpec(frames=16), **spec)
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        return extractor.extract(sources).rows["landmarks"]


def test_steps_without_a_face_are_masked(moving):
    rows = extract([moving])
    assert rows.status.tolist() == [Status.OK]
    assert rows.mask[0].tolist() == [Step.OK] * 8 + [Step.NO_DETECTION] * 8
    assert rows.features.shape == (1, 16, 1404)
    assert not rows.features[0, 8:].any()


def test_a_face_that_is_followed_lies_where_it_is_detected(moving):
    frames = read_clip(Source(moving), ClipSpec(frames=16), DecodeSpec())
    detector = make_face_detector(FaceSpec())
    tracker = FaceTracker(detector, FaceSpec())
    for image, time_s in zip(frames.frames[:8], frames.times_s, strict=False):
        apart = tracker.detect(image, 0, float(time_s)).points[:, :2] - detector.detect(image).points[:, :2]
        assert np.abs(apart).mean() < 3  # pixels of 256
    tracker.close()
    detector.close()


def test_a_clip_has_the_same_rows_alone_and_among_others(moving, monkeypatch):
    alone = extract([moving]).features[0]
    among = extract([Source(moving, start_s=0.4), moving, Source(moving, end_s=0.8)]).features[1]
    np.testing.assert_array_equal(among, alone)
    monkeypatch.setattr(batches, "_BATCH_SAMPLES", 3)
    np.testing.assert_array_equal(extract([moving, moving]).features[1], alone)


@pytest.mark.slow
def test_a_clip_costs_little_more_than_its_steps(moving):
    """Sixteen frames and four image streams: decoding, faces and streams, against the whole. In seconds of this CPU."""
    spec = CacheSpec(streams=(LbpSpec(), LandmarksSpec(), ActionUnitsSpec(), HogSpec()), clip=ClipSpec(frames=16))
    sources = [Source(moving, end_s=0.8)] * 4
    whole, steps = [], []
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        detector = make_face_detector(spec.face)
        tracker = FaceTracker(detector, spec.face)
        for number in range(6):
            start = time.process_time()
            extractor.extract(sources)
            whole.append(time.process_time() - start)
            start = time.process_time()
            for clip, source in enumerate(sources):
                frames = read_clip(source, spec.clip, spec.decode)
                samples = [
                    Sample(image, tracker.detect(image, 10 * number + clip, float(time_s)))
                    for image, time_s in zip(frames.frames, frames.times_s, strict=True)
                ]
                batch = SampleBatch(samples)
                for stream in extractor.streams.values():
                    stream.extract(batch)
            steps.append(time.process_time() - start)
        tracker.close()
        detector.close()
    assert min(whole) <= 1.15 * min(steps)
