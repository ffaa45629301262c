"""`emofuse predict` on videos and `emofuse live`, as a user calls them, also with Ctrl-C in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import polars as pl
import pytest
from face_videos import SIZE, scene
from media_files import cut, write_clip
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.media.frames import FrameChoice, read_frames
from emofuse.specs import DecodeSpec

COMMAND = "import sys; sys.argv[0] = 'emofuse'; from emofuse.cli import main; main()"


LONG = 1500


def long_video(folder):
    """A video that is not predicted within a test."""
    pictures = [scene([(10, 40)], SIZE) for _ in range(2)]
    for seed, picture in enumerate(pictures):  # noise, so that an encoder hands on its frames at once
        picture[:, 170:] = np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0] - 170, 3))
    return write_clip(folder / "long.mp4", frames=LONG, picture=lambda number, *_: pictures[number % 2], size=SIZE)


def call(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def read(path):
    return list(read_frames(path, FrameChoice(), DecodeSpec()))


def test_a_video_becomes_a_table_and_an_annotated_video(runs, face_video, tmp_path):
    table, video = tmp_path / "rows.csv", tmp_path / "out.mp4"
    result = call("predict", face_video, "--run", runs["faces"], "--out", table, "--annotate", video, "--smooth", "0")
    assert result.exit_code == 0, result.output
    rows = pl.read_csv(table)
    assert rows["face"].to_list() == [1] * 8 + [None] * 4 + [1] * 8
    assert rows["prob.dark"].to_list() == rows["smooth.dark"].to_list()
    assert len(read(video)) == 20
    assert "  20 frames up to 0.8 s\n  face 1: 16 frames from 0.0 to 0.8 s; on average " in result.output
    assert "  without a face: 4 frames from 0.3 to 0.4 s\n" in result.output
    assert f"Written: {table}, {video}" in result.output


def test_json_has_a_line_for_each_face_and_every_and_from_choose_frames(runs, face_video):
    result = call("predict", face_video, "--run", runs["picture"], "--json", "--from", "0.4", "--every", "0.2s")
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [line["frame"] for line in lines] == [10, 15]
    assert all("face" not in line and "prob.dark" in line for line in lines)


def test_a_cut_off_video_keeps_its_rows_and_says_why_it_ends(runs, tmp_path):
    clip = cut(write_clip(tmp_path / "a.mkv", frames=50), 0.6)
    table = tmp_path / "rows.parquet"
    result = call("predict", clip, "--run", runs["picture"], "--out", table, "--every", "5")
    assert result.exit_code == 1
    assert "ends early: cut off: its picture ends at " in result.output
    assert pl.read_parquet(table).height > 2


def test_wrong_outputs_are_refused_before_any_work(runs, face_video, tmp_path):
    for arguments, message in (
        (["--out", tmp_path / "a.txt"], "a table is written as .csv or .parquet"),
        (["--annotate", tmp_path / "a.gif"], "a video is written as .mp4"),
        (["--annotate", face_video], "is an input; name another file to write"),
        (["--annotate", tmp_path / "a.mp4", face_video], "one video is annotated at a time, got 2 videos"),
        (["--every", "0"], "--every: '0' is neither a number of frames"),
    ):
        result = call("predict", face_video, "--run", runs["picture"], *arguments)
        assert result.exit_code != 0
        assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", f"{result.output} {result.exception}").split())


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(process, is_there, seconds=600):
    end = time.monotonic() + seconds
    while not is_there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_ctrl_c_leaves_whole_files_and_says_what_they_hold(runs, tmp_path):
    clip = long_video(tmp_path)
    table, video = tmp_path / "rows.csv", tmp_path / "out.mp4"
    process = start("predict", clip, "--run", runs["faces"], "--out", table, "--annotate", video)
    try:
        partial = tmp_path / ".out.mp4.partial"
        wait_until(process, lambda: partial.exists() and partial.stat().st_size > 20_000)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 130, output
    said = re.search(
        r"Stopped: (\d+) frames and (\d+) rows of .*long.mp4 up to [\d.]+ s\. (.*) and (.*): whole up to", output
    )
    assert said is not None, output
    assert "the same command continues" not in output
    assert "predicting video: done" not in output
    assert 0 < int(said[1]) < LONG
    assert pl.read_csv(table).height == int(said[2])
    assert len(read(video)) == int(said[1])
    assert {each.name for each in tmp_path.iterdir()} == {"long.mp4", "rows.csv", "out.mp4"}


def test_live_shows_a_file_on_a_page_of_this_machine_until_ctrl_c(runs, tmp_path):
    clip = long_video(tmp_path)
    process = start("live", "--run", runs["faces"], clip, "--view", "page")
    try:
        lines = []
        while not any("Open on this machine" in line for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        url = re.search(r"http://127\.0\.0\.1:\d+/\S+/", lines[-1])[0]
        with urllib.request.urlopen(url + "events", timeout=600) as events:
            data = [line for line in (events.readline() for _ in range(4)) if line.startswith(b"data: ")]
        assert json.loads(data[0].removeprefix(b"data: "))["faces"]
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert re.search(
        r"long.mp4: \d+ frames shown, \d+ skipped, [\d.]+ frames/s at the end; median ms a frame: detect", output
    )
    assert [each.name for each in tmp_path.iterdir()] == ["long.mp4"]


def test_live_names_a_missing_camera_and_a_missing_file(runs):
    result = call("live", "--run", runs["picture"], "97", "--view", "page")
    assert result.exit_code == 1
    assert "camera 97: there is no camera 97 on this machine" in result.output
    result = call("live", "--run", runs["picture"], "missing.mp4", "--view", "page")
    assert result.exit_code == 1
    assert "missing.mp4: no such file" in f"{result.output} {result.exception}"


@pytest.mark.skipif(bool(os.environ.get("DISPLAY")), reason="there is a display")
def test_a_window_without_a_display_is_refused(runs):
    result = call("live", "--run", runs["picture"], "0", "--view", "window")
    assert "no window can be opened: there is no display" in str(result.exception)
