"""What a sweep tells while it searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class SweepState:
    """How far a search is.

    Attributes:
        runs: that have a row, whoever trained them.
        total: runs of the whole search, at most; None if that is not known.
        heads: trained by this call so far.
        rows: that those heads, and the ones in training, have learned from, counted each epoch anew.
        work: share of this call's work that is done, 0 to 1, by the estimates of its plans; batches that a search has
            yet to decide on are taken to be like those before them.
        seconds: since training began.
        best: the best configuration so far and its validation score; None before the first is complete.
        select: what the score is.
        waiting_for: living processes that train what is missing; () while this one trains.
    """

    runs: int
    total: int | None
    heads: int = 0
    rows: int = 0
    work: float = 0.0
    seconds: float = 0.0
    best: tuple[str, float] | None = None
    select: str = "macro_f1"
    waiting_for: tuple[str, ...] = ()

    @property
    def heads_per_s(self) -> float:
        """Mean speed of this call, 0 before the first wave is done."""
        return self.heads / self.seconds if self.seconds > 0 else 0.0

    @property
    def rows_per_s(self) -> float:
        """Mean speed of this call, 0 before the first epoch is done."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Of the search, estimated from what is done; None before there is any."""
        return self.seconds * (1 - self.work) / self.work if self.work > 0 else None


class SweepProgress(Protocol):
    """Follows a search."""

    def update(self, state: SweepState) -> None:
        """Called before the first wave, after epochs and after each wave, in the process that drives the sweep."""
        ...
