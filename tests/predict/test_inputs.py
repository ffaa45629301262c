"""What an argument of `predict` and `live` means, and the times and choices of frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from media_files import write_clip
from PIL import Image

from emofuse.datasets.names import NameKind
from emofuse.errors import DatasetError, DecodeError
from emofuse.media.frames import FrameChoice, VideoFacts
from emofuse.predict.inputs import Address, Camera, find_inputs, is_live, parse_every, parse_input, parse_seconds
from emofuse.predict.video import expected_frames

IMAGES = frozenset({NameKind.IMAGE})


def test_a_number_is_a_camera_an_address_is_one_and_anything_else_a_path():
    assert parse_input("0") == Camera(0)
    assert parse_input("rtsp://host/stream") == Address("rtsp://host/stream")
    assert parse_input("./0") == Path("0")
    assert parse_input("a.mp4") == Path("a.mp4")


def test_an_address_of_another_kind_is_refused():
    with pytest.raises(
        DatasetError, match=r"ftp://host/a.mp4: cannot be read, expected an address of http, https, .*rtsp"
    ):
        parse_input("ftp://host/a.mp4")


def test_a_password_in_an_address_is_never_shown():
    assert str(Address("rtsp://me:secret@host/a")) == "rtsp://host/a"


def test_a_camera_and_a_stream_are_live_and_a_file_on_a_server_is_not():
    assert is_live(Camera(0))
    assert is_live(Address("rtsp://host/a"))
    assert not is_live(Address("https://host/a.mp4"))
    assert not is_live(Path("a.mp4"))


def test_a_run_on_images_takes_the_images_of_a_folder_as_files_and_its_videos_frame_by_frame(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    write_clip(tmp_path / "b.mp4", frames=2)
    files, videos = find_inputs([str(tmp_path), "1"], IMAGES, say=lambda line: None)
    assert files == [tmp_path / "a.png"]
    assert videos == [tmp_path / "b.mp4", Camera(1)]


def test_a_run_on_clips_takes_a_clip_as_a_whole_and_no_camera(tmp_path):
    write_clip(tmp_path / "b.mp4", frames=2)
    kinds = frozenset({NameKind.CLIP})
    assert find_inputs([str(tmp_path / "b.mp4")], kinds, say=lambda line: None) == ([tmp_path / "b.mp4"], [])
    with pytest.raises(DatasetError, match="camera 0: the run predicts whole clips, which a live source has none of"):
        find_inputs(["0"], kinds, say=lambda line: None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0.5s", 0.5), ("500ms", 0.5), ("12.5", 12.5), ("0", 0), ("1:30", 90), ("1:02:03.5", 3723.5)]
)
def test_times_are_seconds_or_clocks(text, seconds):
    assert parse_seconds(text, "--from") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1", "1:2:3:4", "1e3", "nan"])
def test_what_is_no_time_is_named(text):
    with pytest.raises(DecodeError, match=r"--smooth: .* is no time, expected seconds such as 0.5s, 12.5 or 1:02:03"):
        parse_seconds(text, "--smooth")


def test_every_is_a_number_of_frames_or_a_time():
    assert parse_every("5") == (5, None)
    assert parse_every("0.2s") == (1, 0.2)


@pytest.mark.parametrize("text", ["0", "0s", "often", "0.2"])
def test_every_that_is_neither_is_named(text):
    with pytest.raises(DecodeError, match="--every: "):
        parse_every(text)


def test_the_expected_number_of_frames_follows_from_length_rate_and_choice():
    facts = VideoFacts(10.0, 25.0, has_sound=False)
    assert expected_frames(facts, FrameChoice()) == 250
    assert expected_frames(facts, FrameChoice(every=10)) == 25
    assert expected_frames(facts, FrameChoice(every_s=0.5, start_s=5.0)) == 10
    assert expected_frames(facts, FrameChoice(start_s=2.0, end_s=4.0)) == 50
    assert expected_frames(VideoFacts(10.0, None, has_sound=False), FrameChoice()) is None
