"""What progress looks like: lines in a log, a bar on a terminal, nothing of it among the results."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from emofuse.cli.bar import Bar
from emofuse.cli.lines import Lines
from emofuse.cli.progress import (
    ShownProgress,
    describe_build,
    describe_training,
    format_counts,
    show_progress,
)
from emofuse.progress import BuildState, StepState, TrainingState, step

COUNTS = {
    "lbp": {"ok": 30, "no_detection": 10},
    "places365": {"ok": 40},
    "landmarks": {"ok": 30, "no_detection": 10},
}
SEARCHING = TrainingState(
    runs=450, total=1575, heads=300, rows=1_500_000, work=0.25, seconds=60, best=("lbp+resnet50 1e-3", 0.4321)
)
TRAINING = TrainingState(
    runs=2,
    total=5,
    what="training",
    epoch=12,
    epochs=100,
    losses=(0.6931, 0.7),
    heads=2,
    work=0.5,
    seconds=40,
    best=("lbp", 0.5),
)


class Clock:
    """Stands still unless it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(clock):
    """Lines as they are in a log, by the clock: one every five seconds, every thirty without news."""
    return Lines(clock=clock)


@pytest.fixture
def log(lines, clock):
    return ShownProgress(lines, clock=clock)


def a_bar(clock, screen):
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    return Bar(console, clock=clock)


def building(rows: int, seconds: float = 10) -> BuildState:
    return BuildState(rows, 100, seconds, COUNTS if rows else {})


def test_a_build_is_one_line_and_streams_with_equal_counts_share_it():
    assert describe_build(building(40)) == (
        "extracted 40 of 100 images, 4.0 images/s, 0:15 left; lbp, landmarks: 30 ok, 10 no_detection; places365: 40 ok"
    )


def test_nothing_is_left_at_the_end_of_a_build():
    assert describe_build(building(100)).startswith("extracted 100 of 100 images, 10.0 images/s; lbp")


def test_a_search_is_one_line():
    assert describe_training(SEARCHING) == (
        "450 of 1575 runs, 5.0 heads/s, 25,000 rows/s, 3:00 left, best so far: lbp+resnet50 1e-3 (val macro f1 0.432)"
    )


def test_training_is_one_line_with_epochs_losses_speed_time_left_and_the_best():
    assert describe_training(TRAINING) == (
        "2 of 5 runs, epoch 12 of 100, train loss 0.693, val loss 0.700, 0.1 heads/s, 0:40 left, "
        "best so far: lbp (val macro f1 0.500)"
    )


def test_nothing_is_said_of_what_is_not_known():
    assert describe_training(TrainingState(runs=0, total=None)) == "0 runs"
    fast = TrainingState(runs=900, total=1575, heads=900, seconds=10)
    assert describe_training(fast) == "900 of 1575 runs, 90 heads/s"


def test_who_is_waited_for_is_said():
    state = TrainingState(runs=1500, total=1575, waiting_for=("process 7 on a", "process 9 on b"))
    assert describe_training(state) == "1500 of 1575 runs, waiting for process 7 on a and process 9 on b"


def test_a_first_and_a_last_line_of_a_build_and_few_between(log, clock, capsys):
    for rows in (0, 20, 40):
        log.update(building(rows))
    clock.now += 5
    for rows in (60, 80, 100):
        log.update(building(rows))
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == "extracting 100 images"
    assert [line.split(" images")[0] for line in printed[1:]] == ["extracted 60 of 100", "extracted 100 of 100"]


def test_a_first_and_a_last_line_of_a_search_few_between_and_one_for_a_wait(log, capsys):
    waiting = TrainingState(runs=3, total=9, waiting_for=("process 7 on a",))
    for state in (*(TrainingState(runs, 9) for runs in (0, 1, 2)), waiting, waiting, TrainingState(9, 9)):
        log.update(state)
    printed = capsys.readouterr().err.splitlines()
    assert printed == ["0 of 9 runs", "3 of 9 runs, waiting for process 7 on a", "9 of 9 runs"]


def test_work_without_news_is_spoken_of_less_often(log, lines, clock, capsys):
    log.update(TrainingState(0, 2, "training", epochs=100))
    assert capsys.readouterr().err == "0 of 2 runs, epoch 0 of 100\n"
    for _ in range(60):
        clock.now += 1
        lines.tick()
    assert capsys.readouterr().err.splitlines() == [
        "0 of 2 runs, epoch 0 of 100, unchanged for 0:30",
        "0 of 2 runs, epoch 0 of 100, unchanged for 1:00",
    ]
    log.update(TrainingState(2, 2, "training"))
    clock.now += 100
    lines.tick()
    assert capsys.readouterr().err == "2 of 2 runs\n"


def test_what_was_told_too_early_for_a_line_is_said_when_it_is_time(log, lines, clock, capsys):
    log.update(TrainingState(0, 2))
    log.update(TrainingState(1, 2))
    clock.now += 5
    lines.tick()
    assert capsys.readouterr().err == "0 of 2 runs\n1 of 2 runs\n"


def test_a_step_is_said_once_it_lasts_and_so_is_its_end(log, lines, clock, capsys):
    log.update(StepState("writing the report"))
    clock.now += 4
    lines.tick()
    assert capsys.readouterr().err == ""
    clock.now += 1
    lines.tick()
    assert capsys.readouterr().err == "writing the report, 0:05 so far\n"
    clock.now += 10
    lines.tick()
    assert capsys.readouterr().err == ""
    clock.now += 20
    lines.tick()
    assert capsys.readouterr().err == "writing the report, 0:35 so far\n"
    clock.now += 1
    log.update(StepState("writing the report", seconds=36, ended=True))
    assert capsys.readouterr().err == "writing the report: done in 0:36\n"


def test_a_step_that_an_error_or_interrupt_ended_is_not_said_to_be_done(log, lines, clock, capsys):
    log.update(StepState("drawing"))
    clock.now += 5
    lines.tick()
    log.update(StepState("drawing", seconds=6, ended=True, failed=True))
    assert capsys.readouterr().err == "drawing, 0:05 so far\ndrawing: stopped after 0:06\n"


def test_a_short_step_is_not_spoken_of(log, clock, capsys):
    log.update(StepState("planning"))
    clock.now += 2
    log.update(StepState("planning", seconds=2, ended=True))
    assert capsys.readouterr().err == ""


def test_a_step_with_parts_says_how_many_and_how_long_the_rest_takes(log, clock, capsys):
    clock.now += 60
    log.update(StepState("checking", 25, 100, "blocks", seconds=10))
    log.update(StepState("checking", 26, 100, "blocks", seconds=10))
    assert capsys.readouterr().err == "checking, 25 of 100 blocks, 0:30 left, 0:10 so far\n"
    clock.now += 60
    log.update(StepState("fetching net", 3 << 20, 12 << 20, "bytes", seconds=10))
    assert capsys.readouterr().err == "fetching net, 3.0 of 12.0 MiB, 0:30 left, 0:10 so far\n"


def test_training_is_spoken_of_again_after_a_step_within_it(log, lines, clock, capsys):
    log.update(TrainingState(0, 1, "training"))
    log.update(StepState("reading features of lbp"))
    clock.now += 6
    lines.tick()
    log.update(StepState("reading features of lbp", seconds=6, ended=True))
    clock.now += 6
    lines.tick()
    assert capsys.readouterr().err.splitlines() == [
        "0 of 1 runs",
        "reading features of lbp, 0:06 so far",
        "reading features of lbp: done in 0:06",
        "0 of 1 runs",
    ]


def test_lines_where_there_is_no_terminal(capsys):
    with show_progress() as progress:
        progress.update(TrainingState(0, 9))
    assert capsys.readouterr() == ("", "0 of 9 runs\n")


def test_a_bar_and_the_counts_of_each_stream_on_a_terminal(clock):
    screen = io.StringIO()
    shown = ShownProgress(a_bar(clock, screen), clock=clock)
    for rows in (0, 40, 100):
        shown.update(building(rows))
        clock.now += 1
    last = screen.getvalue().split("100/100")[-1]
    assert "10.0 images/s" in last
    assert [line.split() for line in last.splitlines()[1:5]] == [
        ["ok", "no_detection"],
        ["lbp", "30", "10"],
        ["places365", "40", "0"],
        ["landmarks", "30", "10"],
    ]


def test_a_bar_the_losses_and_the_best_so_far_on_a_terminal(clock):
    screen = io.StringIO()
    shown = ShownProgress(a_bar(clock, screen), clock=clock)
    shown.update(TrainingState(0, 5, "training"))
    clock.now += 1
    shown.update(TRAINING)
    last = screen.getvalue().split("2/5")[-1]
    assert "epoch 12 of 100, 0.1 heads/s 0:40 left" in last
    assert "train loss 0.693, val loss 0.700" in last
    assert "best so far: lbp (val macro f1 0.500)" in last
    shown.update(TrainingState(5, 5, "training"))
    assert "5/5" in screen.getvalue()


def test_the_bar_of_one_run_grows_with_its_work(clock):
    screen = io.StringIO()
    shown = ShownProgress(a_bar(clock, screen), clock=clock)
    for work in (0.0, 0.5, 0.9):
        clock.now += 1
        shown.update(TrainingState(0, 1, "training", work=work))
    full = [part.split("0/1")[0].count("━") for part in screen.getvalue().split("training ")[1:]]
    assert len(full) == len(set(screen.getvalue().split("training ")[1:])) == 3


def test_pictures_are_not_drawn_more_often_than_an_eye_can_follow(clock):
    screen = io.StringIO()
    shown = ShownProgress(a_bar(clock, screen), clock=clock)
    for epoch in range(1000):
        clock.now += 0.001
        shown.update(TrainingState(0, 1, "training", epoch=epoch, epochs=1000))
    assert screen.getvalue().count("0/1") <= 11


def test_a_step_takes_the_place_of_the_work_while_it_lasts_and_leaves_nothing(clock):
    screen = io.StringIO()
    bar = a_bar(clock, screen)
    shown = ShownProgress(bar, clock=clock)
    shown.update(TrainingState(0, 1, "training"))
    shown.update(StepState("reading features of lbp"))
    bar.tick()
    assert "reading" not in screen.getvalue()
    clock.now += 1
    bar.tick()
    assert "reading features of lbp" in screen.getvalue()
    shown.update(StepState("reading features of lbp", seconds=1, ended=True))
    bar.tick()
    assert screen.getvalue().rindex("training") > screen.getvalue().rindex("reading")
    shown.update(TrainingState(1, 1, "training"))
    before = screen.getvalue()
    shown.update(StepState("planning"))
    clock.now += 0.5
    shown.update(StepState("planning", seconds=0.5, ended=True))
    assert screen.getvalue() == before


def test_a_step_after_an_error_is_not_shown_any_more(log, lines, clock, capsys):
    def fails():
        with show_progress(), step("planning"):
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        fails()
    assert capsys.readouterr().err == ""


def test_counts_leave_out_what_is_zero():
    assert format_counts({"ok": 3, "failed": 0}) == "3 ok"
    assert format_counts({}) == "0 rows"


ON_A_TERMINAL = """
import sys, time
import typer
from emofuse.cli.progress import show_progress
from emofuse.progress import TrainingState
with show_progress() as progress:
    progress.update(TrainingState(0, 2, "training"))
    typer.echo("a result")
    {then}
    progress.update(TrainingState(2, 2, "training"))
"""


def on_a_terminal(then: str) -> tuple[subprocess.Popen, int]:
    """A process whose error stream is a terminal and whose standard output is a pipe."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL.format(then=then)],
        stdout=subprocess.PIPE,
        stderr=other,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(other)
    return process, main


def read_until(main: int, wanted: str) -> str:
    """What a terminal shows, until it shows what is wanted or its process has ended."""
    shown = b""
    while wanted.encode() not in shown:
        try:
            part = os.read(main, 4096)
        except OSError:  # Linux says so when nobody writes to it any more
            break
        if not part:
            break
        shown += part
    return shown.decode()


def test_results_go_to_standard_output_while_a_bar_is_on_the_terminal():
    process, main = on_a_terminal("pass")
    shown = read_until(main, "2/2")
    out, _ = process.communicate(timeout=600)
    os.close(main)
    assert out == b"a result\n"
    assert "a result" not in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_a_process_its_terminal_has_a_cursor(number):
    process, main = on_a_terminal("time.sleep(600)")
    shown = read_until(main, "0/2")
    assert "0/2" in shown
    time.sleep(0.2)
    process.send_signal(number)
    process.communicate(timeout=600)
    shown += read_until(main, "\x00")
    os.close(main)
    assert "\x1b[?25l" not in shown  # hides the cursor, and nobody may be left to show it again
    assert "\x1b[?1049h" not in shown  # another screen, likewise


def test_an_error_stream_that_goes_away_does_not_end_the_work(monkeypatch):
    ticks = []

    def broken(lines):
        ticks.append(lines)
        raise BrokenPipeError

    monkeypatch.setattr("emofuse.cli.live._SECONDS_BETWEEN_TICKS", 0.001)
    monkeypatch.setattr("emofuse.cli.lines.Lines.tick", broken)
    with show_progress():
        while len(ticks) < 2:
            time.sleep(0.001)
