from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import pytest

from emofuse.errors import ResultsError
from emofuse.sweep.rows import Holder, ResultsFolder

A, B, C = ("a" * 64), ("b" * 64), ("c" * 64)

CLAIMER = """
import sys, time
from pathlib import Path
from emofuse.sweep.rows import ResultsFolder
with ResultsFolder(Path(sys.argv[1])).claim(sys.argv[2:]) as got:
    print(",".join(sorted(got)), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return ResultsFolder(tmp_path / "sweep")


@pytest.fixture
def other_process(folder):
    """Starts a process that claims runs and holds them; gives it with what it got."""
    started = []

    def start(*digests):
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIMER, str(folder.path), *digests], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_rows_come_back_as_they_were_written(folder, make_row):
    rows = [make_row("a"), make_row("b", fold=None, val_loss=None, ended="diverged", name="späte Fusion")]
    path = folder.write(rows)
    assert path.read_text(encoding="utf-8").count("\n") == 2
    assert ResultsFolder(folder.path).rows() == rows


def test_a_folder_without_rows_is_empty(folder):
    assert folder.rows() == []
    assert not folder.path.exists()


def test_the_results_are_the_union_of_all_files_in_the_order_of_their_end(folder, make_row):
    folder.write([make_row("b", created="2026-01-02T00:00:00+00:00")])
    folder.write([make_row("a", created="2026-01-03T00:00:00+00:00")])
    assert [row.digest for row in folder.rows()] == [B, A]
    folder.write([make_row("c", created="2026-01-01T00:00:00+00:00")])
    assert [row.digest for row in folder.rows()] == [C, B, A]


def test_of_one_run_in_two_files_the_earlier_counts(folder, make_row):
    late = make_row("a", created="2026-01-02T00:00:00+00:00", seconds=2.0)
    early = make_row("a", created="2026-01-01T00:00:00+00:00", seconds=1.0)
    for row in (late, early):
        folder.write([row])
    assert folder.rows() == [early]
    same_second = [folder.write([make_row("b", seconds=float(number))]).name for number in range(4)]
    first = same_second.index(min(same_second))
    assert next(row for row in folder.rows() if row.digest == B).seconds == first


def test_a_partial_file_of_a_killed_process_is_ignored(folder, make_row):
    path = folder.write([make_row("a")])
    path.with_name(".partial-0123.jsonl").write_text('{"digest": "b')
    assert [row.digest for row in ResultsFolder(folder.path).rows()] == [A]


def test_a_file_that_cannot_be_written_leaves_none(folder, make_row):
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        folder.write([make_row("a"), make_row("b", val_loss=float("nan"))])
    assert folder.rows() == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:-20], "Invalid JSON"),
        (lambda text: "", r"damaged \(empty\)"),
        (lambda text: text.replace('"digest"', '"digits"'), "digest: (Missing|Field) required"),
        (lambda text: text.replace('"seed": 0', '"seed": 0, "colour": 1'), "colour: Unexpected keyword argument"),
        (lambda text: text.replace('"seed": 0', '"seed": "0"'), "seed: Input should be a valid integer"),
        (lambda text: text.replace('"ended": "epochs"', '"ended": "never"'), "ended: Input should be 'epochs'"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(folder, make_row, damage, reason):
    path = folder.write([make_row("a")])
    path.write_text(damage(path.read_text()))
    with pytest.raises(ResultsError, match=reason) as error:
        ResultsFolder(folder.path).rows()
    assert str(path) in str(error.value)
    assert "Delete the file; the sweep trains its runs again" in str(error.value)


def test_rows_of_another_format_are_refused(folder, make_row):
    path = folder.write([make_row("a"), make_row("b", format=7)])
    path.write_text(path.read_text().replace('"seed"', '"seeds"'))  # another format has other fields
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace('"seeds"', '"seed"'), lines[1]]))
    with pytest.raises(ResultsError, match=r"line 2: format 7, this emofuse reads format 1\. Name another folder"):
        folder.rows()
    assert path.is_file()


def test_a_foreign_file_is_named_with_what_to_do(folder, make_row):
    folder.write([make_row("a")])
    foreign = folder.path / "rows" / "notes.txt"
    foreign.write_text("mine")
    with pytest.raises(ResultsError, match=r"notes\.txt: not a file of rows .* Move it out of this folder"):
        folder.rows()


def test_what_is_claimed_is_not_given_to_another_until_it_is_given_back(folder):
    other = ResultsFolder(folder.path)
    with folder.claim([A, B]) as ours:
        assert ours == {A, B}
        with other.claim([B, C]) as theirs:
            assert theirs == {C}
            with folder.claim([B, C]) as nothing:
                assert nothing == frozenset()
    with other.claim([B]) as theirs:
        assert theirs == {B}
    assert other.holders([A, B, C]) == []
    assert list((folder.path / "claims").glob("*.json")) == []


def test_a_claim_is_given_back_when_training_fails(folder):
    with pytest.raises(RuntimeError, match="no memory"), folder.claim([A]):
        raise RuntimeError("no memory")
    with folder.claim([A]) as got:
        assert got == {A}


def test_a_run_that_has_a_row_is_not_given(folder, make_row):
    with folder.claim([A, B]):
        folder.write([make_row("a")])
    with ResultsFolder(folder.path).claim([A, B]) as got:
        assert got == {B}


def test_another_process_holds_its_claim_and_is_named(folder, other_process):
    process, got = other_process(A, B)
    assert got == f"{A},{B}"
    with folder.claim([B, C]) as ours:
        assert ours == {C}
    (holder,) = folder.holders([B, C])
    assert holder == Holder(process.pid, os.uname().nodename, (B,))
    assert str(holder) == f"process {process.pid} on {os.uname().nodename}"


def test_the_claim_of_a_killed_process_counts_for_nothing(folder, other_process):
    process, _ = other_process(A)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.holders([A]) == []
    with folder.claim([A]) as got:
        assert got == {A}


def test_what_another_process_has_is_waited_for_until_it_ends(folder, other_process, monkeypatch):
    monkeypatch.setattr("emofuse.sweep.rows.SECONDS_BETWEEN_LOOKS", 0.01)
    process, _ = other_process(A)
    told = []

    def say(who):
        told.append(who)
        process.kill()
        process.wait()

    with folder.wait_for(A, say), ResultsFolder(folder.path).claim([A]) as got:
        assert got == frozenset()
    assert told == [f"process {process.pid} on {os.uname().nodename}"]


def test_many_processes_at_once_share_without_overlap(folder, make_row):
    """Each tries to claim everything, run by run: every run is written once."""
    script = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from emofuse.sweep.rows import ResultsFolder, RunRow
folder = ResultsFolder(Path(sys.argv[1]))
row = RunRow(**json.loads(sys.argv[2]))
for number in range(40):
    with folder.claim([f"{number:064}"]) as got:
        if got:
            folder.write([replace(row, digest=f"{number:064}", sweep=str(os.getpid()))])
"""
    row = json.dumps(asdict(make_row()))
    processes = [subprocess.Popen([sys.executable, "-c", script, str(folder.path), row]) for _ in range(3)]
    assert [process.wait(timeout=600) for process in processes] == [0, 0, 0]
    assert len(folder.rows()) == 40
    lines = [line for path in (folder.path / "rows").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 40
