"""The progress of a search: counts, estimated time and the best score, passed on as `TrainingState`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from emofuse.progress import TrainingState, report_progress
from emofuse.specs import SweepSpec
from emofuse.sweep.choice import mean_and_error, objective
from emofuse.sweep.groups import SearchGroup
from emofuse.sweep.rows import RunRow
from emofuse.sweep.strategies import SearchStrategy


@dataclass
class SearchProgress:
    """The progress of one call's search.

    Attributes:
        spec: the sweep.
        strategy: the search strategy, which knows the total number of configurations.
        asked: how many configurations the strategy has given.
        heads: how many heads this call has trained.
        seconds: how long this call has trained and waited.
    """

    spec: SweepSpec
    strategy: SearchStrategy
    asked: int = 0
    heads: int = 0
    seconds: float = 0.0
    _rows: int = 0  # rows of the cache that heads have learned from, every epoch counted
    _done_s: float = 0.0  # in estimated seconds, as all that follow
    _left_s: float = 0.0
    _running_s: float = 0.0
    _estimated: int = 0  # configurations whose time has been estimated
    _estimated_s: float = 0.0
    _started: float | None = None
    _results: dict[str, dict[str, RunRow]] = field(default_factory=dict)  # configuration -> digest -> row
    _best: tuple[str, float] | None = None  # name and score of the best configuration
    _last_total: int | None = None  # the total number of configurations in the last state

    @property
    def runs_each(self) -> int:
        """The number of runs of one configuration."""
        return len(self.spec.seeds) * (len(self.spec.folds.each()) if self.spec.folds else 1)

    def estimate(self, configurations: int, seconds: float) -> None:
        """Add the estimated time of a batch, from which the time of later batches is extrapolated."""
        self._estimated += configurations
        self._estimated_s += seconds

    def plan(self, groups: Sequence[SearchGroup]) -> None:
        """Set the groups that are left to train."""
        self._started = self._started or time.perf_counter()
        self._left_s = sum(group.seconds for group in groups)
        self.tell()

    def start(self, planned: SearchGroup, claimed: SearchGroup) -> None:
        """Note that a group starts, without the runs that another process has claimed."""
        self._left_s += claimed.seconds - planned.seconds

    def skip(self, group: SearchGroup) -> None:
        """Note that another process has claimed a whole group."""
        self._left_s -= group.seconds

    def learned(self, rows: int, seconds: float) -> None:
        """Add an epoch of a running group.

        Args:
            rows: how many rows heads have learned from.
            seconds: the epoch's share of the estimated time of the group.
        """
        self._rows += rows
        self._running_s += seconds
        self.tell()

    def finish(self, group: SearchGroup, rows: Sequence[RunRow]) -> None:
        """Add a finished group."""
        self._done_s += group.seconds
        self._left_s -= group.seconds
        self._running_s = max(0.0, self._running_s - group.seconds)  # other groups may be running
        self.heads += len(rows)
        self.add_rows(rows)
        self.tell()

    def add_rows(self, rows: Iterable[RunRow]) -> None:
        """Add rows of any process; rows that are known already do not count again."""
        for row in rows:
            of_configuration = self._results.setdefault(row.configuration, {})
            if row.digest not in of_configuration:
                of_configuration[row.digest] = row
                if len(of_configuration) == self.runs_each:
                    self._compare(list(of_configuration.values()))

    def wait(self, holders: Sequence[str]) -> None:
        """Note that other processes train all that is missing."""
        self.tell(tuple(holders))

    def end(self) -> None:
        """Pass on the total once more if the strategy has lowered it at the very end."""
        if self._last_total not in {None, self.strategy.total}:
            self.tell()

    def tell(self, waiting_for: tuple[str, ...] = ()) -> None:
        """Pass on the current state."""
        self.seconds = 0.0 if self._started is None else time.perf_counter() - self._started
        to_come = max(0, self.strategy.total - self.asked)
        later_s = to_come * self._estimated_s / self._estimated if self._estimated else 0.0
        whole_s = self._done_s + self._left_s + later_s
        self._last_total = self.strategy.total
        report_progress(
            TrainingState(
                runs=sum(len(rows) for rows in self._results.values()),
                total=self.strategy.total * self.runs_each,
                heads=self.heads,
                rows=self._rows,
                work=min(1.0, (self._done_s + self._running_s) / whole_s) if whole_s > 0 else 0.0,
                seconds=self.seconds,
                best=self._best,
                select=self.spec.select,
                waiting_for=waiting_for,
            )
        )

    def _compare(self, rows: Sequence[RunRow]) -> None:
        """Keep the configuration of these rows as the best if its score is better."""
        score, _ = mean_and_error(rows, self.spec.select)
        better, best = objective(score, self.spec.select), objective(self._best and self._best[1], self.spec.select)
        if score is not None and better is not None and (best is None or better > best):
            self._best = rows[0].name, score
