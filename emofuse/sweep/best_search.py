"""The strategy of `emofuse sweep best`: stages of candidates, as many of each as the time allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emofuse.errors import TrainingError
from emofuse.specs import SweepSpec
from emofuse.specs.head_kinds import EXACT_HEADS
from emofuse.sweep.best_candidates import STAGES, Candidates, Ranked
from emofuse.sweep.configurations import Configuration, runs_of
from emofuse.sweep.groups import searched_runs
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.trainers import Trainer
from emofuse.training.planning import plan_runs
from emofuse.training.rates import Rates

SHARES: Mapping[str, float] = {"look": 0.25, "exact": 0.5, "networks": 0.85, "refine": 1.0, "rest": 1.0}
"""Stage -> the share of the time that may have been used by its end."""
_REST = "rest"
_OF_REST = ("exact", "networks", "refine", "look")
"""The stages whose left-out candidates may use the time that is left at the end, in this order."""
_HALF = 0.5
"""The share of the time left for a batch."""
_SLOW = 10.0
"""How many times longer than on a common machine training takes on a slow one."""
_EXACT = 3.0
"""How many times longer than their estimate exact heads take on a CPU, where networks take it; measured on FER2013."""


@dataclass
class _Spent:
    """The time of the candidates of a kind of head that have been tried, estimated and real."""

    estimated: float = 0.0
    real: float = 0.0

    @property
    def ratio(self) -> float | None:
        """How much longer they took than estimated; None before the first."""
        return self.real / self.estimated if self.estimated > 0 else None


class BestSearch:
    """The strategy of the search: stages of candidates, as many of each as the time allows.

    Args:
        candidates: what makes the candidates of a stage.
        spec: the search as a sweep.
        trainer: the rows and the machine, for estimates.
        folder: the folder of the rows, which have the seconds.
        seconds: the time of the search.
    """

    def __init__(
        self, candidates: Candidates, spec: SweepSpec, trainer: Trainer, folder: ResultsFolder, seconds: float
    ) -> None:
        self._candidates = candidates
        self._spec = spec
        self._trainer = trainer
        self._folder = folder
        self._seconds = seconds
        self._stages = list(STAGES)
        self._stage = self._stages[0]
        self._queue: list[Configuration] = []
        self._batch: list[Configuration] = []
        self._tried: list[Configuration] = []
        self._ranked: list[Ranked] = []
        self._seen: set[str] = set()
        self._estimates: dict[str, float] = {}
        self._spent: dict[str, _Spent] = {}  # by the kind of the head
        self._dropped: dict[str, list[Configuration]] = {}  # by stage
        self._too_large = 0

    @property
    def total(self) -> int:
        """The number of configurations that are known so far."""
        return len(self._tried) + len(self._batch) + len(self._queue)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and why."""
        notes = []
        left_out = sum(len(dropped) for dropped in self._dropped.values())
        if left_out:
            notes.append(f"The time did not allow {left_out} further candidates: more --minutes would.")
        if self._too_large:
            notes.append(f"{self._too_large} candidates were left out, because the memory does not allow them.")
        return tuple(notes)

    def ask(self) -> list[Configuration]:
        """Return the next candidates, as many as the time of their stage allows; at least one in all.

        Raises:
            ValueError: scores of the previous batch are missing.
        """
        if self._batch:
            raise ValueError("scores of the previous batch are missing")
        while True:
            self._batch = self._affordable()
            if self._batch:
                return list(self._batch)
            self._dropped.setdefault(self._stage, []).extend(self._queue)
            self._queue = []
            if self._stages:
                self._stage = self._stages.pop(0)
                self._queue = self._new(self._candidates.of_stage(self._stage, self._ranked))
            elif self._stage != _REST:  # time that a stage could not use is for what other stages left out
                self._stage = _REST
                self._queue = [each for stage in _OF_REST for each in self._dropped.pop(stage, [])]
            else:
                return []

    def tell(self, scores: Mapping[str, float | None]) -> None:
        """Rank the candidates of the batch and add their time.

        Raises:
            ValueError: a key is not one of the batch.
        """
        by_key = {each.key: each for each in self._batch}
        if unknown := scores.keys() - by_key.keys():
            raise ValueError(f"score of a configuration that is not in the batch: {min(unknown)}")
        for key, score in scores.items():
            if score is not None:
                self._ranked.append(Ranked(by_key[key], score))
        self._ranked.sort(key=lambda each: -each.objective)
        runs = searched_runs(self._trainer.data, self._batch, self._spec)
        seconds = {row.digest: row.seconds for row in self._folder.rows()}
        for run in runs:
            self._spent_on(run.configuration).real += seconds.get(run.digest, 0.0)
        for each in self._batch:
            self._spent_on(each).estimated += self._estimates[each.key]
        self._tried += self._batch
        self._batch = []

    def preview(self, rates: Rates) -> list[tuple[str, int, float]]:
        """Return each stage with its largest number of candidates and their seconds on a machine of these rates.

        Later stages depend on scores; they are counted as if the first candidates of each stage were the best.
        """
        stages = []
        ranked: list[Ranked] = []
        for stage in STAGES:
            candidates = self._new(self._candidates.of_stage(stage, ranked), rates)
            stages.append((stage, len(candidates), sum(self._estimates[each.key] for each in candidates)))
            ranked += [Ranked(each, 0.0) for each in candidates]
        return stages

    def _new(self, candidates: Sequence[Configuration], rates: Rates | None = None) -> list[Configuration]:
        """Return the candidates that were not tried, each once, without those that the memory does not allow."""
        fitting = []
        for each in candidates:
            if each.key in self._seen:
                continue
            self._seen.add(each.key)
            try:
                runs = runs_of(each, self._spec)
                plan = plan_runs(self._trainer.data, runs, machine=self._trainer.machine, rates=rates)
            except TrainingError:
                self._too_large += 1
                continue
            times = _EXACT if each.run.head.kind in EXACT_HEADS else 1.0
            self._estimates[each.key] = times * sum(group.seconds for group in plan.groups)
            fitting.append(each)
        return fitting

    def _affordable(self) -> list[Configuration]:
        """Take the candidates from the queue that the time allows, in their order.

        A batch takes at most half of the time that its stage has left, and one candidate of a kind of head that has not
        been tried yet, so that the speed is known before the rest.
        """
        left = self._seconds * SHARES[self._stage] - sum(spent.real for spent in self._spent.values())
        chosen: list[Configuration] = []
        new_kinds: set[str] = set()
        taken = 0.0
        for each in self._queue if left > 0 else ():
            kind, ratio = each.run.head.kind, self._spent_on(each).ratio
            if kind in new_kinds:
                continue
            seconds = self._estimates[each.key] * (self._ratio_of_others(each) if ratio is None else ratio)
            if taken + seconds <= left * _HALF or (not chosen and seconds <= left):
                chosen.append(each)
                taken += seconds
                new_kinds |= {kind} if ratio is None else set()
        if not chosen and not self._tried and self._queue:
            chosen = [min(self._queue, key=lambda each: self._estimates[each.key])]  # there must be a result
        keys = {each.key for each in chosen}
        self._queue = [each for each in self._queue if each.key not in keys]
        return chosen

    def _spent_on(self, configuration: Configuration) -> _Spent:
        """Return the time of the candidates with the same kind of head."""
        return self._spent.setdefault(configuration.run.head.kind, _Spent())

    def _ratio_of_others(self, configuration: Configuration) -> float:
        """Return the largest ratio of the other kinds of exact heads, or of networks; 1 before the first candidate.

        Before the first network it is that of exact heads, but not more than a slow machine explains: the estimates of
        the two differ, and every search should try a network.
        """
        is_exact = configuration.run.head.kind in EXACT_HEADS
        known = {kind: spent.ratio for kind, spent in self._spent.items() if spent.ratio is not None}
        alike = [ratio for kind, ratio in known.items() if (kind in EXACT_HEADS) == is_exact]
        return max(alike) if alike else min(_SLOW, max(known.values(), default=1.0))
