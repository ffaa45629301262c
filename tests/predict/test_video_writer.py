"""The annotated video: times, sound, sizes, and a whole file behind an error."""

from __future__ import annotations

import av
import numpy as np
import pytest
from media_files import frame, number_of, write_clip

from emofuse.datasets.sources import Source
from emofuse.errors import DatasetError
from emofuse.media.audio import read_sound
from emofuse.media.frames import FrameChoice, read_frames
from emofuse.predict import video_writer
from emofuse.predict.video_writer import writing_video
from emofuse.specs import DecodeSpec


def read(path):
    return list(read_frames(path, FrameChoice(), DecodeSpec()))


def test_frames_keep_their_content_and_their_uneven_times(tmp_path):
    times = [0.0, 0.04, 0.5, 2.0]
    with writing_video(tmp_path / "a.mp4", rate_hz=25, sound_of=None) as video:
        for number, time_s in enumerate(times):
            video.add(time_s + 3.0, frame(number * 10))
    frames = read(tmp_path / "a.mp4")
    assert [each.time_s for each in frames] == pytest.approx(times, abs=0.002)
    assert [number_of(each.image) for each in frames] == [0, 10, 20, 30]


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
def test_the_sound_of_the_span_is_copied_beside_its_frames(tmp_path, codec):
    clip = write_clip(tmp_path / "a.mp4", frames=50, sound=codec)
    with writing_video(tmp_path / "b.mp4", rate_hz=25, sound_of=clip) as video:
        for each in read_frames(clip, FrameChoice(start_s=0.5, end_s=1.5), DecodeSpec()):
            video.add(each.time_s, each.image)
    assert video.sound is None
    sound = read_sound(Source(tmp_path / "b.mp4"), DecodeSpec())
    assert len(sound.samples) / sound.rate_hz == pytest.approx(1.0, abs=0.1)
    assert np.abs(sound.samples).max() == pytest.approx(0.5, abs=0.1)
    assert len(read(tmp_path / "b.mp4")) == 26  # those shown from 0.5 s on: the first one since 0.48 s


def test_a_sound_that_mp4_cannot_hold_is_left_out_and_said(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", frames=5, sound="pcm_s16le")
    with writing_video(tmp_path / "b.mp4", rate_hz=25, sound_of=clip) as video:
        video.add(0.0, frame(0))
    assert video.sound == "the sound is left out: MP4 holds no pcm_s16le that could be copied"


def test_a_frame_of_odd_size_loses_its_last_row_and_column_and_another_size_is_fitted(tmp_path):
    with writing_video(tmp_path / "a.mp4", rate_hz=25, sound_of=None) as video:
        video.add(0.0, np.zeros((49, 65, 3), np.uint8))
        video.add(0.1, np.zeros((98, 130, 3), np.uint8))
    assert [each.image.shape for each in read(tmp_path / "a.mp4")] == [(48, 64, 3)] * 2


def test_mpeg4_takes_the_place_of_an_encoder_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(video_writer, "_CODECS", ("no_such_codec", "mpeg4"))
    with writing_video(tmp_path / "a.mp4", rate_hz=25, sound_of=None) as video:
        for number in range(10):
            video.add(number / 25, frame(number))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert len(read(tmp_path / "a.mp4")) == 10


def test_an_error_leaves_a_whole_video_of_the_frames_so_far(tmp_path):
    path = tmp_path / "a.mp4"

    def write():
        with writing_video(path, rate_hz=25, sound_of=None) as video:
            for number in range(7):
                video.add(number / 25, frame(number))
            assert not path.exists()
            raise RuntimeError("elsewhere")

    with pytest.raises(RuntimeError, match="elsewhere"):
        write()
    assert len(read(path)) == 7
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_without_a_frame_no_file_is_written(tmp_path):
    with writing_video(tmp_path / "a.mp4", rate_hz=None, sound_of=None):
        pass
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused_before_any_work(tmp_path):
    with pytest.raises(DatasetError, match=r"a.gif: a video is written as .mp4, .m4v, .mov, got .gif"):
        writing_video(tmp_path / "a.gif", rate_hz=None, sound_of=None).__enter__()
