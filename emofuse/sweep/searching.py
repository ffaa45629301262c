"""The search of a sweep: batch by batch and group by group, until every run has its row; no run is trained twice."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from emofuse.progress import TrainingState, report_progress, step
from emofuse.specs import SweepSpec
from emofuse.sweep.choice import ScoredConfiguration, mean_and_error, objective, score_configurations
from emofuse.sweep.configurations import Configuration
from emofuse.sweep.groups import (
    OnRows,
    SearchedRun,
    SearchGroup,
    plan_search,
    planned_groups,
    searched_runs,
    train_rows,
)
from emofuse.sweep.search import Search
from emofuse.sweep.store import SECONDS_BETWEEN_LOOKS, ResultsFolder, RunRow
from emofuse.training.data import TrainingData
from emofuse.training.machine import Machine
from emofuse.training.rates import Rates, measure_rates


class Trainer(Protocol):
    """Trains groups: this process, or workers elsewhere.

    Attributes:
        data: the rows as the search may see them.
        machine: where and how precisely heads train.
    """

    data: TrainingData
    machine: Machine

    @property
    def rates(self) -> Rates:
        """Of the machine, measured when asked for: only estimates that are shown need them."""
        ...

    def train(self, groups: Iterator[SearchGroup], on_rows: OnRows) -> Iterator[tuple[SearchGroup, list[RunRow]]]:
        """Rows of all groups, as they come; a group is asked for when there is room for it."""
        ...


@dataclass
class LocalTrainer:
    """Trains in this process, one group after another."""

    data: TrainingData
    machine: Machine

    @property
    def rates(self) -> Rates:
        """Measured now, in a moment."""
        return measure_rates(self.machine)

    def train(self, groups: Iterator[SearchGroup], on_rows: OnRows) -> Iterator[tuple[SearchGroup, list[RunRow]]]:
        """Rows of all groups, in their order."""
        return ((group, train_rows(self.data, group, self.machine, on_rows=on_rows)) for group in groups)


@dataclass(frozen=True)
class Found:
    """What a call's search has come to.

    Attributes:
        scored: every configuration, in the order of the search.
        trained: heads that were trained by this call.
        seconds: that it trained and waited.
        notes: of the search, one sentence each.
    """

    scored: tuple[ScoredConfiguration, ...]
    trained: int
    seconds: float
    notes: tuple[str, ...]

    def describe(self) -> list[str]:
        """What was done, one line each."""
        heads = sum(len(each.rows) for each in self.scored)
        if self.trained == 0:
            done = f"{heads} heads, all trained before or elsewhere: nothing to do"
        else:
            speed = self.trained / self.seconds
            rest = f", {heads - self.trained} of {heads} done before or elsewhere" if self.trained < heads else ""
            done = f"{self.trained} heads trained in {self.seconds:.1f} s ({speed:.1f} heads/s){rest}"
        return [f"{len(self.scored)} configurations, {done}", *self.notes]


class Searching:
    """One call's search.

    Args:
        spec: the sweep.
        search: its configurations.
        folder: of the rows.
        trainer: of groups.
    """

    def __init__(self, spec: SweepSpec, search: Search, folder: ResultsFolder, trainer: Trainer) -> None:
        self._spec = spec
        self._search = search
        self._folder = folder
        self._trainer = trainer
        self._claims: dict[frozenset[str], ExitStack] = {}
        self._tally = _Tally(spec, search)

    def search(self) -> Found:
        """Trains what is missing and scores every configuration.

        Raises:
            EmofuseError: whatever training or the folder raises; finished groups are kept.
        """
        asked: list[Configuration] = []
        rows: dict[str, list[RunRow]] = {}
        while batch := self._search.ask():
            self._tally.asked += len(batch)
            runs = searched_runs(self._trainer.data, batch, self._spec)
            found = self._train_missing(runs)
            for run in runs:
                rows.setdefault(run.configuration.key, []).append(found[run.digest])
            scored = score_configurations(batch, rows, self._spec.select)
            self._search.tell({each.configuration.key: objective(each.score, self._spec.select) for each in scored})
            asked += batch
        self._tally.end()
        scored = score_configurations(asked, rows, self._spec.select)
        return Found(tuple(scored), self._tally.heads, self._tally.seconds, self._search.notes)

    def _train_missing(self, runs: Sequence[SearchedRun]) -> Mapping[str, RunRow]:
        """Rows of these runs, by digest: those that are there, then those trained here or by another process."""
        found = self._find(runs)
        if missing := {run.digest for run in runs} - found.keys():
            with step("planning"):
                plan = plan_search(self._trainer.data, runs, self._spec, self._trainer.machine)
            groups = planned_groups(plan, runs, self._spec)
            self._tally.estimate(len({run.configuration.key for run in runs}), sum(group.seconds for group in groups))
            try:
                while missing:
                    self._train([group.only(frozenset(missing)) for group in groups if group.digests & missing])
                    found = self._find(runs)
                    missing -= found.keys()
                    self._wait(missing)
            finally:
                for claim in self._claims.values():
                    claim.close()
                self._claims.clear()
        return found

    def _train(self, groups: Sequence[SearchGroup]) -> None:
        """Trains and writes those of the groups that nobody else has claimed."""
        self._tally.plan(groups)
        for group, rows in self._trainer.train(self._claimed(groups), self._tally.learned):
            self._folder.write(rows)
            self._claims.pop(group.digests).close()
            self._tally.finish(group, rows)

    def _claimed(self, groups: Sequence[SearchGroup]) -> Iterator[SearchGroup]:
        """Claims one group after another, when it is asked for, and gives what it got."""
        for group in groups:
            claim = ExitStack()
            got = claim.enter_context(self._folder.claim(group.digests))
            if got:
                mine = group.only(got)
                self._claims[mine.digests] = claim
                self._tally.start(group, mine)
                yield mine
            else:
                claim.close()
                self._tally.skip(group)

    def _find(self, runs: Sequence[SearchedRun]) -> dict[str, RunRow]:
        wanted = {run.digest for run in runs}
        found = {row.digest: row for row in self._folder.rows() if row.digest in wanted}
        self._tally.find(found.values())
        return found

    def _wait(self, missing: set[str]) -> None:
        """Waits a moment if all that is missing is being trained by others; what a dead process claimed is free."""
        holders = self._folder.holders(missing)
        if holders and missing <= {digest for holder in holders for digest in holder.digests}:
            self._tally.wait([str(holder) for holder in holders])
            time.sleep(SECONDS_BETWEEN_LOOKS)


@dataclass
class _Tally:
    """What a call has done so far, as whoever follows is told."""

    spec: SweepSpec
    search: Search
    asked: int = 0  # configurations
    heads: int = 0
    seconds: float = 0.0
    _rows: int = 0
    _done_s: float = 0.0  # by the plan's estimates, as all that follow
    _left_s: float = 0.0
    _running_s: float = 0.0
    _estimated: int = 0  # configurations, and the seconds of all of them
    _estimated_s: float = 0.0
    _started: float | None = None
    _found: dict[str, dict[str, RunRow]] = field(default_factory=dict)  # configuration -> digest -> row
    _best: tuple[str, float] | None = None
    _told: int | None = None  # configurations of the whole search, when it was last told

    @property
    def runs_each(self) -> int:
        """Runs of one configuration."""
        return len(self.spec.seeds) * (self.spec.folds.count if self.spec.folds else 1)

    def estimate(self, configurations: int, seconds: float) -> None:
        """Notes what the configurations of a batch take if all are trained: those yet to come will take as much."""
        self._estimated += configurations
        self._estimated_s += seconds

    def plan(self, groups: Sequence[SearchGroup]) -> None:
        """Notes what is to be trained."""
        self._started = self._started or time.perf_counter()
        self._left_s = sum(group.seconds for group in groups)
        self.tell()

    def start(self, planned: SearchGroup, mine: SearchGroup) -> None:
        """Notes that a group begins, or the part of it that nobody else has."""
        self._left_s += mine.seconds - planned.seconds

    def skip(self, group: SearchGroup) -> None:
        """Notes that somebody else has a group."""
        self._left_s -= group.seconds

    def learned(self, rows: int, seconds: float) -> None:
        """Notes what a running group has learned from in an epoch, and its share of the group's estimated seconds."""
        self._rows += rows
        self._running_s += seconds
        self.tell()

    def finish(self, group: SearchGroup, rows: Sequence[RunRow]) -> None:
        """Notes the rows of a group."""
        self._done_s += group.seconds
        self._left_s -= group.seconds
        self._running_s = 0.0
        self.heads += len(rows)
        self.find(rows)
        self.tell()

    def find(self, rows: Iterable[RunRow]) -> None:
        """Notes rows, whoever trained them."""
        for row in rows:
            own = self._found.setdefault(row.configuration, {})
            if row.digest not in own:
                own[row.digest] = row
                if len(own) == self.runs_each:
                    self._compare(list(own.values()))

    def wait(self, holders: Sequence[str]) -> None:
        """Notes that others train what is missing."""
        self.tell(tuple(holders))

    def end(self) -> None:
        """Passes on that there were fewer configurations than it seemed, if that has turned out at the very end."""
        if self._told not in {None, self.search.total}:
            self.tell()

    def tell(self, waiting_for: tuple[str, ...] = ()) -> None:
        """Passes on how far it is."""
        self.seconds = 0.0 if self._started is None else time.perf_counter() - self._started
        to_come = max(0, self.search.total - self.asked)
        later_s = to_come * self._estimated_s / self._estimated if self._estimated else 0.0
        whole = self._done_s + self._left_s + later_s
        self._told = self.search.total
        report_progress(
            TrainingState(
                runs=sum(len(own) for own in self._found.values()),
                total=self.search.total * self.runs_each,
                heads=self.heads,
                rows=self._rows,
                work=min(1.0, (self._done_s + self._running_s) / whole) if whole > 0 else 0.0,
                seconds=self.seconds,
                best=self._best,
                select=self.spec.select,
                waiting_for=waiting_for,
            )
        )

    def _compare(self, rows: Sequence[RunRow]) -> None:
        score, _ = mean_and_error(rows, self.spec.select)
        better, best = objective(score, self.spec.select), objective(self._best and self._best[1], self.spec.select)
        if score is not None and better is not None and (best is None or better > best):
            self._best = rows[0].name, score
