"""Draw the training rows of an epoch so that the classes are even (`train.balance`).

An epoch has as many rows as without balance, so that configurations of a sweep are compared at equal numbers of steps.
Of n training rows of C classes that occur, n / C are drawn of each; the rest of the division goes to classes that are
drawn anew in every epoch.

    sampling   Rows of a class are drawn with replacement. Each draw shows one of the `views`.
    views      Rows are drawn without replacement and show the picture itself (view 0). A class with too few rows shows
               all of them, and beside them their augmented views, without replacement while there are further ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from emofuse.specs.train import RowBalance


class RowSet(NamedTuple):
    """The training rows that members of a group share: those of a fold, drawn in one way.

    Attributes:
        fold: the index of the fold.
        balance: the way in which its rows are drawn.
    """

    fold: int
    balance: RowBalance = "none"


class BalancedDraws:
    """Draw training rows with even classes, anew in every epoch.

    Args:
        balance: `sampling` or `views`.
        rows: the n training rows, int64.
        labels: the labels of all N rows, int64.
        views: V of the table.
        generator: on the CPU.
    """

    def __init__(
        self, balance: RowBalance, rows: Tensor, labels: Tensor, views: int, generator: torch.Generator
    ) -> None:
        self._balance, self._views, self._generator = balance, views, generator
        self._count, self._table_rows = len(rows), len(labels)
        of_rows = labels[rows]
        self._classes = [rows[of_rows == label] for label in torch.unique(of_rows)]

    def of_epoch(self) -> Tensor:
        """Return the draws of the next epoch in random order, (n,) int64, as places among the V x N rows."""
        quota, rest = divmod(self._count, len(self._classes))
        further = set(self._order(len(self._classes))[:rest].tolist())
        draw = self._sampled if self._balance == "sampling" else self._with_views
        drawn = torch.cat([draw(rows, quota + (place in further)) for place, rows in enumerate(self._classes)])
        return drawn[self._order(self._count)]

    def _sampled(self, rows: Tensor, count: int) -> Tensor:
        drawn = rows[torch.randint(len(rows), (count,), generator=self._generator)]
        if self._views == 1:
            return drawn
        return drawn + self._table_rows * torch.randint(self._views, (count,), generator=self._generator)

    def _with_views(self, rows: Tensor, count: int) -> Tensor:
        parts, missing = [rows[self._order(len(rows))[:count]]], count - len(rows)
        augmented = torch.cat([rows + self._table_rows * view for view in range(1, self._views)])
        while missing > 0:
            parts.append(augmented[self._order(len(augmented))[:missing]])
            missing -= len(parts[-1])
        return torch.cat(parts)

    def _order(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self._generator)
