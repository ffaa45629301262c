"""Successive halving (Jamieson & Talwalkar, AISTATS 2016) among configurations that train together.

    bracket of 27 configurations  -- first_epochs -->  9 best  -- x factor -->  3 best  -- x factor -->  1 goes on

A configuration is all its folds and seeds: they are ranked by their mean and leave together. Only validation scores are
looked at, and nothing is drawn: the same scores dismiss the same members, equal ones the later.
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
    """Who goes on, and how it is decided.

    Attributes:
        first_epochs: epochs before the first comparison.
        factor: of n configurations n // factor go on, one at least, and for so many times the epochs.
        bracket: configurations that are compared with each other.
        select: the validation score, of each member's best epoch so far.
    """

    first_epochs: int
    factor: int
    bracket: int
    select: Metric

    @classmethod
    def of(cls, spec: HalvingSpec, select: Metric) -> Self:
        """Of a sweep that compares its configurations by `select`."""
        return cls(spec.first_epochs, spec.factor, spec.bracket, select)

    def brackets(self, specs: Sequence[RunSpec]) -> list[list[list[int]]]:
        """Brackets of configurations of indices, in the order in which configurations are first named."""
        configurations = configurations_of(specs)
        return [configurations[start : start + self.bracket] for start in range(0, len(configurations), self.bracket)]

    def mean_epochs(self, epochs: int, configurations: int) -> float:
        """Epochs that each of so many configurations of a bracket has on average, of those that it would have alone."""
        done = total = 0.0
        left, rung = configurations, self.first_epochs
        while left > 1 and rung < epochs:
            total += left * (rung - done)
            done, left, rung = rung, max(1, left // self.factor), rung * self.factor
        return (total + left * (epochs - done)) / configurations

    def expected_epochs(self, specs: Sequence[RunSpec]) -> list[float]:
        """Epochs of each run, on average over its bracket.

        Args:
            specs: whole brackets, each of one length of training.
        """
        expected = [0.0] * len(specs)
        for bracket in self.brackets(specs):
            mean = self.mean_epochs(specs[bracket[0][0]].train.epochs, len(bracket))
            for index in (index for own in bracket for index in own):
                expected[index] = mean
        return expected

    def stop_rule(self, specs: Sequence[RunSpec]) -> StopRule:
        """Decides for runs that train together, whole brackets of them."""
        brackets = self.brackets(specs)
        next_rung = self.first_epochs

        def dismissed(epoch: int, states: Sequence[MemberState]) -> Collection[int]:
            nonlocal brackets, next_rung
            if epoch < next_rung:
                return ()
            next_rung *= self.factor
            kept = [self._best(bracket, states) for bracket in brackets]
            leaving = {i for bracket in brackets for own in bracket for i in own}
            leaving -= {i for bracket in kept for own in bracket for i in own}
            brackets = kept
            return leaving

        return dismissed

    def _best(self, bracket: list[list[int]], states: Sequence[MemberState]) -> list[list[int]]:
        scores = [self._score([states[index] for index in members]) for members in bracket]
        ranked = sorted(range(len(bracket)), key=lambda position: -scores[position])
        return [bracket[position] for position in sorted(ranked[: max(1, len(bracket) // self.factor)])]

    def _score(self, states: Sequence[MemberState]) -> float:
        """Mean over folds and seeds, larger is better; a configuration of which a member diverged comes last."""
        sign = -1.0 if self.select == "loss" else 1.0
        bests = [state.best for state in states if state.best and state.ended != "diverged"]
        if len(bests) < len(states):
            return float("-inf")
        return fmean(sign * best[f"val_{self.select}"] for best in bests)


def configurations_of(specs: Sequence[RunSpec]) -> list[list[int]]:
    """Indices of the runs of each configuration: those that differ in fold and seed alone (and in name)."""
    found: dict[str, list[int]] = {}
    for index, spec in enumerate(specs):
        plain = spec.model_dump(mode="json", exclude={"name": True, "train": {"seed"}, "fold": {"index"}})
        found.setdefault(canonical_json(plain), []).append(index)
    return list(found.values())
