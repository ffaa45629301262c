"""The search of a sweep: a loop over batches of configurations and groups of runs, until every run has its row.

No run is trained twice: rows that are there are used, and runs that another process has claimed are waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from emofuse.progress import step
from emofuse.specs import SweepSpec
from emofuse.sweep.choice import ScoredConfiguration, objective, score_configurations
from emofuse.sweep.configurations import Configuration
from emofuse.sweep.groups import SearchedRun, SearchGroup, plan_search, planned_groups, searched_runs
from emofuse.sweep.rows import SECONDS_BETWEEN_LOOKS, ResultsFolder, RunRow
from emofuse.sweep.search_progress import SearchProgress
from emofuse.sweep.strategies import SearchStrategy
from emofuse.sweep.trainers import Trainer


@dataclass(frozen=True)
class SearchResult:
    """The result of one call's search.

    Attributes:
        scored: every configuration with its score, in the order of the search.
        trained: the number of heads that this call trained.
        seconds: how long this call trained and waited.
        notes: notes of the search strategy, one sentence each.
    """

    scored: tuple[ScoredConfiguration, ...]
    trained: int
    seconds: float
    notes: tuple[str, ...]

    def describe(self) -> list[str]:
        """Return lines that say what was done."""
        heads = sum(len(each.rows) for each in self.scored)
        if self.trained == 0:
            done = f"{heads} heads, all trained before or elsewhere: nothing to do"
        else:
            speed = self.trained / self.seconds
            rest = f", {heads - self.trained} of {heads} done before or elsewhere" if self.trained < heads else ""
            done = f"{self.trained} heads trained in {self.seconds:.1f} s ({speed:.1f} heads/s){rest}"
        return [f"{len(self.scored)} configurations, {done}", *self.notes]


class ConfigurationSearch:
    """The search of one call.

    Args:
        spec: the sweep.
        strategy: what decides which configurations are tried next.
        folder: the folder of the rows.
        trainer: what trains the groups.
    """

    def __init__(self, spec: SweepSpec, strategy: SearchStrategy, folder: ResultsFolder, trainer: Trainer) -> None:
        self._spec = spec
        self._strategy = strategy
        self._folder = folder
        self._trainer = trainer
        self._claims: dict[frozenset[str], ExitStack] = {}
        self._progress = SearchProgress(spec, strategy)

    def run(self) -> SearchResult:
        """Train the runs that have no row, and score every configuration.

        Raises:
            EmofuseError: training or the folder failed. The rows of finished groups are kept.
        """
        asked: list[Configuration] = []
        rows: dict[str, list[RunRow]] = {}  # by configuration
        while batch := self._strategy.ask():
            self._progress.asked += len(batch)
            runs = searched_runs(self._trainer.data, batch, self._spec)
            rows_of_runs = self._train_missing(runs)
            for run in runs:
                rows.setdefault(run.configuration.key, []).append(rows_of_runs[run.digest])
            scored = score_configurations(batch, rows, self._spec.select)
            self._strategy.tell({each.configuration.key: objective(each.score, self._spec.select) for each in scored})
            asked += batch
        self._progress.end()
        scored = score_configurations(asked, rows, self._spec.select)
        return SearchResult(tuple(scored), self._progress.heads, self._progress.seconds, self._strategy.notes)

    def _train_missing(self, runs: Sequence[SearchedRun]) -> Mapping[str, RunRow]:
        """Return the rows of these runs by digest, once this process or others have trained those that lack one."""
        rows = self._read_rows(runs)
        if missing := {run.digest for run in runs} - rows.keys():
            with step("planning"):
                plan = plan_search(self._trainer.data, runs, self._spec, self._trainer.machine)
            groups = planned_groups(plan, runs, self._spec)
            configurations = len({run.configuration.key for run in runs})
            self._progress.estimate(configurations, sum(group.seconds for group in groups))
            try:
                while missing:
                    left = [group.only(frozenset(missing)) for group in groups if group.digests & missing]
                    self._train(left, [group.seconds for group in groups])
                    rows = self._read_rows(runs)
                    missing -= rows.keys()
                    self._wait(missing)
            finally:
                for claim in self._claims.values():
                    claim.close()
                self._claims.clear()
        return rows

    def _train(self, groups: Sequence[SearchGroup], seconds: Sequence[float]) -> None:
        """Train the groups that no other process has claimed, and write their rows.

        Args:
            groups: the groups that lack rows.
            seconds: the estimated times of all groups of the plan, so that a search goes on as it began.
        """
        self._progress.plan(groups)
        with closing(self._trainer.train(self._claimed(groups), self._progress.learned, seconds)) as trained:
            for group, rows in trained:
                self._folder.write(rows)
                self._claims.pop(group.digests).close()
                self._progress.finish(group, rows)

    def _claimed(self, groups: Sequence[SearchGroup]) -> Iterator[SearchGroup]:
        """Claim one group after another as the trainer takes them, and yield the part that could be claimed."""
        for group in groups:
            claim = ExitStack()
            digests = claim.enter_context(self._folder.claim(group.digests))
            if digests:
                claimed = group.only(digests)
                self._claims[claimed.digests] = claim
                self._progress.start(group, claimed)
                yield claimed
            else:
                claim.close()
                self._progress.skip(group)

    def _read_rows(self, runs: Sequence[SearchedRun]) -> dict[str, RunRow]:
        digests = {run.digest for run in runs}
        rows = {row.digest: row for row in self._folder.rows() if row.digest in digests}
        self._progress.add_rows(rows.values())
        return rows

    def _wait(self, missing: set[str]) -> None:
        """Wait a moment if other processes train all missing runs; claims of dead processes do not count."""
        holders = self._folder.holders(missing)
        if holders and missing <= {digest for holder in holders for digest in holder.digests}:
            self._progress.wait([str(holder) for holder in holders])
            time.sleep(SECONDS_BETWEEN_LOOKS)
