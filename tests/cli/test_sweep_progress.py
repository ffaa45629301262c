from __future__ import annotations

import io

from rich.console import Console

from emofuse.cli.sweep_progress import SweepBar, SweepLines, describe_search, sweep_progress
from emofuse.sweep.progress import SweepState

BUSY = SweepState(
    runs=450, total=1575, heads=300, rows=1_500_000, work=0.25, seconds=60, best=("lbp+resnet50 1e-3", 0.4321)
)


def test_a_state_is_one_line():
    assert describe_search(BUSY) == (
        "450 of 1575 runs, 5.0 heads/s, 25,000 rows/s, 3:00 left, best so far: lbp+resnet50 1e-3 (val macro f1 0.432)"
    )


def test_nothing_is_said_of_what_is_not_known():
    assert describe_search(SweepState(runs=0, total=None)) == "0 runs"
    fast = SweepState(runs=900, total=1575, heads=900, seconds=10)
    assert describe_search(fast) == "900 of 1575 runs, 90 heads/s"


def test_who_is_waited_for_is_said():
    state = SweepState(runs=1500, total=1575, waiting_for=("process 7 on a", "process 9 on b"))
    assert describe_search(state) == "1500 of 1575 runs, waiting for process 7 on a and process 9 on b"


def test_a_first_and_a_last_line_few_between_and_one_for_a_wait(capsys):
    lines = SweepLines(seconds_between=3600)
    waiting = SweepState(runs=3, total=9, waiting_for=("process 7 on a",))
    for state in (SweepState(0, 9), SweepState(1, 9), SweepState(2, 9), waiting, waiting, SweepState(9, 9)):
        lines.update(state)
    printed = capsys.readouterr().err.splitlines()
    assert printed == ["0 of 9 runs", "3 of 9 runs, waiting for process 7 on a", "9 of 9 runs"]


def test_lines_where_there_is_no_terminal(capsys):
    with sweep_progress() as progress:
        progress.update(SweepState(0, 9))
    assert capsys.readouterr() == ("", "0 of 9 runs\n")


def test_a_bar_and_the_best_so_far_on_a_terminal():
    screen = io.StringIO()
    bar = SweepBar(Console(file=screen, force_terminal=True, width=100, color_system=None))
    bar.update(SweepState(0, 1575))
    bar.update(BUSY)
    last = screen.getvalue().split("450/1575")[-1]
    assert "5.0 heads/s, 25,000 rows/s 3:00 left" in last
    assert "best so far: lbp+resnet50 1e-3 (val macro f1 0.432)" in last
    bar.update(SweepState(1575, 1575, waiting_for=()))
    bar.stop()
    assert "1575/1575" in screen.getvalue()
