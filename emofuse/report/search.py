"""The search behind the runs of a report, as plain data that the sweep fills in and the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from emofuse.specs.target_options import Score

SearchKind = Literal["grid", "random", "tpe", "best"]

SELECTS: Mapping[str, str] = {
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "loss": "loss",
    "ccc": "CCC",
    "map": "mAP",
}
"""Validation score -> its name in sentences."""


@dataclass(frozen=True)
class SearchedConfiguration:
    """One configuration of a search, with its scores on validation rows.

    Attributes:
        name: its name in the search; a chosen configuration has the name of its final runs.
        settings: factor that varies in the search -> its value, plain JSON.
        score: the mean of the search's `select` on validation rows over folds and seeds (a loss is not negated); None
            if a run diverged.
        error: the standard error of the mean, with folds corrected for the training rows that they share; None for a
            single run.
        runs: the number of heads trained for it.
        diverged: the number of heads that ended because their loss was not finite.
        halved: the number of heads that successive halving ended.
        chosen: whether it was trained for the test rows because the search prefers it.
        fallback: whether it was trained for the test rows only because all better ranked ones diverged in final runs.
        used: whether it is the best ranked configuration without a final run that diverged.
        final_runs: the number of final runs on the whole split; 0 if it is unknown.
        final_diverged: the final runs that diverged, such as `seed 1 in epoch 3`.
        wins: the number of outer folds in which it was the best by validation score; 0 without outer folds.
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
    wins: int = 0


@dataclass(frozen=True)
class SearchSummary:
    """A whole search: the configurations that were tried, and those that were chosen by validation rows.

    Attributes:
        kind: `grid`, `random` or `tpe`; `best` for the search of `emofuse sweep best`.
        select: the validation score that compares configurations: the smallest loss, or the largest other score.
        configurations: every configuration that was tried, in the order of the search.
        heads: the number of heads trained in all, over configurations, folds and seeds.
        folds: the number of folds of the cross-validation; 1 means the plain split into training and validation rows.
        repeats: how often the folds were drawn.
        seeds: the number of trainings of each configuration and fold.
        best_of: the factors that have a finalist for each value; () if there is one finalist in all.
        outer_folds: the number of outer folds, inside each of which the search was repeated; 0 for a single search.
            Scores are then means over the outer folds.
    """

    kind: SearchKind
    select: Score
    configurations: tuple[SearchedConfiguration, ...]
    heads: int
    folds: int = 1
    seeds: int = 1
    repeats: int = 1
    best_of: tuple[str, ...] = ()
    outer_folds: int = 0

    @property
    def error_words(self) -> str:
        """What the error of a score is, in words."""
        if self.folds > 1:
            return "standard error, corrected for the training rows that folds share (Nadeau and Bengio, 2003),"
        return "standard error"

    @property
    def ranked(self) -> tuple[SearchedConfiguration, ...]:
        """The configurations, the best first; halved ones follow, and those without a score come last."""
        sign = 1 if self.select == "loss" else -1
        scored = [item for item in self.configurations if item.score is not None]
        unscored = [item for item in self.configurations if item.score is None]
        return (*sorted(scored, key=lambda item: (item.halved > 0, sign * (item.score or 0.0))), *unscored)

    @property
    def used(self) -> SearchedConfiguration | None:
        """The best ranked configuration without a final run that diverged; None without one, or if this is unknown."""
        return next((item for item in self.configurations if item.used), None)

    @property
    def failed(self) -> tuple[SearchedConfiguration, ...]:
        """The configurations that rank before `used` and had a final run that diverged, the choice first."""
        tried = [item for item in self.ranked if item.final_runs]
        before = tried[: tried.index(self.used)] if self.used else tried
        return tuple(item for item in before if item.final_diverged)
