"""Successive halving (Jamieson & Talwalkar, AISTATS 2016) among configurations that train together.

    bracket of 27 configurations  -- first_epochs -->  9 best  -- x factor -->  3 best  -- x factor -->  1 goes on

The folds and seeds of a configuration are ranked by their mean and leave together. Only validation scores count, and
nothing is random: the same scores dismiss the same members, and of equal scores the later configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from emofuse.specs import HalvingSpec, RunSpec, canonical_json
from emofuse.specs.sweeps import Metric
from emofuse.training.members import MemberState, StopRule


@dataclass(frozen=True)
class Halving:
    """The rule by which configurations go on.

    Attributes:
        first_epochs: the epochs before the first comparison.
        factor: of n configurations n // factor go on, at least one; the next comparison is after `factor` times as many
            epochs.
        bracket: the number of configurations that are compared with each other.
        select: the validation score that is compared, of each member's best epoch so far.
    """

    first_epochs: int
    factor: int
    bracket: int
    select: Metric

    @classmethod
    def of(cls, spec: HalvingSpec, select: Metric) -> Self:
        """Return the rule of a sweep that compares its configurations by `select`."""
        return cls(spec.first_epochs, spec.factor, spec.bracket, select)

    def brackets(self, specs: Sequence[RunSpec]) -> list[list[list[int]]]:
        """Return brackets of configurations of indices, in the order in which configurations first occur."""
        configurations = configurations_of(specs)
        return [configurations[start : start + self.bracket] for start in range(0, len(configurations), self.bracket)]

    def mean_epochs(self, epochs: int, configurations: int) -> float:
        """Return the mean epochs of a configuration in a bracket of this many, of the `epochs` that it has alone."""
        done = total = 0.0
        left, rung = configurations, self.first_epochs
        while left > 1 and rung < epochs:
            total += left * (rung - done)
            done, left, rung = rung, max(1, left // self.factor), rung * self.factor
        return (total + left * (epochs - done)) / configurations

    def expected_epochs(self, specs: Sequence[RunSpec]) -> list[float]:
        """Return the epochs of each run, as the mean over its bracket.

        Args:
            specs: whole brackets; the runs of a bracket have equal `epochs`.
        """
        expected = [0.0] * len(specs)
        for bracket in self.brackets(specs):
            mean = self.mean_epochs(specs[bracket[0][0]].train.epochs, len(bracket))
            for index in _runs_in(bracket):
                expected[index] = mean
        return expected

    def stop_rule(self, specs: Sequence[RunSpec]) -> StopRule:
        """Return the stop rule of runs that train together, whole brackets of them."""
        brackets = self.brackets(specs)
        next_rung = self.first_epochs

        def dismissed(epoch: int, states: Sequence[MemberState]) -> Collection[int]:
            nonlocal brackets, next_rung
            if epoch < next_rung:
                return ()
            next_rung *= self.factor
            kept = [self._best(bracket, states) for bracket in brackets]
            leaving = {index for bracket in brackets for index in _runs_in(bracket)}
            leaving -= {index for bracket in kept for index in _runs_in(bracket)}
            brackets = kept
            return leaving

        return dismissed

    def _best(self, bracket: list[list[int]], states: Sequence[MemberState]) -> list[list[int]]:
        scores = [self._score([states[index] for index in members]) for members in bracket]
        ranked = sorted(range(len(bracket)), key=lambda position: -scores[position])
        return [bracket[position] for position in sorted(ranked[: max(1, len(bracket) // self.factor)])]

    def _score(self, states: Sequence[MemberState]) -> float:
        """Return the mean over folds and seeds, larger is better; a configuration with a diverged member comes last."""
        sign = -1.0 if self.select == "loss" else 1.0
        bests = [state.best for state in states if state.best and state.ended != "diverged"]
        if len(bests) < len(states):
            return float("-inf")
        return fmean(sign * best[f"val_{self.select}"] for best in bests)


def _runs_in(bracket: Sequence[Sequence[int]]) -> list[int]:
    return [index for configuration in bracket for index in configuration]


def configurations_of(specs: Sequence[RunSpec]) -> list[list[int]]:
    """Return the indices of the runs of each configuration: those that differ only in fold, seed and name."""
    configurations: dict[str, list[int]] = {}
    for index, spec in enumerate(specs):
        plain = spec.model_dump(mode="json", exclude={"name": True, "train": {"seed"}, "fold": {"index"}})
        configurations.setdefault(canonical_json(plain), []).append(index)
    return list(configurations.values())
