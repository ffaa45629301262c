"""Clips: the frames that are shown at given times, upright, whatever the container; bad files are one-line reasons."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from media_files import HEIGHT, RATE, WIDTH, CountedFile, cut, frame, number_of, write_clip, write_sound

from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError, StreamError
from emofuse.media import files, video
from emofuse.media.channel_pca import keep_variance
from emofuse.media.video import read_clip
from emofuse.specs import ClipSpec, DecodeSpec


def read(path, frames=8, *, every=None, decode=None, **source):
    return read_clip(Source(path, **source), ClipSpec(frames=frames, every=every), decode or DecodeSpec())


def numbers(clip):
    return [number_of(picture) for picture in clip.frames]


def middles(start, end, count):
    """The times at which frames are chosen: the middles of equal parts."""
    return start + (np.arange(count) + 0.5) * (end - start) / count


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def mp4(folder):
    return write_clip(folder / "clip.mp4", sound="aac")


CONTAINERS = {
    "mp4": {"codec": "libx264", "sound": "aac"},
    "flv": {"codec": "flv", "sound": "libmp3lame"},
    "webm": {"codec": "libvpx", "sound": "libopus", "sound_hz": 48000},
    "mov": {"codec": "libx264"},
    "mkv": {"codec": "libx264"},
    "avi": {"codec": "mpeg4"},
}


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_the_frames_in_the_middles_of_equal_parts_are_chosen(tmp_path, suffix):
    path = write_clip(tmp_path / f"clip.{suffix}", **CONTAINERS[suffix])
    clip = read(path)
    assert [picture.shape for picture in clip.frames] == [(HEIGHT, WIDTH, 3)] * 8
    assert all(picture.dtype == np.uint8 and picture.flags["C_CONTIGUOUS"] for picture in clip.frames)
    expected = np.floor(middles(0, 2, 8) * RATE)  # 50 frames in two seconds
    np.testing.assert_allclose(numbers(clip), expected, atol=1)  # headers of flv and webm are a few ms longer
    np.testing.assert_allclose(clip.times_s, np.array(numbers(clip)) / RATE, atol=0.03)


def test_a_frame_has_the_colours_that_were_written(mp4):
    picture = read(mp4, 1).frames[0]
    np.testing.assert_allclose(picture[4, 4], frame(0)[4, 4], atol=6)


@pytest.mark.parametrize(("rotation", "corner"), [(90, (-3, 2)), (-90, (2, -3)), (180, (-3, -3))])
def test_the_rotation_that_a_phone_notes_is_applied(tmp_path, rotation, corner):
    """A rotation counts against the clock: by 90 degrees, what was at the top left is at the bottom left."""
    picture = read(write_clip(tmp_path / "phone.mov", rotation=rotation), 1).frames[0]
    assert picture.shape == ((HEIGHT, WIDTH, 3) if rotation == 180 else (WIDTH, HEIGHT, 3))
    assert picture[corner][0] > 200 > 60 > picture[corner][1]
    assert picture[2, 2][1] > 60


def corner_of(picture):
    """The corner in which the red square lies, as (row, column) of a pixel of it."""
    red = [(r, c) for r in (3, -4) for c in (3, -4) if picture[r, c, 0] > 200 > 90 > picture[r, c, 1]]
    assert len(red) == 1
    return red[0]


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize(("mirrored", "flip"), [("h", np.fliplr), ("v", np.flipud)])
def test_a_mirrored_clip_is_shown_as_a_player_shows_it(tmp_path, rotation, mirrored, flip):
    """PyAV mirrors behind the rotation, which counts against the clock."""
    picture = read(write_clip(tmp_path / "selfie.mov", rotation=rotation, mirrored=mirrored), 1).frames[0]
    written = flip(np.rot90(frame(0), rotation // 90))
    assert picture.shape == written.shape
    assert corner_of(picture) == corner_of(written)


@pytest.mark.parametrize(("aspect", "shape"), [((4, 3), (48, 85)), ((3, 4), (64, 64)), ((1, 1), (48, 64))])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pixels_are_square(tmp_path, aspect, shape, suffix):
    path = write_clip(tmp_path / f"wide.{suffix}", pixel_aspect=Fraction(*aspect))
    assert read(path, 1).frames[0].shape == (*shape, 3)
    assert numbers(read(path, 4)) == numbers(read(write_clip(tmp_path / f"plain.{suffix}"), 4))


def test_pixels_are_square_before_a_clip_is_turned(tmp_path):
    path = write_clip(tmp_path / "phone.mov", pixel_aspect=Fraction(2, 1), rotation=90)
    assert read(path, 1).frames[0].shape == (128, 48, 3)


def test_a_clip_whose_square_pixels_are_too_many_is_refused(tmp_path):
    path = write_clip(tmp_path / "wide.mp4", pixel_aspect=Fraction(20, 1))
    with pytest.raises(DecodeError, match=r"^1280 x 48 = 61,440 pixels, more than max_pixels = 10,000$"):
        read(path, 1, decode=DecodeSpec(max_pixels=10_000))


def test_frames_of_a_variable_rate_are_chosen_by_time(tmp_path):
    """25 frames in the first second, then one every half second: a slow frame is shown, and chosen, for long."""
    times = [*range(0, 1000, 40), *range(1000, 6000, 500)]
    clip = read(write_clip(tmp_path / "slow.mp4", frames=len(times), times_ms=times), 10)
    shown = [max(index for index, time in enumerate(times) if time / 1000 <= at) for at in middles(0, 5.54, 10)]
    assert numbers(clip) == shown
    assert (np.diff(clip.times_s) >= 0).all()


def test_every_third_frame_is_taken_and_no_more_than_asked_for(mp4):
    assert numbers(read(mp4, 5, every=3)) == [0, 3, 6, 9, 12]
    assert numbers(read(mp4, 100, every=20)) == [0, 20, 40]
    assert numbers(read(mp4, 100, every=10, start_s=1.0, end_s=1.5)) == [25, 35]


@pytest.mark.parametrize("suffix", ["mp4", "flv", "webm"])
def test_of_a_span_only_frames_inside_are_chosen(tmp_path, suffix):
    path = write_clip(tmp_path / f"clip.{suffix}", **CONTAINERS[suffix])
    chosen = numbers(read(path, start_s=1.0, end_s=1.6))
    np.testing.assert_allclose(chosen, np.floor(middles(1.0, 1.6, 8) * RATE), atol=1)


def test_a_clip_of_one_frame_shows_it_at_every_step(tmp_path):
    clip = read(write_clip(tmp_path / "one.mp4", frames=1), 4)
    assert [number_of(picture) for picture in clip.frames] == [0, 0, 0, 0]


def test_of_a_long_file_few_frames_are_decoded_and_few_bytes_are_read(folder, monkeypatch):
    """200 s at 25 frames a second with a key frame every two seconds; the size that makes a file long is reduced."""
    path = write_clip(folder / "long.mp4", frames=5000, key_frames=50, options={"movflags": "+faststart"})
    monkeypatch.setattr(files, "WHOLE_BYTES", 1000)
    decoded, read_bytes = [], []
    time_of = video.FrameReader._time
    monkeypatch.setattr(video.FrameReader, "_time", lambda self, *given: decoded.append(1) or time_of(self, *given))
    monkeypatch.setattr(files, "open_binary", lambda path: CountedFile(path, read_bytes))
    clip = read(path, 8)
    np.testing.assert_allclose(numbers(clip), np.floor(middles(0, 200, 8) * RATE) % 50, atol=1)
    assert len(decoded) <= 8 * 52
    decoded.clear()
    assert numbers(read(path, 4, start_s=150.0, end_s=151.0)) == [3, 9, 15, 21]
    assert len(decoded) <= 52 + 26
    assert sum(read_bytes) < 2 * path.stat().st_size  # its index, and the parts around the chosen frames


def test_frames_far_apart_with_no_key_frame_between_are_decoded_once(folder, monkeypatch):
    path = write_clip(folder / "one_key_frame.mp4", frames=500, key_frames=1000)
    decoded = []
    time_of = video.FrameReader._time
    monkeypatch.setattr(video.FrameReader, "_time", lambda self, *given: decoded.append(1) or time_of(self, *given))
    np.testing.assert_allclose(numbers(read(path, 10)), np.floor(middles(0, 20, 10) * RATE) % 50, atol=1)
    assert len(decoded) <= 2 * 500  # it seeks once, and then knows better


@pytest.mark.parametrize("suffix", ["mp4", "flv", "webm", "mov", "mkv", "avi"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_a_clip_that_was_cut_off_is_refused(tmp_path, suffix, share):
    part = cut(write_clip(tmp_path / f"clip.{suffix}", **CONTAINERS[suffix]), share)
    with pytest.raises(DecodeError, match=r"cut off"):
        read(part)


def test_a_clip_with_its_index_in_front_that_was_cut_off_is_refused(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", sound="aac", options={"movflags": "+faststart"})
    with pytest.raises(DecodeError, match=r"cut off: its picture ends at .* its header says 2\.00 s|cut off at "):
        read(cut(path, 0.7))


def test_a_file_without_a_video_track_is_refused(tmp_path):
    only_sound = write_clip(tmp_path / "sound.mp4", codec="", sound="aac")
    with pytest.raises(DecodeError, match=r"^no video track \(its tracks: audio\)$"):
        read(only_sound)
    with pytest.raises(DecodeError, match=r"^no video track \(its tracks: audio\)$"):
        read(write_sound(tmp_path / "sound.wav"))


def test_a_clip_whose_header_states_no_length_is_read(tmp_path):
    """Fragmented files, as browsers and streams write them, have an empty index."""
    path = write_clip(tmp_path / "clip.mp4", options={"movflags": "+empty_moov+frag_keyframe+default_base_moof"})
    assert numbers(read(path)) == np.floor(middles(0, 2, 8) * RATE).tolist()


def test_a_clip_without_frames_is_refused(tmp_path):
    whole = write_clip(tmp_path / "clip.mp4", options={"movflags": "+empty_moov+frag_keyframe"}).read_bytes()
    none = tmp_path / "none.mp4"
    none.write_bytes(whole[: whole.index(b"moof") - 4])  # the header alone
    with pytest.raises(DecodeError, match=r"^no frame can be decoded$"):
        read(none)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
            "git-lfs pointer text instead of the clip",
        ),
        (b"<!DOCTYPE html><title>404</title>", "an HTML page instead of a clip"),
        (b"#EXTM3U\n#EXTINF:1\n/etc/passwd\n", "no clip or sound of a known format, or damaged or cut off"),
        (b"ffconcat version 1.0\nfile '/etc/hosts'\n", "no clip or sound of a known format, or damaged or cut off"),
        (bytes(5000), "no clip or sound of a known format, or damaged or cut off"),
    ],
)
def test_what_is_no_clip_is_refused_with_the_reason(tmp_path, data, reason):
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=rf"^{reason}"):
        read(path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(DecodeError, match=r"^no such file$"):
        read(tmp_path / "missing.mp4")
    with pytest.raises(DecodeError, match=r"^cannot be read: Is a directory$"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(DecodeError, match=r"^not a file \(a named pipe, socket or device\)$"):
        read(tmp_path / "pipe.mp4")


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (3.0, 4.0, r"the span from 3 to 4 s lies outside of the file, which has 2\.00 s"),
        (1.0, 3.0, r"the span from 1 to 3 s lies outside of the file, which has 2\.00 s"),
        (1.0, 1.0, "the span from 1 to 1 s is empty"),
        (-1.0, 1.0, "the span from -1 to 1 s is empty"),
    ],
)
def test_a_span_outside_of_the_file_is_refused(mp4, start, end, reason):
    with pytest.raises(DecodeError, match=f"^{reason}$"):
        read(mp4, start_s=start, end_s=end)


def test_a_span_that_ends_a_little_late_is_read(mp4):
    """Annotations round their times."""
    assert numbers(read(mp4, 4, start_s=1.0, end_s=2.2)) == numbers(read(mp4, 4, start_s=1.0, end_s=2.0))


def test_frames_of_more_pixels_than_allowed_are_refused(mp4):
    with pytest.raises(DecodeError, match=r"^64 x 48 = 3,072 pixels, more than max_pixels = 3,000$"):
        read(mp4, decode=DecodeSpec(max_pixels=3000))


def test_without_pyav_the_error_names_the_extra(mp4, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(StreamError, match=r"^clips need av, which is not installed: pip install 'emofuse\[video\]'$"):
        read(mp4)


def test_a_clip_is_decoded_to_the_same_bytes_in_another_process(mp4):
    code = (
        "import hashlib, sys; from pathlib import Path; from emofuse.datasets.sources import Source;"
        "from emofuse.media.video import read_clip; from emofuse.specs import ClipSpec, DecodeSpec;"
        "clip = read_clip(Source(Path(sys.argv[1])), ClipSpec(frames=8), DecodeSpec());"
        "print(hash(b''.join(frame.tobytes() for frame in clip.frames)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    again = [subprocess.check_output([sys.executable, "-c", code, str(mp4)], env=environment) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize(
    ("name", "shape", "seconds"),
    [
        ("single_face.mp4", (360, 640, 3), 2.4),
        ("WolfgangLanger_Pexels.mp4", None, 19.685),
        ("face_noface.mov", None, 6.40),
        ("no_face.mp4", None, 3.945),
    ],
)
def test_real_clips_are_read(shared_data, name, shape, seconds):
    clip = read(shared_data / "video" / name, 16)
    assert len(clip.frames) == 16
    if shape is not None:
        assert clip.frames[0].shape == shape
    np.testing.assert_allclose(clip.times_s, middles(0, seconds, 16), atol=0.05)
    assert min(picture.std() for picture in clip.frames) > 5


def test_frames_are_rebuilt_from_their_components_if_the_spec_says_so(mp4):
    plain, rebuilt = (read(mp4, 2, decode=DecodeSpec(pca_variance=share)) for share in (None, 0.9))
    for one, other in zip(plain.frames, rebuilt.frames, strict=True):
        assert np.array_equal(other, keep_variance(one, 0.9))
