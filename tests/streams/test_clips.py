"""Clips in the extractor: decoded once for all streams, with a time axis and its mask; sounds beside pictures."""

from __future__ import annotations

import numpy as np
import pytest
from clip_streams import GreySpec, LoudnessSpec, MotionSpec, PixelsSpec
from media_files import cut, frame, tone, write_clip, write_sound
from PIL import Image

from emofuse.datasets.sources import Source
from emofuse.errors import StreamError
from emofuse.media import files
from emofuse.media.views import apply_view, draw_view
from emofuse.specs import AugmentSpec, CacheSpec, ClipSpec, CustomStreamSpec, LbpSpec
from emofuse.status import Status, Step
from emofuse.streams import batches, stream_identity
from emofuse.streams.base import Rows
from emofuse.streams.extractor import Extractor
from emofuse.streams.over_time import folded, stored_stream
from emofuse.testing import check_stream

ALL = (GreySpec(), PixelsSpec(), LoudnessSpec(), MotionSpec())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(folder):
    """Frames 0 to 49 in two seconds; those of the first 0.2 s are too dark to be detected."""
    return write_clip(folder / "clip.mp4", sound="aac")


@pytest.fixture(scope="module")
def silent(folder):
    return write_clip(folder / "silent.mp4")


def extract(sources, *streams, views=(0,), **spec):
    spec = CacheSpec(streams=streams or ALL, **{"clip": ClipSpec(frames=8), **spec})
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        found = extractor.extract_views(sources, [str(index) for index in range(len(sources))], views)
    return found if len(views) > 1 else found[0]


def test_image_streams_have_a_time_axis_and_a_mask(clip):
    rows = extract([clip]).rows
    grey, pixels = rows["grey"], rows["pixels"]
    assert grey.features.shape == (1, 8, 2)
    assert pixels.features.shape == (1, 8, 3, 3, 4)
    assert grey.mask[0].tolist() == [Step.NO_DETECTION, *[Step.OK] * 7]
    assert grey.status.tolist() == [Status.OK]
    assert not grey.features[0, 0].any()
    shown = np.floor((np.arange(8) + 0.5) * 50 / 8)  # the frame in the middle of each eighth
    np.testing.assert_allclose(grey.features[0, 1:, 0], 20 + 4 * shown[1:], atol=3)
    assert (pixels.mask == Step.OK).all()


def test_a_mean_over_time_is_that_of_the_frames_with_features(clip):
    sequence = extract([clip, clip], GreySpec()).rows["grey"]
    mean = extract([clip, clip], GreySpec(), clip=ClipSpec(frames=8, over_time="mean")).rows["grey"]
    assert mean.mask is None
    assert mean.features.shape == (2, 2)
    np.testing.assert_allclose(mean.features, sequence.features[:, 1:].mean(axis=1), rtol=1e-6)


def test_frames_behind_the_last_one_are_padding(silent):
    rows = extract([silent], GreySpec(), clip=ClipSpec(frames=6, every=15)).rows["grey"]  # frames 0, 15, 30, 45
    assert rows.mask[0].tolist() == [Step.NO_DETECTION, *[Step.OK] * 3, *[Step.PADDING] * 2]


def test_a_flag_of_some_frame_is_a_flag_of_the_clip(silent):
    rows = extract([silent, Source(silent, start_s=0.3, end_s=1.0)], GreySpec()).rows["grey"]
    assert rows.flags.tolist() == [1, 0]


def test_a_clip_without_a_detection_is_no_detection(silent):
    rows = extract([Source(silent, end_s=0.15)], GreySpec()).rows["grey"]
    assert rows.status.tolist() == [Status.NO_DETECTION]
    assert (rows.mask == Step.NO_DETECTION).all()


def test_streams_of_sounds_and_whole_clips_see_them(clip):
    rows = extract([clip]).rows
    np.testing.assert_allclose(rows["loudness"].features, [[0.5 / np.sqrt(2), 2.0]], atol=0.03)
    assert rows["loudness"].mask is None
    assert rows["motion"].status.tolist() == [Status.OK]
    assert 50 < rows["motion"].features[0, 0] < 120  # 4 grey values in each of 25 frames a second, but for the square


def test_a_file_is_opened_once_for_all_streams_and_views(clip, monkeypatch):
    opened = []
    read_bytes = type(clip).read_bytes
    monkeypatch.setattr(type(clip), "read_bytes", lambda path: opened.append(path) or read_bytes(path))
    extract([clip], views=(0, 1))
    assert opened == [clip]


def test_without_a_sound_only_the_streams_of_sounds_are_unreadable(silent, clip):
    found = extract([silent, clip])
    assert found.rows["loudness"].status.tolist() == [Status.UNREADABLE, Status.OK]
    assert all(found.rows[name].status.tolist() == [Status.OK] * 2 for name in ("grey", "pixels", "motion"))
    assert found.problems == [(0, "loudness", "no audio track (its tracks: video)")]


def test_a_sound_apart_is_read_although_the_picture_is_damaged(silent, folder):
    sound = write_sound(folder / "apart.wav", seconds=1.5)
    found = extract([Source(cut(silent, 0.5), audio_path=sound), Source(silent, audio_path=sound)])
    assert found.rows["loudness"].status.tolist() == [Status.OK] * 2
    assert found.rows["loudness"].features[:, 1].tolist() == [1.5, 1.5]
    assert found.rows["grey"].status.tolist() == [Status.UNREADABLE, Status.OK]
    assert [(row, stream) for row, stream, _ in found.problems] == [(0, "grey"), (0, "motion"), (0, "pixels")]


def test_a_clip_that_is_not_there_is_one_problem(folder, clip):
    found = extract([folder / "missing.mp4", None, clip])
    assert found.problems == [(0, "", "no such file")]
    assert all(rows.status.tolist()[:2] == [Status.UNREADABLE] * 2 for rows in found.rows.values())


def test_a_clip_that_is_damaged_behind_some_frames_has_no_features(tmp_path):
    """Its first frames have passed the streams when the damage is found."""
    part = cut(write_clip(tmp_path / "clip.webm", codec="libvpx"), 0.7)
    batches_before = batches._BATCH_SAMPLES
    batches._BATCH_SAMPLES = 2
    try:
        found = extract([part], GreySpec(), PixelsSpec())
    finally:
        batches._BATCH_SAMPLES = batches_before
    for rows in found.rows.values():
        assert rows.status.tolist() == [Status.UNREADABLE]
        assert not rows.features.any()
        assert (rows.mask == Step.PADDING).all()
    assert len(found.problems) == 1
    assert found.problems[0][2].startswith("cut off: its picture ends at ")


def test_a_stream_that_fails_on_one_frame_fails_on_the_clip(silent):
    spec = GreySpec(fails_at=20 + 4 * 21 - 1.5)
    found = extract([silent, Source(silent, end_s=0.5)], spec, PixelsSpec())
    assert found.rows["grey"].status.tolist() == [Status.FAILED, Status.OK]
    assert (found.rows["grey"].mask[0] == Step.PADDING).all()
    assert not found.rows["grey"].features[0].any()
    assert found.rows["pixels"].status.tolist() == [Status.OK] * 2
    assert found.problems == [(0, "grey", "ZeroDivisionError: a frame as grey as this")]


@pytest.mark.parametrize("samples", [1, 3, 64])
def test_clips_are_the_same_in_micro_batches_of_any_size(clip, silent, monkeypatch, samples):
    expected = extract([clip, silent, clip], views=(0, 1))
    monkeypatch.setattr(batches, "_BATCH_SAMPLES", samples)
    again = extract([clip, silent, clip], views=(0, 1))
    for view in (0, 1):
        for name, rows in expected[view].rows.items():
            np.testing.assert_array_equal(again[view].rows[name].features, rows.features)
            np.testing.assert_array_equal(again[view].rows[name].status, rows.status)


def test_all_frames_of_a_view_have_one_draw(silent):
    augment = AugmentSpec(flip=1.0, rotation_deg=0.0, padding=0.0)
    found = extract([silent], PixelsSpec(), views=(0, 1), augment=augment)
    shown, mirrored = (found[view].rows["pixels"].features for view in (0, 1))
    assert not np.array_equal(shown, mirrored)
    picture = frame(30)
    view = draw_view(augment, "0", 1)
    assert (apply_view(picture, view)[0, -1] == picture[0, 0]).all()
    assert (mirrored[0, :, 0, 0, 0] < 230).all()  # the red square is at the right in every frame
    assert (shown[0, :, 0, 0, 0] > 230).all()


def test_a_picture_in_a_cache_of_clips_and_a_clip_in_one_of_pictures_are_named(folder, clip):
    picture = folder / "face.png"
    Image.fromarray(frame(9)).save(picture)
    found = extract([picture], GreySpec())
    assert found.problems[0][2].startswith("a picture, and the cache spec has `clip`, which is for clips (")
    found = extract([clip], GreySpec(), clip=None)
    assert found.problems[0][2].startswith("a clip, and the cache spec has no `clip`: set `clip: {frames: 16}` (")


def test_sounds_need_no_clip_in_the_spec_and_may_lie_beside_pictures(folder):
    picture, sound = folder / "beside.png", write_sound(folder / "beside.wav", rate_hz=8000)
    Image.fromarray(frame(40)).save(picture)
    rows = extract([Source(picture, audio_path=sound)], GreySpec(), LoudnessSpec(), clip=None).rows
    assert rows["grey"].features.shape == (1, 2)
    np.testing.assert_allclose(rows["loudness"].features, [[np.sqrt(np.mean(tone(1, 8000) ** 2)), 1.0]], rtol=1e-3)


def test_a_cache_of_sounds_alone(folder):
    path = write_sound(folder / "speech.flac", seconds=0.5)
    found = extract([path, Source(path, start_s=0.1, end_s=0.3), folder / "none.wav"], LoudnessSpec(), clip=None)
    np.testing.assert_allclose(found.rows["loudness"].features[:2, 1], [0.5, 0.2], atol=1e-3)
    assert found.problems == [(2, "", "no such file")]


def test_what_was_read_is_recorded_once_for_each_row(clip, folder):
    sound = write_sound(folder / "recorded.wav")
    spec = CacheSpec(streams=ALL, clip=ClipSpec(frames=2))
    seen = {}
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        extractor.extract_views([clip, Source(clip, audio_path=sound)], ["a", "b"], [0], seen.__setitem__)
    assert seen[0].bytes == clip.stat().st_size
    assert seen[1].bytes == clip.stat().st_size + sound.stat().st_size
    assert seen[1].modified_ns == clip.stat().st_mtime_ns + sound.stat().st_mtime_ns
    assert seen[0].crc not in {None, seen[1].crc}
    with Extractor((LoudnessSpec(),), spec, device="cpu") as extractor:
        extractor.extract_views(
            [Source(clip, audio_path=sound)], ["a"], [0], lambda row, sums: pytest.fail("half read")
        )


def test_a_span_of_a_long_file_is_not_hashed(clip):
    spec = CacheSpec(streams=(GreySpec(),), clip=ClipSpec(frames=2))
    seen = {}
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        extractor.extract_views([Source(clip, start_s=0.5)], ["a"], [0], seen.__setitem__)
    assert (seen[0].bytes, seen[0].crc) == (clip.stat().st_size, None)


class BothSpec(CustomStreamSpec):
    kind: str = "both"
    needs = frozenset({"image", "audio"})

    def make(self, device):
        stream = GreySpec().make(device)
        stream.needs = frozenset({"image", "audio"})
        return stream


class SequenceSpec(GreySpec):
    kind: str = "sequence"

    def make(self, device):
        stream = GreySpec().make(device)
        stream.shape, stream.dimensions = (3, 2), ("time", "feature")
        return stream


@pytest.mark.parametrize(
    ("spec", "clip", "message"),
    [
        (BothSpec(), ClipSpec(), r"^stream 'both' needs audio, image: a stream sees single pictures"),
        (SequenceSpec(), ClipSpec(), r"^stream 'sequence' gives sequences of a picture: it cannot have a second axis"),
        (MotionSpec(), None, r"^stream 'motion' needs the frames of clips: set `clip: \{frames: 16\}`"),
    ],
)
def test_streams_that_cannot_run_on_such_media_are_refused(spec, clip, message):
    with pytest.raises(StreamError, match=message):
        stored_stream(spec.make("cpu"), spec, clip)


def test_the_digest_knows_the_choice_of_frames_and_sounds_do_not_depend_on_it():
    def identity(stream, **spec):
        return stream_identity(stream, CacheSpec(streams=(stream,), **spec))

    assert identity(LbpSpec(), clip=ClipSpec())["clip"] == {
        "version": 1, "fold": 1, "tracking": 1, "frames": 16, "every": None, "over_time": "sequence",
    }  # fmt: skip
    assert "clip" not in identity(LbpSpec())
    assert identity(GreySpec(), clip=ClipSpec()) != identity(GreySpec(), clip=ClipSpec(frames=8))
    assert "tracking" not in identity(GreySpec(), clip=ClipSpec())["clip"]
    assert identity(LoudnessSpec(), clip=ClipSpec()) == identity(LoudnessSpec())
    assert identity(LoudnessSpec())["sound"] == {"version": 1}


def test_a_spec_without_clip_is_written_as_before():
    assert "clip" not in CacheSpec(streams=(GreySpec(),)).model_dump()


def test_a_mean_that_is_not_finite_in_the_stored_dtype_fails():
    stored = stored_stream(GreySpec().make("cpu"), GreySpec(), ClipSpec(frames=2, over_time="mean"))
    frames = Rows.ok(np.array([[7e4, 1], [7e4, 1], [1, 1], [3, 1]], np.float32))
    rows, broken = folded(stored, frames, np.float16, ())
    assert broken == [0]
    assert rows.status.tolist() == [Status.FAILED, Status.OK]
    assert rows.features.tolist() == [[0, 0], [2, 1]]


def test_long_files_are_decoded_from_the_disk(clip, monkeypatch):
    expected = extract([clip], GreySpec(), LoudnessSpec())
    monkeypatch.setattr(files, "WHOLE_BYTES", 100)
    again = extract([clip], GreySpec(), LoudnessSpec())
    for name, rows in expected.rows.items():
        np.testing.assert_array_equal(again.rows[name].features, rows.features)
    assert expected.rows["grey"].features.shape == (1, 8, 2)


@pytest.mark.parametrize("spec", [GreySpec(), PixelsSpec(), MotionSpec()], ids=lambda spec: spec.kind)
def test_streams_of_frames_and_whole_clips_pass_the_check_of_streams(spec):
    check_stream(spec)
