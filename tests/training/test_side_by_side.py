"""Groups that train side by side: the same results as one after the other, errors, interrupts, memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from emofuse.progress import TrainingState, followed
from emofuse.results import list_runs, read_predictions, read_weights, run_dir
from emofuse.specs import RunSpec, parse_spec
from emofuse.training import side_by_side
from emofuse.training.runs import train_runs
from emofuse.training.side_by_side import SideBySide, beside, groups_at_once, stop_if_asked


@dataclass(frozen=True)
class Group:
    name: str
    seconds: float = 1.0
    memory_bytes: int = 1


# ------------------------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize(
    ("seconds", "cores", "expected"),
    [
        ([10.0, 10.0], 2, 2),
        ([8.0, 17.0], 2, 2),
        ([2.0, 60.0], 2, 1),  # the long one would have one core for nearly all of the time
        ([10.0] * 8, 8, 8),
        ([10.0] * 3, 8, 3),
        ([10.0], 8, 1),
        ([0.1] * 50, 8, 1),  # too short to gain anything
        ([10.0, 10.0], 1, 1),
        ([], 8, 1),
    ],
)
def test_groups_train_side_by_side_where_all_of_them_end_sooner(seconds, cores, expected):
    assert groups_at_once(seconds, cores) == expected


# ------------------------------------------------------------------------------------------------- the driver


def drive(train, groups, *, at_once=2, memory_bytes=10, on_report=lambda *_: None):
    trainer = SideBySide(train, on_report, at_once, memory_bytes)
    return trainer.run(partial(next, iter(groups), None))


@pytest.mark.parametrize("at_once", [1, 3])
def test_reports_and_results_come_to_the_thread_that_drives(at_once):
    threads, reports = set(), []

    def train(group, report):
        threads.add(threading.current_thread())
        for epoch in range(3):
            report(epoch, group.name)
        return group.name.upper()

    def on_report(group, epoch, name):
        assert threading.current_thread() is threading.main_thread()
        reports.append((group.name, epoch, name))

    groups = [Group(name) for name in "abcde"]
    results = dict(drive(train, groups, at_once=at_once, on_report=on_report))
    assert results == {group: group.name.upper() for group in groups}
    assert sorted(reports) == [(name, epoch, name) for name in "abcde" for epoch in range(3)]
    assert (threading.main_thread() in threads) == (at_once == 1)


def test_groups_that_need_more_memory_together_wait_for_each_other():
    running, most = [], []

    def train(group, _):
        running.append(group)
        most.append(sum(each.memory_bytes for each in running))
        time.sleep(0.02)
        running.remove(group)

    sizes = [4, 5, 4, 20, 1, 1]  # one alone may take more than there is
    groups = [Group(str(number), memory_bytes=size) for number, size in enumerate(sizes)]
    assert len(list(drive(train, groups, at_once=3))) == len(sizes)
    assert max(most) == 20
    assert max(each for each in most if each != 20) <= 10


def test_groups_that_follow_from_others_are_trained_too():
    pending = deque([Group("first"), Group("long")])
    done = []

    def train(group, _):
        time.sleep(0.05 * (group.name == "long"))

    trainer = SideBySide(train, lambda *_: None, 2, 10)
    for group, _ in trainer.run(lambda: pending.popleft() if pending else None):
        done.append(group.name)
        if group.name == "first":
            pending.append(Group("second"))
    assert done == ["first", "second", "long"]


def until_stopped(begun):
    def train(group, report):
        if group.name == "bad":
            begun.wait(5)
            raise MemoryError("no room")
        begun.set()
        report(1)
        for _ in range(1000):
            time.sleep(0.005)
            stop_if_asked()
        raise AssertionError("it was never asked to stop")

    return train


def test_an_error_of_one_group_ends_the_others():
    with pytest.raises(MemoryError, match="no room"):
        list(drive(until_stopped(threading.Event()), [Group("bad"), Group("good")]))
    assert not [thread for thread in threading.enumerate() if thread.name == "emofuse-group"]


def test_an_interrupt_of_the_driver_ends_all_groups():
    def interrupt(*_):
        raise KeyboardInterrupt

    groups = [Group("a"), Group("b")]
    with (
        pytest.raises(KeyboardInterrupt),
        closing(drive(until_stopped(threading.Event()), groups, on_report=interrupt)) as each,
    ):
        list(each)
    assert not [thread for thread in threading.enumerate() if thread.name == "emofuse-group"]


# ------------------------------------------------------------------------------------------------- runs


def spec_of(name, **changes):
    plain = {
        "name": name,
        "features": {"streams": ["resnet50", "action_units"]},
        "head": {"kind": "concat", "embed_dim": 8, "width": 8, "depth": 1},
        "train": {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2},
    }
    return parse_spec(RunSpec, {**plain, **changes}, "test")


SPECS = [
    spec_of("plain"),
    spec_of("deep", head={"kind": "concat", "embed_dim": 8, "width": 8, "depth": 2}),
    spec_of(
        "ensemble", ensemble={"seeds": [0, 1]}, refit="train_val", head={"kind": "gated", "embed_dim": 8, "width": 8}
    ),
    spec_of("solved", head={"kind": "logistic"}),
]


@pytest.fixture
def two_cores(monkeypatch):
    """Torch has two threads, and no group is too short; returns the groups that train at the same time."""
    before, most = torch.get_num_threads(), []
    torch.set_num_threads(2)
    monkeypatch.setattr(side_by_side, "SHORTEST_S", 0.0)
    start = SideBySide._start

    def counting(self, group):
        thread = start(self, group)
        most.append(len(self._running))
        return thread

    monkeypatch.setattr(SideBySide, "_start", counting)
    yield most
    torch.set_num_threads(before)


def assert_same(first, second, atol=0.0):
    ours, theirs = (
        {record.name: run_dir(runs, record.digest) for record in list_runs(runs)} for runs in (first, second)
    )
    assert ours.keys() == theirs.keys() == {spec.name for spec in SPECS}
    for name, folder in ours.items():
        weights, others = read_weights(folder), read_weights(theirs[name])
        probs, expected = (read_predictions(each).probs for each in (folder, theirs[name]))
        for key in weights | others:
            np.testing.assert_allclose(weights[key], others[key], rtol=0, atol=atol)
        np.testing.assert_allclose(probs, expected, rtol=0, atol=atol)


def test_runs_have_the_same_bits_side_by_side_and_after_an_interrupt(plant_cache, tmp_path, two_cores):
    cache = plant_cache(tmp_path / "features.zarr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "SHORTEST_S", 1e9)
        torch.set_num_threads(1)  # sums over two threads may round differently
        train_runs(cache, SPECS, tmp_path / "in_turn", device="cpu")
    torch.set_num_threads(2)
    assert not two_cores
    states, epochs = [], []

    class Follower:
        def update(self, state):
            if isinstance(state, TrainingState):
                states.append(state)

    with followed(Follower()):
        train_runs(cache, SPECS, tmp_path / "beside", device="cpu", on_epoch=lambda *entry: epochs.append(entry))
    assert max(two_cores) == 2
    assert_same(tmp_path / "beside", tmp_path / "in_turn")
    assert {index for _, entries in epochs for index in entries} == {0, 1, 2, 3}
    assert states[-1].runs == states[-1].total == 4
    assert [state.work for state in states] == sorted(state.work for state in states)

    def interrupt(epoch, _):
        if epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_runs(cache, SPECS, tmp_path / "again", device="cpu", on_epoch=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name == "emofuse-group"]
    train_runs(cache, SPECS, tmp_path / "again", device="cpu")
    assert_same(tmp_path / "again", tmp_path / "in_turn", atol=1e-5)  # what is left may have both cores


# ------------------------------------------------------------------------------------------------- other work


@pytest.mark.parametrize("at_once", [False, True])
def test_other_work_is_done_beside_and_its_errors_are_raised_where_it_is_asked_for(at_once):
    def fail():
        raise ValueError("broken")

    with beside(lambda: threading.current_thread().name, at_once=at_once) as wait:
        assert (wait() == "MainThread") != at_once
    with beside(fail, at_once=at_once) as wait, pytest.raises(ValueError, match="broken"):
        wait()


def test_other_work_stops_when_the_block_ends_early():
    def endless():
        while True:
            stop_if_asked()
            time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt), beside(endless, at_once=True):
        raise KeyboardInterrupt
    assert not [thread for thread in threading.enumerate() if thread.name == "emofuse-beside"]
