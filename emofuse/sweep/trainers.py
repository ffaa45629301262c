"""What trains the groups of a search: an interface, and the trainer of this process."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from emofuse.sweep.groups import OnRows, SearchGroup, train_rows
from emofuse.sweep.rows import RunRow
from emofuse.training.data import TrainingData
from emofuse.training.machine import Machine
from emofuse.training.rates import Rates, measure_rates
from emofuse.training.side_by_side import SideBySide, cores_of, groups_at_once


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

    def train(
        self, groups: Iterator[SearchGroup], on_rows: OnRows, seconds: Sequence[float] = ()
    ) -> Generator[tuple[SearchGroup, list[RunRow]], None, None]:
        """Yield every group with its rows as it finishes. The next group is taken when it can start.

        Args:
            groups: the groups.
            on_rows: a callback after each epoch of a group.
            seconds: the estimated time of each group, by which several of them may be trained at the same time.
        """
        ...


@dataclass
class LocalTrainer:
    """A trainer that trains in this process: one group after another, or several of them where that is sooner."""

    data: TrainingData
    machine: Machine

    @property
    def rates(self) -> Rates:
        """The speed of this machine, measured on access."""
        return measure_rates(self.machine)

    def train(
        self, groups: Iterator[SearchGroup], on_rows: OnRows, seconds: Sequence[float] = ()
    ) -> Generator[tuple[SearchGroup, list[RunRow]], None, None]:
        """Yield every group with its rows as it finishes."""
        trainer: SideBySide[SearchGroup, list[RunRow]] = SideBySide(
            lambda group, report: train_rows(self.data, group, self.machine, on_rows=report),
            lambda _, rows, seconds: on_rows(rows, seconds),
            groups_at_once(seconds, cores_of(self.machine.device)),
            self.data.memory_bytes,
        )
        with closing(trainer.run(partial(next, groups, None))) as finished:
            yield from finished
