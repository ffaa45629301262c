"""The progress of a call on disk: what it says while the call runs, how it ends, and that nothing depends on it."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from emofuse.progress import BuildState, StepState, TrainingState, followed, report_progress
from emofuse.results.progress import keep_progress, read_call, read_calls


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def only_call(out):
    (call,) = read_calls(out)
    return call


def test_a_call_says_what_it_does_and_how_it_ended(out):
    with keep_progress(out, "pipeline", "demo", title="A title", planned=15) as follower, followed(follower):
        report_progress(BuildState(rows=8, total=64, seconds=2.0, counts={"lbp": {"ok": 8}}))
        report_progress(TrainingState(runs=3, total=15, what="training", epoch=2, epochs=9))
        end = time.monotonic() + 600
        while not (calls := read_calls(out)) or calls[0].now != "training":
            assert time.monotonic() < end
            time.sleep(0.05)
        running = calls[0]
    assert (running.kind, running.name, running.title, running.planned) == ("pipeline", "demo", "A title", 15)
    assert running.states["building"]["rows"] == 8
    assert running.states["training"]["epoch"] == 2
    assert running.is_alive(time.time())
    done = only_call(out)
    assert (done.ended, done.error) == ("done", "")
    assert not done.is_alive(time.time())


@pytest.mark.parametrize(
    ("error", "ended", "message"),
    [(ValueError("no rows"), "failed", "ValueError: no rows"), (KeyboardInterrupt(), "interrupted", "")],
)
def test_an_error_and_an_interrupt_are_kept_and_raised(out, error, ended, message):
    with pytest.raises(type(error)), keep_progress(out, "sweep", "question"):
        raise error
    assert (only_call(out).ended, only_call(out).error) == (ended, message)


def test_a_step_that_has_ended_is_no_news_any_more(out):
    with keep_progress(out, "sweep", "question") as follower:
        follower.update(StepState("planning"))
        follower.update(StepState("planning", ended=True))
    assert only_call(out).states == {}


def test_states_reach_the_follower_of_the_context_too(out):
    seen = []

    class Follower:
        def update(self, state):
            seen.append(state)

    with followed(Follower()), keep_progress(out, "sweep", "question") as follower, followed(follower):
        report_progress(StepState("planning"))
    assert seen == [StepState("planning")]


def test_a_call_that_fails_before_it_has_results_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no such dataset"), keep_progress(tmp_path / "out", "pipeline", "demo"):
        raise ValueError("no such dataset")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_refuses_the_file_does_not_end_the_work(out):
    (out / "progress").write_text("a file is in the way")
    with keep_progress(out, "pipeline", "demo") as follower:
        follower.update(StepState("planning"))
    assert read_calls(out) == []


def test_the_next_call_removes_the_files_of_calls_that_have_ended_and_leaves_those_of_others(out):
    with keep_progress(out, "sweep", "first"):
        pass
    with keep_progress(out, "sweep", "second"), keep_progress(out, "sweep", "third"):
        pass
    assert {call.name for call in read_calls(out)} == {"second", "third"}


def test_a_process_that_is_gone_is_not_alive_though_its_file_says_no_end(out):
    with keep_progress(out, "sweep", "question"):
        pass
    call = replace(only_call(out), ended=None)
    assert call.is_alive(time.time())
    assert not replace(call, pid=2**22 + 1).is_alive(time.time())
    later_process_with_its_id = replace(call, process_started=call.process_started - 1000)
    assert not later_process_with_its_id.is_alive(time.time())


def test_a_process_of_another_machine_is_alive_while_it_writes(out):
    with keep_progress(out, "sweep", "question"):
        pass
    call = replace(only_call(out), ended=None, host="elsewhere")
    assert call.is_alive(call.written + 30)
    assert not call.is_alive(call.written + 90)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "kind": "sweep"}', "null"])
def test_a_file_that_is_damaged_or_of_another_format_is_passed_over(tmp_path, text):
    path = tmp_path / "0123456789abcdef.json"
    path.write_text(text)
    assert read_call(path) is None
    assert read_call(tmp_path / "gone.json") is None


def test_a_file_with_texts_in_place_of_numbers_is_passed_over_and_further_keys_are_no_fault(out):
    with keep_progress(out, "sweep", "question"):
        pass
    (path,) = (out / "progress").iterdir()
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "of_a_later_version": 1}))
    assert read_call(path).name == "question"
    for key, value in {"pid": "x", "states": [], "kind": "cache", "planned": "many", "title": 3}.items():
        path.write_text(json.dumps({**data, key: value}))
        assert read_call(path) is None
    assert list((out / "progress").iterdir()) == [path]
