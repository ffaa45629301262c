"""What is known of a folder: pipelines, sweeps, caches and reports, running, ended, damaged and of former releases."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from saved_runs import write_made_up_run

from emofuse.cache.lock import hold_lock
from emofuse.progress import TrainingState, followed, report_progress
from emofuse.results.progress import keep_progress, plan_more_runs
from emofuse.sweep.rows import ResultsFolder
from emofuse.ui import places, watch
from emofuse.ui.places import find_places
from emofuse.ui.readers import Budget
from emofuse.ui.server import format_age
from emofuse.ui.states import Count
from emofuse.ui.watch import FolderWatch

SWEEP_TESTS = Path(__file__).parents[1] / "sweep"
sys.path.append(str(SWEEP_TESTS))

from small_question import HEADS, finished_groups, planted  # noqa: E402


@pytest.fixture
def cache(tmp_path, write_cache):
    ok = np.array([1] * 20 + [2, 4, 3], np.uint8)
    streams = {"net": ("backbone", np.ones((23, 2), np.float32), ok)}
    labels = np.zeros(23, np.int64)
    return write_cache(tmp_path / "features.zarr", ("joy",), labels, ["train"] * 23, streams, block_rows=8)


def wait_until(condition, timeout_s=600):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def only_place(root):
    (place,) = FolderWatch(root).state().places
    return place


def test_runs_of_a_pipeline_are_counted_and_the_best_is_chosen_on_validation_rows(tmp_path):
    runs = tmp_path / "demo" / "runs"
    for seed in (0, 1):
        write_made_up_run(runs, "one", seed=seed, score=0.5 + 0.2 * seed)
        write_made_up_run(runs, "two", seed=seed, score=0.55)
    reference = write_made_up_run(runs, "reference", score=0.9)
    path = runs / reference.digest[:16] / "run.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "spec": {**data["spec"], "reference": True}}))
    with keep_progress(tmp_path / "demo", "pipeline", "demo", title="The demo", planned=6) as follower:
        follower.update(
            TrainingState(
                runs=4, total=6, what="training", epoch=3, epochs=9, losses=(0.5, 0.75), work=0.5, seconds=10, heads=20
            )
        )
        wait_until(lambda: only_place(tmp_path).now)  # the file follows within a second
        place = only_place(tmp_path)
    assert (place.path, place.kind, place.title, place.activity) == ("demo", "pipeline", "The demo", "running")
    (count,) = place.counts
    assert (count.done, count.planned, count.beside) == (4, 6, "and 1 reference model")
    assert (place.best.name, place.best.measure, place.best.over) == ("one", "accuracy", 2)
    assert place.best.score == pytest.approx(0.6)
    assert place.now == ("Training, epoch 3 of 9, training loss 0.500, validation loss 0.750, 2.0 heads/s, 0:10 left.",)
    ended = only_place(tmp_path)
    assert (ended.activity, ended.now) == ("done", ())


def test_an_error_that_ended_a_call_is_shown(tmp_path):
    write_made_up_run(tmp_path / "runs")
    with pytest.raises(ValueError, match="too large"), keep_progress(tmp_path, "pipeline", "demo", planned=6):
        raise ValueError("the learning rate is too large")
    place = only_place(tmp_path)
    assert (place.activity, place.path) == ("failed", ".")
    assert place.problems == ("ValueError: the learning rate is too large",)


def test_blocks_and_statuses_of_a_cache_are_counted_and_a_build_is_seen_by_its_file(cache, tmp_path):
    (place,) = FolderWatch(tmp_path).state().places
    assert (place.kind, place.activity, place.title) == ("cache", "done", "features.zarr")
    (stream,) = place.cache.streams
    assert (stream.blocks_done, stream.blocks) == (3, 3)
    assert stream.rows == {"ok": 20, "no_detection": 1, "unreadable": 1, "failed": 1}
    chunk = cache / "streams" / "net" / "status" / "c.1.0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:5])  # half written
    with hold_lock(cache):
        (place,) = FolderWatch(tmp_path).state().places
        assert place.activity == "running"
        assert place.cache.builder.startswith(f"process {os.getpid()} on ")
        assert place.cache.streams[0].blocks_done == 2
    assert only_place(tmp_path).activity == "unfinished"
    chunk.write_bytes(b"\0" * 8 + whole[8:])  # rows that were given back are pending
    assert only_place(tmp_path).cache.streams[0].blocks_done == 2


def test_a_build_whose_process_is_gone_is_not_running(cache, tmp_path):
    claim = {"host": os.uname().nodename, "pid": 2**22 + 1, "since": ""}
    (tmp_path / "features.lock").write_text(json.dumps(claim))
    (cache / "streams" / "net" / "status" / "c.1.0").unlink()
    assert only_place(tmp_path).activity == "unfinished"


def test_a_damaged_cache_is_a_problem_and_not_an_error(cache, tmp_path):
    (cache / "zarr.json").write_text("{")
    (problem,) = only_place(tmp_path).problems
    assert "zarr.json: damaged" in problem


def is_searching(folder):
    (place,) = (place for place in FolderWatch(folder).state().places if place.path == "small")
    return place.now and place.now[0].startswith("Searching, ")


@pytest.fixture(scope="module")
def running_sweep(tmp_path_factory, write_cache):
    """A real sweep in a process of its own, held up once a third of its heads are trained; (process, folder)."""
    folder = tmp_path_factory.mktemp("running")
    cache = write_cache(folder / "cache" / "features.zarr", **planted())
    script = [sys.executable, str(SWEEP_TESTS / "sweep_script.py"), str(cache), str(folder / "small"), "1", "9"]
    with subprocess.Popen(script, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: process.poll() is not None or finished_groups(folder / "small"))
        wait_until(lambda: process.poll() is not None or is_searching(folder))  # its file follows within a second
        assert process.poll() is None
        yield process, folder
        process.kill()


def test_a_running_sweep_is_followed_without_a_lock_and_one_that_was_killed_is_told_from_it(running_sweep):
    process, folder = running_sweep
    looks = FolderWatch(folder)
    before = sorted(path for path in folder.rglob("*"))
    place = next(place for place in looks.state().places if place.path == "small")
    assert (place.kind, place.title, place.activity) == ("sweep", "small", "running")
    assert (place.counts[0].what, place.counts[0].done, place.counts[0].planned) == ("searched runs", 12, HEADS)
    assert place.best.measure == "macro F1"
    assert place.best.over == 2
    assert place.now[0].startswith("Searching, ")
    assert sorted(path for path in folder.rglob("*") if ".partial" not in path.name) == before
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    place = next(place for place in FolderWatch(folder).state().places if place.path == "small")
    assert place.activity == "stopped"
    assert place.problems[0].startswith(f"Its process ({process.pid} on ")
    assert place.counts[0].done == 12
    assert [each.path for each in FolderWatch(folder).state().places if each.kind == "cache"] == ["cache/features.zarr"]


def test_a_nested_sweep_plans_its_search_once_for_each_outer_fold(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / f"{'0' * 16}.jsonl").write_text("")
    with keep_progress(tmp_path, "sweep", "nested", parts=5) as follower:
        follower.update(TrainingState(runs=12, total=36, what="searching"))
    (searched,) = only_place(tmp_path).counts
    assert (searched.done, searched.planned) == (12, 180)


def test_final_runs_of_a_sweep_are_those_that_it_planned_and_reference_models_are_beside_them(tmp_path):
    write_made_up_run(tmp_path / "runs")
    with keep_progress(tmp_path, "sweep", "question") as follower, followed(follower):
        plan_more_runs(2)
        plan_more_runs(1)  # a fallback
        report_progress(TrainingState(runs=5, total=5, what="training"))  # reference models
    (_, finals) = only_place(tmp_path).counts
    assert (finals.what, finals.done, finals.planned) == ("final runs", 1, 3)
    plan_more_runs(1)  # without a call it is nothing


def test_claims_of_living_processes_say_that_a_sweep_without_a_file_of_progress_runs(tmp_path):
    with ResultsFolder(tmp_path).claim(["a" * 64]):
        assert only_place(tmp_path).activity == "running"
    assert only_place(tmp_path).activity == "idle"


def test_runs_that_are_damaged_half_written_or_gone_are_passed_over(tmp_path):
    runs = tmp_path / "runs"
    record = write_made_up_run(runs, "whole")
    for name, text in {"1" * 16: "{", "2" * 16: '{"format": 99}', "3" * 16: "[]"}.items():
        (runs / name).mkdir()
        (runs / name / "run.json").write_text(text)
    (runs / ("4" * 16)).mkdir()  # being written, or being removed
    (runs / f"{'5' * 16}.diverged.json").write_text("{}")
    looks = FolderWatch(tmp_path)
    place = looks.state().places[0]
    assert place.counts[0].done == 1
    assert place.problems[0] == "1 run diverged."
    assert len(place.problems) == 4
    assert "this emofuse reads format 1" in " ".join(place.problems)
    shutil.rmtree(runs / record.digest[:16])
    looks._next_look = 0.0
    assert looks.state().places[0].counts[0].done == 0
    shutil.rmtree(tmp_path / "runs")
    looks._next_look = 0.0
    assert looks.state().places[0].counts[0].done == 0  # the walk comes later


def test_a_file_is_read_once_and_a_look_reads_for_a_bounded_time(tmp_path, monkeypatch):
    for seed in range(6):
        write_made_up_run(tmp_path / "runs", seed=seed)
    reads = []
    from emofuse.ui import readers

    read = readers.read_record
    monkeypatch.setattr(readers, "read_record", lambda folder: reads.append(folder) or read(folder))
    monkeypatch.setattr(watch, "SECONDS_OF_READING", 0.0)
    looks = FolderWatch(tmp_path)
    for look in range(1, 9):
        looks._next_look = 0.0
        place = looks.state().places[0]
        assert (place.counts[0].done, place.unread) == (min(look, 6), max(0, 6 - look))
    assert len(reads) == 6


def test_looks_of_several_browsers_are_shared(tmp_path):
    now = [0.0]
    looks = FolderWatch(tmp_path, clock=lambda: now[0])
    first = looks.state()
    assert looks.state() is first
    now[0] = 1.1
    assert looks.state() is not first


def test_a_budget_always_allows_the_first_file():
    now = [0.0]
    budget = Budget(0.0, clock=lambda: now[0])
    assert [budget.allows_another(), budget.allows_another()] == [True, False]


def test_results_of_former_releases_are_shown(tmp_path):
    for version in (1, 2):
        with tarfile.open(Path(__file__).parents[1] / "fixtures" / f"former_{version}.tar.gz") as archive:
            archive.extractall(tmp_path / f"former_{version}", filter="data")
    states = FolderWatch(tmp_path).state().places
    assert {state.path.split("/")[0] for state in states} == {"former_1", "former_2"}
    assert not [problem for state in states for problem in state.problems]
    assert any(state.best for state in states)


def test_links_that_lead_out_of_the_folder_or_in_circles_are_not_followed(tmp_path):
    write_made_up_run(tmp_path / "elsewhere" / "runs")
    root = tmp_path / "root"
    write_made_up_run(root / "own" / "runs")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "circle").symlink_to(root)
    assert [work.path for work in find_places(root).works] == [root / "own"]


def test_a_walk_that_is_too_long_ends_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "MOST_FOLDERS", 3)
    for name in "abcdef":
        (tmp_path / name).mkdir()
    assert find_places(tmp_path).notes == (
        "Only the first 3 folders are looked at. Name a folder with fewer to see the others.",
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "just now"),
        (47, "40 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (7300, "2 h ago"),
        (3e5, "3 days ago"),
    ],
)
def test_ages_are_rounded_so_that_the_page_seldom_changes(seconds, words):
    assert format_age(seconds) == words


@pytest.mark.parametrize(
    ("done", "planned", "words"),
    [(1, None, "run"), (2, None, "runs"), (0, None, "runs"), (1, 3, "runs"), (1, 1, "run")],
)
def test_one_of_something_is_not_a_plural(done, planned, words):
    assert Count("runs", done, planned).words == words
