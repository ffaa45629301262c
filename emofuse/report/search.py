"""What a report is told of the search behind its runs: plain data, filled by the sweep, shown by the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Select = Literal["macro_f1", "accuracy", "loss"]
SELECTS: Mapping[str, str] = {"macro_f1": "macro F1", "accuracy": "accuracy", "loss": "loss"}
"""Validation scores in words."""


@dataclass(frozen=True)
class Searched:
    """One configuration of a search, known by validation rows alone.

    Attributes:
        name: as the search names it; a chosen one has the name of its final runs.
        settings: what varies in the search -> its value here, plain JSON.
        score: mean of the search's `select` on validation rows over folds and seeds, in its own unit (a loss is not
            negated); None if it has none, because a run diverged.
        error: standard error of that mean; None for a single run.
        runs: heads trained for it.
        diverged: how many of them ended because the loss was not finite.
        halved: how many of them were ended by successive halving.
        chosen: whether it was trained for the test rows because the search prefers it.
        fallback: whether it was trained for them only because all that rank before it diverged in final runs.
        used: whether it is the best ranked one of which no final run diverged.
        final_runs: trained on the whole split; 0 if that is not told.
        final_diverged: which of them diverged, `seed 1 in epoch 3`.
    """

    name: str
    settings: Mapping[str, Any]
    score: float | None
    error: float | None
    runs: int
    diverged: int = 0
    halved: int = 0
    chosen: bool = False
    fallback: bool = False
    used: bool = False
    final_runs: int = 0
    final_diverged: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchSummary:
    """A whole search: what was tried, and what was chosen by validation rows.

    Attributes:
        kind: `grid`, `random` or `tpe`.
        select: the validation score by which configurations were compared; the smallest loss, else the largest.
        configurations: every one that was tried, in the order of the search.
        heads: heads trained in all, over configurations, folds and seeds.
        folds: of the cross-validation; 1 means the plain split into training and validation rows.
        seeds: trainings of each configuration and fold.
        best_of: factors of which every value has its finalist; () if there is one finalist in all.
    """

    kind: Literal["grid", "random", "tpe"]
    select: Select
    configurations: tuple[Searched, ...]
    heads: int
    folds: int = 1
    seeds: int = 1
    best_of: tuple[str, ...] = ()

    @property
    def ranked(self) -> tuple[Searched, ...]:
        """The best first, those that were halved after all others; those without a score last, in their order."""
        sign = 1 if self.select == "loss" else -1
        scored = [item for item in self.configurations if item.score is not None]
        unscored = [item for item in self.configurations if item.score is None]
        return (*sorted(scored, key=lambda item: (item.halved > 0, sign * (item.score or 0.0))), *unscored)

    @property
    def used(self) -> Searched | None:
        """The best ranked one of which no final run diverged; None if there is none, or nothing is told of them."""
        return next((item for item in self.configurations if item.used), None)

    @property
    def failed(self) -> tuple[Searched, ...]:
        """Those that rank before `used` and had a final run that diverged: the choice, if it is one of them, first."""
        tried = [item for item in self.ranked if item.final_runs]
        before = tried[: tried.index(self.used)] if self.used else tried
        return tuple(item for item in before if item.final_diverged)
