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
        chosen: whether it was trained for the test rows.
    """

    name: str
    settings: Mapping[str, Any]
    score: float | None
    error: float | None
    runs: int
    diverged: int = 0
    halved: int = 0
    chosen: bool = False


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
        """The best first; those without a score last, in the order of the search."""
        sign = 1 if self.select == "loss" else -1
        scored = [item for item in self.configurations if item.score is not None]
        unscored = [item for item in self.configurations if item.score is None]
        return (*sorted(scored, key=lambda item: sign * (item.score or 0.0)), *unscored)
