"""The search alone, without final runs: every kind of it, and what a folder that is half full makes of it."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_question import add_sequence_and_map, planted, small_sweep

import emofuse
from emofuse.cache.reader import open_cache
from emofuse.progress import TrainingState, followed
from emofuse.sweep.choice import choose
from emofuse.sweep.configurations import StreamType
from emofuse.sweep.groups import halving_of, plan_search, planned_groups, searched_runs
from emofuse.sweep.rows import ResultsFolder, RunRow
from emofuse.sweep.search import ConfigurationSearch, SearchResult
from emofuse.sweep.searching import stream_types
from emofuse.sweep.strategies import make_strategy
from emofuse.sweep.trainers import LocalTrainer
from emofuse.training import side_by_side
from emofuse.training.data import TrainingData
from emofuse.training.machine import Machine

TYPES = {"noise": StreamType("backbone"), "signal": StreamType("backbone")}
RATES = [1.0e-3, 3.0e-3, 1.0e-2, 3.0e-2]
HALVED = {
    "factors": {"streams": "all", "learning_rate": RATES},
    "halving": {"first_epochs": 1, "factor": 2, "bracket": 4},
}
TPE = {
    "factors": {"streams": "all", "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
    "search": {"kind": "tpe", "trials": 12, "batch": 4, "startup": 4},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_cache):
    cache = open_cache(write_cache(tmp_path_factory.mktemp("cache") / "features.zarr", **planted()))
    return TrainingData.of(cache, small_sweep().base.split)


@pytest.fixture
def search(data):
    def found(spec, folder: Path, progress=None, asked=None) -> SearchResult:
        trainer = LocalTrainer(data, Machine.of(torch.device("cpu")))
        with followed(progress):
            return ConfigurationSearch(spec, asked or make_strategy(spec, TYPES), ResultsFolder(folder), trainer).run()

    return found


def table(folder: Path) -> list[RunRow]:
    rows = [replace(row, seconds=0.0, created="") for row in ResultsFolder(folder).rows()]
    return sorted(rows, key=lambda row: row.digest)


def forget_a_group(folder: Path) -> int:
    """Removes the file of one group; how many rows it had."""
    path = min((folder / "rows").iterdir())
    rows = len(path.read_text().splitlines())
    path.unlink()
    return rows


@pytest.mark.parametrize("kind", [HALVED, TPE], ids=["halving", "tpe"])
def test_a_search_again_trains_nothing_and_a_lost_group_comes_back_the_same(search, tmp_path, kind):
    spec = small_sweep(**kind)
    first = search(spec, tmp_path)
    heads = sum(len(each.rows) for each in first.scored)
    assert first.trained == heads == len(table(tmp_path))
    whole = table(tmp_path)
    again = search(spec, tmp_path)
    assert again.trained == 0
    assert again.scored == first.scored
    assert again.describe()[0].endswith("heads, all trained before or elsewhere: nothing to do")
    lost = forget_a_group(tmp_path)
    assert search(spec, tmp_path).trained == lost
    assert table(tmp_path) == whole


def test_a_run_on_vectors_is_trained_once_however_many_stems_are_tried(tmp_path, write_cache):
    path = write_cache(tmp_path / "features.zarr", **planted())
    add_sequence_and_map(path)
    cache = open_cache(path)
    subsets = [["signal"], ["signal", "sequence"], ["map"]]
    stems = {"temporal": ["mean", "lstm"], "spatial": ["mean", "cnn"], "stem_width": [4, 8]}
    spec = small_sweep(factors={"streams": subsets, **stems}, baseline=["signal"])
    trainer = LocalTrainer(TrainingData.of(cache, spec.base.split), Machine.of(torch.device("cpu")))
    search = make_strategy(spec, stream_types(cache))
    found = ConfigurationSearch(spec, search, ResultsFolder(tmp_path / "sweep"), trainer).run()
    assert Counter(tuple(each.configuration.run.features.streams) for each in found.scored) == {
        ("signal",): 1,
        ("sequence", "signal"): 3,  # the mean, and an lstm of two widths
        ("map",): 3,
    }
    assert found.trained == 7 * 2


def test_halving_ends_the_worst_of_each_bracket_early(search, tmp_path):
    found = search(small_sweep(**HALVED), tmp_path)
    assert Counter(row.ended for row in table(tmp_path)) == {"halved": 9 * 2, "epochs": 3 * 2}
    assert Counter(each.halved for each in found.scored) == {2: 9, 0: 3}
    for row in table(tmp_path):
        assert row.last_epoch == (4 if row.ended == "epochs" else row.last_epoch)
        assert row.last_epoch in {1, 2, 4}


def test_rows_of_a_bracket_are_found_for_the_same_bracket_alone(data):
    """Who goes on depends on whom it is compared with."""
    plain, halved = small_sweep(factors=HALVED["factors"]), small_sweep(**HALVED)
    others = small_sweep(**{**HALVED, "halving": {"first_epochs": 1, "factor": 2, "bracket": 3}})
    by_loss = small_sweep(**HALVED, select="loss")
    digests = [
        {run.digest for run in searched_runs(data, make_strategy(spec, TYPES).ask(), spec)}
        for spec in (plain, halved, others, by_loss)
    ]
    assert [len(of) for of in digests] == [24] * 4
    assert all(not one & other for index, one in enumerate(digests) for other in digests[:index])


def test_a_group_of_brackets_is_cut_between_them(data):
    spec = small_sweep(**HALVED)
    runs = searched_runs(data, make_strategy(spec, TYPES).ask(), spec)
    machine = Machine.of(torch.device("cpu"))
    (group,) = planned_groups(plan_search(data, runs, spec, machine), runs, spec)
    assert len(group.runs) == 24
    part = group.only(frozenset({runs[0].digest}))
    brackets = halving_of(spec).brackets([run.spec for run in part.runs])
    assert (len(part.runs), len(brackets)) == (8, 1)
    assert part.seconds == pytest.approx(group.seconds / 3)
    whole = small_sweep(factors=HALVED["factors"])
    runs = searched_runs(data, make_strategy(whole, TYPES).ask(), whole)
    (group,) = planned_groups(plan_search(data, runs, whole, machine), runs, whole)
    assert group.only(frozenset({runs[3].digest})).runs == (runs[3],)


def test_a_configuration_that_diverges_is_a_row_and_has_no_score(search, tmp_path):
    spec = small_sweep(factors={"streams": "all", "learning_rate": [1.0e-3, 1.0e38]})
    found = search(spec, tmp_path)
    wild = [row for row in table(tmp_path) if row.ended == "diverged"]
    assert {row.settings["learning_rate"] for row in wild} == {1e38}
    assert len(wild) == 6
    choice = choose(found.scored, "macro_f1", ("streams",), ("noise",))
    assert len(choice.lost) == len(choice.finalists) == 3


def test_a_tpe_search_is_told_every_score_before_it_goes_on(search, tmp_path):
    found = search(small_sweep(**TPE), tmp_path)
    assert len(found.scored) == 12
    assert len({each.configuration.key for each in found.scored}) == 12
    assert len(list((tmp_path / "rows").iterdir())) >= 3


class Follower:
    def __init__(self):
        self.states = []

    def update(self, state):
        if isinstance(state, TrainingState):
            self.states.append(state)


def test_what_a_search_has_yet_to_ask_for_is_work_that_is_left(search, tmp_path):
    follower = Follower()
    search(small_sweep(**TPE), tmp_path / "whole", follower)
    after = {runs: [state.work for state in follower.states if state.runs == runs] for runs in (8, 16, 24)}
    assert after[8][0] == pytest.approx(1 / 3, abs=0.02)  # streams differ, so batches are not quite equal
    assert after[16][0] == pytest.approx(2 / 3, abs=0.02)
    assert after[24][-1] == 1.0
    first = next(state for state in follower.states if state.runs == 8)
    assert first.seconds_left == pytest.approx(2 * first.seconds, rel=0.1)


def test_what_is_found_is_no_work_and_what_comes_after_it_is(search, tmp_path):
    search(small_sweep(**TPE), tmp_path)
    for path in sorted((tmp_path / "rows").iterdir(), key=lambda path: path.stat().st_mtime_ns)[1:]:
        path.unlink()
    follower = Follower()
    search(small_sweep(**TPE), tmp_path, follower)
    assert follower.states[0].runs == 8
    half = next(state for state in follower.states if state.runs == 16)
    assert half.work == pytest.approx(1 / 2, abs=0.02)
    assert follower.states[-1].work == 1.0


def test_a_halved_group_is_done_when_its_last_rung_is(search, tmp_path):
    follower = Follower()
    search(small_sweep(**HALVED), tmp_path, follower)
    assert [state.heads for state in follower.states] == [0] * 5 + [24]  # a state an epoch, in one group
    before, *epochs, last = [state.work for state in follower.states]
    rows = [24, 12, 6, 6]  # heads of each epoch
    assert (before, last) == (0.0, 1.0)
    assert epochs == pytest.approx([sum(rows[: epoch + 1]) / sum(rows) for epoch in range(4)])


def test_that_there_is_less_to_try_than_it_seemed_is_told(search, tmp_path):
    class Fewer:
        """Knows only when it is asked again that there is nothing more."""

        def __init__(self, batch):
            self._batches = [batch, []]
            self.total, self.notes = 5 * len(batch), ()

        def ask(self):
            batch = self._batches.pop(0)
            self.total = self.total if batch else 3
            return batch

        def tell(self, scores):
            assert len(scores) == 3

    spec = small_sweep(factors={"streams": "all"})
    follower = Follower()
    search(spec, tmp_path, follower, Fewer(make_strategy(spec, TYPES).ask()))
    *before, last = [(state.runs, state.total) for state in follower.states]
    assert before[-1] == (6, 30)
    assert last == (6, 6)
    assert follower.states[-1].work == 1.0


def test_a_random_search_trains_what_it_draws(search, tmp_path):
    spec = small_sweep(factors=TPE["factors"], search={"kind": "random", "trials": 5, "seed": 1})
    found = search(spec, tmp_path)
    assert len(found.scored) == 5
    assert found.describe()[0].startswith("5 configurations, 10 heads trained in ")


def test_what_others_have_trained_is_said(search, tmp_path):
    few = small_sweep(factors={"streams": "all", "learning_rate": [1e-3]})
    more = small_sweep(factors={"streams": "all", "learning_rate": [1e-3, 1e-2]})
    search(few, tmp_path)
    assert ", 6 of 12 done before or elsewhere" in search(more, tmp_path).describe()[0]


def test_what_searches_and_chooses_imports_nothing_that_reads_test_labels():
    """`TrainingData` is made outside of them; a cache, the scoring of test rows and saved runs are out of reach."""
    package = Path(emofuse.__file__).parent / "sweep"
    chooses = [
        "choice",
        "configurations",
        "groups",
        "rows",
        "search",
        "search_progress",
        "strategies",
        "table",
        "tpe",
        "trainers",
    ]
    forbidden = ("emofuse.cache", "emofuse.training.runs", "emofuse.training.scoring", "emofuse.results", "zarr")
    for module in chooses:
        tree = ast.parse((package / f"{module}.py").read_text())
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert any(name and name.startswith("emofuse") for name in names)
        assert not [name for name in names if name and name.startswith(forbidden)], module


@pytest.mark.parametrize("changes", [{}, HALVED], ids=["all", "halving"])
def test_groups_side_by_side_give_the_rows_of_groups_in_turn(search, tmp_path, monkeypatch, changes):
    spec, threads = small_sweep(**changes), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        search(spec, tmp_path / "in_turn")
        torch.set_num_threads(2)
        monkeypatch.setattr(side_by_side, "SHORTEST_S", 0.0)
        monkeypatch.setattr(side_by_side.SideBySide, "_memory", lambda _: 0)
        search(spec, tmp_path / "beside")
    finally:
        torch.set_num_threads(threads)
    assert table(tmp_path / "beside") == table(tmp_path / "in_turn")
