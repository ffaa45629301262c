"""Exponential moving averages of the weights of members (`train.ema`), which are validated and kept in their place.

    average = d_t average + (1 - d_t) weights,    d_t = min(ema, (1 + t) / (10 + t)) after update t of the member

At first d_t is small, so that the initial weights are soon forgotten. Running statistics of batch norm are averaged
like weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from emofuse.heads.members import Members
from emofuse.specs import TrainSpec


class WeightAverages:
    """The averages of those members of a group that have `train.ema`.

    Args:
        state: the weights and running statistics of the head, name -> (n, ...), which change in place.
        owners: name -> the members that have the tensor.
        trains: the optimisation of each member.
        folds: the fold of each member.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        owners: Mapping[str, Members],
        trains: Sequence[TrainSpec],
        folds: Sequence[int],
    ) -> None:
        self._members = [k for k, train in enumerate(trains) if train.ema]
        self._decays = [trains[k].ema for k in self._members]
        self._folds = [folds[k] for k in self._members]
        self._updates = [0] * len(self._members)
        self._set_up(state, owners)
        self._averages = {name: state[name][rows].clone() for name, rows in self._rows.items()}

    def update(self, idle: frozenset[int]) -> None:
        """Take in the weights after a step; members of idle folds were not updated."""
        decays = []
        for place, (decay, fold) in enumerate(zip(self._decays, self._folds, strict=True)):
            if fold in idle:
                decays.append(1.0)
                continue
            self._updates[place] += 1
            updates = self._updates[place]
            decays.append(min(decay, (1 + updates) / (10 + updates)))
        for name, average in self._averages.items():
            own = [1 - decays[place] for place in self._places[name]]
            weight = torch.tensor(own, dtype=average.dtype, device=average.device)
            average.lerp_(self._state[name][self._rows[name]], weight.view(-1, *[1] * (average.dim() - 1)))

    def exchange(self) -> None:
        """Put the averages in the place of the weights, or the weights back in theirs."""
        for name, average in self._averages.items():
            weights = self._state[name][self._rows[name]].clone()
            self._state[name][self._rows[name]] = average
            average.copy_(weights)

    def shrink(self, members: Sequence[int], state: Mapping[str, Tensor], owners: Mapping[str, Members]) -> bool:
        """Go on with these members of the group, renumbered from 0, and return whether any of them is averaged."""
        new_of = {old: new for new, old in enumerate(members)}
        staying = [place for place, k in enumerate(self._members) if k in new_of]
        for name, average in self._averages.items():
            kept = [row for row, place in enumerate(self._places[name]) if place in staying]
            self._averages[name] = average[kept]
        self._members = [new_of[self._members[place]] for place in staying]
        self._decays = [self._decays[place] for place in staying]
        self._folds = [self._folds[place] for place in staying]
        self._updates = [self._updates[place] for place in staying]
        self._set_up(state, owners)
        return bool(staying)

    def _set_up(self, state: Mapping[str, Tensor], owners: Mapping[str, Members]) -> None:
        """Find the rows of the averaged members in every tensor, and their places among the averaged members."""
        self._state = state
        self._rows = {name: owners[name].rows_of(self._members) for name in state}
        self._places = {
            name: [place for place, k in enumerate(self._members) if k in owners[name].indices] for name in state
        }
