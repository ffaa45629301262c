"""Exact Shapley values of players in a game whose value is known for every subset.

Here the players are streams, and the value of a subset is the test score of heads that are trained on it. All numbers
of this module are linear in the values of the subsets, so that one matrix product gives them for the observed scores
and for every bootstrap resample.

Sources: Shapley, *A value for n-person games*, 1953; Grabisch and Roubens, International Journal of Game Theory 1999
(interaction index).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Subset = frozenset[str]
MOST_PLAYERS = 10
"""The largest number of players: the number of subsets doubles with each."""


@dataclass(frozen=True)
class Game:
    """The players and the order of their subsets.

    Attributes:
        players: the n players, in the order of all results.
    """

    players: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.players) <= MOST_PLAYERS or len(set(self.players)) < len(self.players):
            raise ValueError(f"expected 1 to {MOST_PLAYERS} different players, got {', '.join(self.players)}")

    @cached_property
    def subsets(self) -> tuple[Subset, ...]:
        """All 2^n subsets, the empty one first and all players last."""
        count = len(self.players)
        return tuple(frozenset(chosen) for size in range(count + 1) for chosen in combinations(self.players, size))

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All pairs of players."""
        return tuple(combinations(self.players, 2))

    @cached_property
    def shapley(self) -> Floats:
        """Return weights (n, 2^n) whose product with the values of the subsets is the Shapley values.

        The Shapley value of i is the mean gain of adding i, over all orders in which the players can come:

            sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))
        """
        count = len(self.players)
        weights = np.zeros((count, len(self.subsets)))
        for row, player in enumerate(self.players):
            for place, subset in enumerate(self.subsets):
                size = len(subset - {player})
                weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                weights[row, place] = weight if player in subset else -weight
        return weights

    @cached_property
    def interactions(self) -> Floats:
        """Return weights (pairs, 2^n) of the Shapley interaction indices.

        Positive: the two gain more together than each on its own. Negative: they say the same in part.

            sum over S without i, j of |S|! (n - |S| - 2)! / (n - 1)! (v(S + i + j) - v(S + i) - v(S + j) + v(S))
        """
        count = len(self.players)
        weights = np.zeros((len(self.pairs), len(self.subsets)))
        for row, pair in enumerate(self.pairs):
            for place, subset in enumerate(self.subsets):
                size = len(subset - set(pair))
                weight = math.factorial(size) * math.factorial(count - size - 2) / math.factorial(count - 1)
                weights[row, place] = -weight if len(subset & set(pair)) == 1 else weight
        return weights

    @cached_property
    def leave_one_out(self) -> Floats:
        """Return weights (n, 2^n) of what all players lose without each: v(all) - v(all but i)."""
        everyone = frozenset(self.players)
        return np.stack([self._difference(everyone, everyone - {player}) for player in self.players])

    @cached_property
    def add_one_in(self) -> Floats:
        """Return weights (n, 2^n) of what each player gains alone: v(i) - v(nobody)."""
        return np.stack([self._difference(frozenset({player}), frozenset()) for player in self.players])

    def values(self, of_subsets: Any) -> Floats:
        """Return a mapping from subset to value as an array in the order of `subsets`."""
        return np.array([of_subsets[subset] for subset in self.subsets], dtype=np.float64)

    def _difference(self, more: Subset, less: Subset) -> Floats:
        weights = np.zeros(len(self.subsets))
        weights[self.subsets.index(more)] += 1
        weights[self.subsets.index(less)] -= 1
        return weights


def shapley_values(players: Sequence[str], of_subsets: Any) -> dict[str, float]:
    """Return player -> Shapley value, from a mapping that gives every subset (a frozenset) its value."""
    game = Game(tuple(players))
    return dict(zip(game.players, (game.shapley @ game.values(of_subsets)).tolist(), strict=True))
