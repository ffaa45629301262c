from __future__ import annotations

import io

import pytest
from rich.console import Console

from emofuse.cli.live import format_seconds
from emofuse.cli.progress import (
    ProgressBar,
    ProgressLines,
    build_progress,
    describe_state,
    format_counts,
)
from emofuse.extraction import BuildState

COUNTS = {
    "lbp": {"ok": 30, "no_detection": 10},
    "places365": {"ok": 40},
    "landmarks": {"ok": 30, "no_detection": 10},
}


def state(rows: int, seconds: float = 10) -> BuildState:
    return BuildState(rows, 100, seconds, COUNTS if rows else {})


def test_a_state_is_one_line_and_streams_with_equal_counts_share_it():
    assert describe_state(state(40)) == (
        "extracted 40 of 100 images, 4.0 images/s, 0:15 left; lbp, landmarks: 30 ok, 10 no_detection; places365: 40 ok"
    )


def test_nothing_is_left_at_the_end():
    assert describe_state(state(100)).startswith("extracted 100 of 100 images, 10.0 images/s; lbp")


def test_a_first_and_a_last_line_and_few_between(capsys):
    lines = ProgressLines(seconds_between=3600)
    for rows in (0, 20, 40, 60, 100):
        lines.update(state(rows))
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == "extracting 100 images"
    assert [line.split(" images")[0] for line in printed[1:]] == ["extracted 100 of 100"]
    busy = ProgressLines(seconds_between=0)
    for rows in (0, 20, 100):
        busy.update(state(rows))
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_lines_where_there_is_no_terminal(capsys):
    with build_progress() as progress:
        progress.update(state(0))
    assert capsys.readouterr() == ("", "extracting 100 images\n")


def test_a_bar_and_the_counts_of_each_stream_on_a_terminal():
    screen = io.StringIO()
    bar = ProgressBar(Console(file=screen, force_terminal=True, width=100, color_system=None))
    bar.update(state(0))
    bar.update(state(40))
    bar.update(state(100))
    bar.stop()
    last = screen.getvalue().split("100/100")[-1]
    assert "10.0 images/s" in last
    assert [line.split() for line in last.splitlines()[1:5]] == [
        ["ok", "no_detection"],
        ["lbp", "30", "10"],
        ["places365", "40", "0"],
        ["landmarks", "30", "10"],
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_times(seconds, text):
    assert format_seconds(seconds) == text


def test_counts_leave_out_what_is_zero():
    assert format_counts({"ok": 3, "failed": 0}) == "3 ok"
    assert format_counts({}) == "0 rows"
