"""What trains the groups of a search: an interface, and the trainer of this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from emofuse.sweep.groups import OnRows, SearchGroup, train_rows
from emofuse.sweep.rows import RunRow
from emofuse.training.data import TrainingData
from emofuse.training.machine import Machine
from emofuse.training.rates import Rates, measure_rates


class Trainer(Protocol):
    """An object that trains groups, in this process or on other machines.

    Attributes:
        data: the training and validation rows.
        machine: the device and the precision of training.
    """

    data: TrainingData
    machine: Machine

    @property
    def rates(self) -> Rates:
        """The speed of the machine, measured on access. Only estimates that are shown need it."""
        ...

    def train(self, groups: Iterator[SearchGroup], on_rows: OnRows) -> Iterator[tuple[SearchGroup, list[RunRow]]]:
        """Yield every group with its rows as it finishes. The next group is taken when it can start."""
        ...


@dataclass
class LocalTrainer:
    """A trainer that trains in this process, one group after another."""

    data: TrainingData
    machine: Machine

    @property
    def rates(self) -> Rates:
        """The speed of this machine, measured on access."""
        return measure_rates(self.machine)

    def train(self, groups: Iterator[SearchGroup], on_rows: OnRows) -> Iterator[tuple[SearchGroup, list[RunRow]]]:
        """Yield every group with its rows, in their order."""
        return ((group, train_rows(self.data, group, self.machine, on_rows=on_rows)) for group in groups)
