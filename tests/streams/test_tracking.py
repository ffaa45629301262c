"""Faces of clips: followed over short gaps, detected anew behind longer ones, whatever ran before."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np
import pytest
from media_files import write_clip
from PIL import Image

from emofuse.datasets.sources import Source
from emofuse.media.video import read_clip
from emofuse.specs import ActionUnitsSpec, CacheSpec, ClipSpec, DecodeSpec, FaceSpec, LandmarksSpec, LbpSpec
from emofuse.status import Status, Step
from emofuse.streams import batches, stream_identity
from emofuse.streams.base import Face, Sample, SampleBatch
from emofuse.streams.extractor import Extractor
from emofuse.streams.faces import FaceFinder, make_face_detector, make_following_detector
from emofuse.streams.hog import HogSpec
from emofuse.streams.tracking import CLOSE_S, FaceTracker, _same, tracking_version
from emofuse.weights import import_weights


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
    monkeypatch.setattr("emofuse.streams.tracking.make_following_detector", lambda spec, needs: Scripted("follow", log))
    tracker = FaceTracker(FaceFinder(Scripted("detect", log), FaceSpec()), FaceSpec())
    tracker.log = log
    return tracker


def test_a_face_is_followed_only_over_short_gaps(tracker):
    for time_s in (0.0, 0.1, 0.2, 0.2 + 2 * CLOSE_S, 0.2 + 2.5 * CLOSE_S):
        tracker.detect(picture(5), 0, time_s)
    assert tracker.log == ["detect", "forget", "follow", "follow", "detect", "forget", "follow"]


def test_where_the_landmarker_loses_a_face_it_is_detected_in_the_same_frame(tracker, monkeypatch):
    lost = Scripted("follow", tracker.log)
    monkeypatch.setattr(lost, "detect_all", lambda image: tracker.log.append("lost") or [])
    monkeypatch.setattr("emofuse.streams.tracking.make_following_detector", lambda spec, needs: lost)
    spec = FaceSpec(detector="landmarker")
    other = FaceTracker(FaceFinder(Scripted("detect", tracker.log), spec), spec)
    faces = [other.detect(picture(5), 0, time_s) for time_s in (0.0, 0.1)]
    assert tracker.log == ["detect", "forget", "lost", "detect"]
    assert None not in faces
    assert [tracker.detect(picture(5), 0, time_s) for time_s in (0.0, 0.1)][1] is None  # Face Mesh: as it always was


def test_another_clip_or_block_starts_anew(tracker):
    tracker.detect(picture(5), 0, 0.0)
    tracker.detect(picture(5), 1, 0.1)
    tracker.forget()
    tracker.detect(picture(5), 1, 0.2)
    assert tracker.log == ["detect"] * 3


def test_a_detector_that_follows_no_face_detects_in_every_frame(tracker, monkeypatch):
    monkeypatch.setattr("emofuse.streams.tracking.make_following_detector", lambda spec, needs: None)
    for time_s in (0.0, 0.1, 0.2):
        tracker.detect(picture(5), 0, time_s)
    assert tracker.log == ["detect"] * 3


def test_pictures_that_are_turned_until_a_face_is_found_are_not_followed():
    assert make_following_detector(FaceSpec(turned=True)) is None
    assert make_following_detector(FaceSpec(detector="landmarker", turned=True)) is None


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


@pytest.fixture(params=["face_mesh", "landmarker"])
def spec(request, has_face_mesh):
    if request.param == "landmarker":
        import_weights(request.getfixturevalue("shared_data") / "models" / "face_landmarker.task")
    elif not has_face_mesh:
        pytest.skip("the installed MediaPipe has no Face Mesh")
    return FaceSpec(detector=request.param)


def test_a_face_that_is_followed_lies_where_it_is_detected(moving, spec):
    frames = read_clip(Source(moving), ClipSpec(frames=16), DecodeSpec())
    with closing(make_face_detector(spec)) as detector, closing(FaceTracker(detector, spec)) as tracker:
        for image, time_s in zip(frames.frames[:8], frames.times_s, strict=False):
            apart = tracker.detect(image, 0, float(time_s)).points[:, :2] - detector.detect(image).points[:, :2]
            assert np.abs(apart).mean() < 3  # pixels of 256


def test_a_face_that_turns_is_followed_wherever_it_is_detected_and_as_if_it_were_the_first(spec):
    from skimage import data

    head = Image.fromarray(data.astronaut()).crop((80, 0, 380, 300)).resize((256, 256))
    frames = [np.asarray(head.rotate(9 * number, resample=Image.Resampling.BILINEAR)) for number in range(20)]
    with closing(make_face_detector(spec)) as detector, closing(FaceTracker(detector, spec)) as tracker:
        detected = [detector.detect(image) for image in frames]
        first, _, third = (
            [tracker.detect(image, clip, 0.04 * number) for number, image in enumerate(shown)]
            for clip, shown in enumerate((frames, frames[::-1], frames))
        )
    found = np.array([face is not None for face in first])
    assert found[[face is not None for face in detected]].all()
    if spec.detector == "face_mesh":  # the landmarker loses none of them by detection alone
        assert found.sum() > sum(face is not None for face in detected) >= 3
    for face, again in zip(first, third, strict=True):
        assert (face is None) == (again is None)
        assert face is None or np.array_equal(face.points, again.points)


def test_the_digest_of_a_face_in_clips_knows_that_the_landmarker_follows_it(shared_data):
    import_weights(shared_data / "models" / "face_landmarker.task")
    assert [tracking_version(FaceSpec(detector=each)) for each in ("face_mesh", "landmarker")] == [1, 2]
    spec = CacheSpec(streams=(LandmarksSpec(),), clip=ClipSpec(frames=4), face=FaceSpec(detector="landmarker"))
    assert stream_identity(spec.streams[0], spec)["clip"]["tracking"] == 2


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
