"""Ranks configurations over their test splits, for the diagram of critical differences (Demšar, JMLR 2006)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from emofuse.report.configurations import DrawnSplit, ReportedConfiguration, Results, Spread, find_metric, repeat_of
from emofuse.report.targets import ShownScore
from emofuse.statistics.ranks import LEAST_MODELS, LEAST_SPLITS, RankTest, rank_test

_DRAW_TEST_ROWS = frozenset({"stratified", "outer_folds"})
"""The kinds of splits whose seeds draw the test rows; all others have the same test rows in every run."""


@dataclass(frozen=True)
class Ranking:
    """The featured configurations, ranked in every test split.

    Attributes:
        items: the K configurations in the order of the report.
        score: the score that they are ranked by.
        test: their mean ranks and the test, in the same order.
        folds: whether the splits are the folds of a cross-validation; otherwise they are random splits.
    """

    items: tuple[ReportedConfiguration, ...]
    score: ShownScore
    test: RankTest
    folds: bool

    @property
    def ordered(self) -> list[int]:
        """The places of the configurations, the best mean rank first."""
        return [int(place) for place in np.argsort(self.test.mean_ranks, kind="stable")]

    def group_letters(self, place: int) -> str:
        """Return the letters of the groups that a configuration is in; those that share one cannot be told apart."""
        letters = (chr(ord("a") + number) for number, group in enumerate(self.test.groups) if place in group)
        return "".join(letters)


def rank_configurations(results: Results) -> Ranking | str:
    """Rank the featured configurations; return a sentence with the reason if they cannot be ranked.

    Repeats on one split are averaged first. Repeats that differ in the seed of the training alone have the same test
    rows and are no further split.
    """
    items, score = results.featured, results.target.main
    by_split = [_scores_by_split(item, score) for item in items]
    shared = [split for split in by_split[0] if all(split in each for each in by_split)]
    if len(items) < LEAST_MODELS or len(shared) < LEAST_SPLITS:
        return (
            "There is no diagram of critical differences, because ranks need at least "
            f"{LEAST_MODELS} configurations and {LEAST_SPLITS} test splits on which all of them were scored. The "
            f"report has {_count(len(items), 'configuration')} and {_count(len(shared), 'such split')}."
        )
    sign = 1.0 if score.larger_is_better else -1.0
    scores = np.array([[sign * each[split] for each in by_split] for split in shared])
    folds = any(run.spec["split"]["kind"] == "outer_folds" for run in results.runs)
    return Ranking(items, score, rank_test(scores), folds)


def _count(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'s' * (count > 1)}"


def _scores_by_split(item: ReportedConfiguration, score: ShownScore) -> dict[DrawnSplit, float]:
    """Return split -> score, the mean over its repeats, of the splits that define it; none if test rows are fixed."""
    values: dict[DrawnSplit, list[float]] = {}
    for run in item.runs:
        if run.spec["split"]["kind"] in _DRAW_TEST_ROWS:
            values.setdefault(repeat_of(run)[0], []).append(find_metric(run, score.path))
    means = {split: Spread.of(of_split).mean for split, of_split in values.items()}
    return {split: mean for split, mean in means.items() if not math.isnan(mean)}
