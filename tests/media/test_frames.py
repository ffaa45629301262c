"""All frames of a video, in the order of time, of a file and of an address."""

from __future__ import annotations

import functools
import http.server
import threading

import numpy as np
import pytest
from media_files import RATE, cut, number_of, write_clip

from emofuse.errors import DecodeError
from emofuse.media.frames import FrameChoice, read_facts, read_frames, read_live_frames
from emofuse.specs import DecodeSpec

DECODE = DecodeSpec()


def numbers(path, **choice):
    return [frame.number for frame in read_frames(path, FrameChoice(**choice), DECODE)]


def test_every_frame_is_read_once_in_the_order_of_time(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames=30)
    frames = list(read_frames(clip, FrameChoice(), DECODE))
    assert [frame.number for frame in frames] == list(range(30))
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(30) / RATE, abs=1e-6)


def test_every_nth_frame_and_a_span_name_the_frames_of_the_whole_video(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames=50)
    assert numbers(clip, every=7) == list(range(0, 50, 7))
    assert numbers(clip, start_s=0.8, end_s=1.2) == list(range(20, 30))
    frames = list(read_frames(clip, FrameChoice(start_s=1.0, every=5), DECODE))
    assert [number_of(frame.image) for frame in frames] == [frame.number for frame in frames] == [25, 30, 35, 40, 45]


def test_a_distance_in_seconds_takes_the_frames_shown_then_and_none_twice(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames=50)
    assert numbers(clip, every_s=0.2) == list(range(0, 50, 5))
    assert numbers(clip, every_s=0.01) == list(range(50))
    slow = write_clip(tmp_path / "b.mp4", frames=4, times_ms=[0, 1000, 1040, 3000])
    assert [frame.time_s for frame in read_frames(slow, FrameChoice(every_s=0.5), DECODE)] == [0.0, 1.0, 1.04, 3.0]


def test_the_header_says_length_rate_and_sound(tmp_path):
    facts = read_facts(write_clip(tmp_path / "a.mp4", frames=50, sound="aac"))
    assert (facts.end_s, facts.rate_hz, facts.has_sound) == (pytest.approx(2.0, abs=0.05), RATE, True)
    assert not read_facts(write_clip(tmp_path / "b.mp4", frames=5)).has_sound


def test_a_video_that_was_cut_off_gives_its_frames_and_then_the_reason(tmp_path):
    clip = cut(write_clip(tmp_path / "a.mkv", frames=50), 0.6)
    read = []
    with pytest.raises(DecodeError, match=r"cut off: its picture ends at .* s, its header says 2.00 s"):
        read.extend(frame.number for frame in read_frames(clip, FrameChoice(), DECODE))
    assert read == list(range(len(read)))
    assert 10 < len(read) < 50


def test_a_span_behind_the_end_is_refused(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames=25)
    with pytest.raises(DecodeError, match=r"the span from 3 to .* s lies outside of the file|the span from 3 to"):
        numbers(clip, start_s=3.0)


@pytest.fixture
def served(tmp_path):
    """The address of a folder that this machine serves."""
    handler = functools.partial(QuietHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_an_address_gives_the_same_frames_as_the_file(tmp_path, served):
    clip = write_clip(tmp_path / "a.mkv", frames=30)
    sent = list(read_live_frames(f"{served}/a.mkv", FrameChoice(every=3), DECODE, timeout_s=120))
    file = list(read_frames(clip, FrameChoice(every=3), DECODE))
    assert [frame.number for frame in sent] == [frame.number for frame in file]
    assert all(np.array_equal(one.image, other.image) for one, other in zip(sent, file, strict=True))
    times = [
        frame.time_s for frame in read_live_frames(f"{served}/a.mkv", FrameChoice(every_s=0.4), DECODE, timeout_s=120)
    ]
    assert times == pytest.approx([0.0, 0.4, 0.8])


def test_an_address_that_answers_with_nothing_is_named(served):
    with pytest.raises(DecodeError, match="cannot be opened: "):
        list(read_live_frames(f"{served}/missing.mp4", FrameChoice(), DECODE, timeout_s=120))


def test_a_playlist_of_a_server_names_no_file_of_this_machine(tmp_path, served):
    """FFmpeg follows playlists; a server must not choose files of this machine that way."""
    clip = write_clip(tmp_path / "secret.ts", frames=10)
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(DecodeError):
        list(read_live_frames(f"{served}/list.m3u8", FrameChoice(), DECODE, timeout_s=120))
