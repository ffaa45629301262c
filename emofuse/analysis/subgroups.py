"""Where one model is better than another: in each class and subgroup, with paired intervals and corrected tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import Ints, TestedRows
from emofuse.analysis.attributes import Subgroup
from emofuse.analysis.scoring import Scoring
from emofuse.metrics.weighted import RowScorer
from emofuse.statistics import (
    Interval,
    PairedTest,
    Resampling,
    ScoredRows,
    bootstrap_interval,
    holm,
    paired_bootstrap,
    resample_rows,
)

Floats = npt.NDArray[np.float64]
LEAST_UNITS = 20
"""A subgroup with fewer rows or groups to draw is shown, and neither tested nor ranked."""


@dataclass(frozen=True)
class ComparedSubgroup:
    """The main score of two models in a subgroup, such as their accuracy.

    Attributes:
        subgroup: the rows.
        units: the number of rows or groups that resamples draw from.
        first: the score of the first model.
        second: that of the second, which it is compared with.
        test: first less second, with its paired bootstrap interval; the p value is not corrected.
        corrected: the p value after Holm's correction over all tested subgroups; None for a small subgroup.
    """

    subgroup: Subgroup
    units: int
    first: float
    second: float
    test: PairedTest
    corrected: float | None

    @property
    def is_small(self) -> bool:
        """Whether there are too few rows for a test."""
        return self.units < LEAST_UNITS


def compare_in_subgroups(
    subgroups: Sequence[Subgroup],
    first: Floats | RowScorer,
    second: Floats | RowScorer,
    unit: Ints,
    resampling: Resampling,
) -> list[ComparedSubgroup]:
    """Compare two models in every subgroup, on the same resamples of rows or groups.

    Args:
        subgroups: the subgroups of n rows.
        first: whether the first model is right in each row, (n,); a mean over repeats lies between 0 and 1. Or the
            scorer of its answers, a function of weights (b, n) that returns a score (b, 1).
        second: the same of the second.
        unit: the unit of each row, int64 (n,).
        resampling: the number of resamples and the seed.
    """
    masks = np.stack([group.rows for group in subgroups], axis=1).astype(np.float64)
    resampled = resample_rows(
        [ScoredRows(unit, _scorer(masks, right)) for right in (first, second)],
        units=int(unit.max()) + 1,
        resampling=resampling,
    )
    tests = [
        paired_bootstrap(
            float(resampled.observed[0, place]),
            float(resampled.observed[1, place]),
            resampled.drawn[:, 0, place],
            resampled.drawn[:, 1, place],
        )
        for place in range(len(subgroups))
    ]
    units = [len(np.unique(unit[group.rows])) for group in subgroups]
    tested = [place for place, count in enumerate(units) if count >= LEAST_UNITS]
    corrected = dict(zip(tested, holm([tests[place].p for place in tested]), strict=True)) if tested else {}
    return [
        ComparedSubgroup(
            group,
            units[place],
            float(resampled.observed[0, place]),
            float(resampled.observed[1, place]),
            tests[place],
            None if place not in corrected else float(corrected[place]),
        )
        for place, group in enumerate(subgroups)
    ]


def _scorer(masks: Floats, right: Floats | RowScorer) -> RowScorer:
    """Return the scorer of each subgroup (b, G), of weights (b, n); NaN where none of its rows is."""
    if callable(right):
        scorer = right
        return lambda weights: np.concatenate([scorer(weights * mask) for mask in masks.T], axis=1)
    of_right = masks * right[:, None]

    def score(weights: Floats) -> Floats:
        rows = np.asarray(weights @ masks, np.float64)
        return np.divide(weights @ of_right, rows, out=np.full(rows.shape, np.nan), where=rows > 0)

    return score


@dataclass(frozen=True)
class FairGroup:
    """The scores of one model in a group of people.

    Attributes:
        subgroup: the rows.
        units: the number of rows or groups that resamples draw from.
        scores: score -> its value.
        intervals: score -> its 95 % interval.
    """

    subgroup: Subgroup
    units: int
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]

    @property
    def is_small(self) -> bool:
        """Whether there are too few rows for a rank."""
        return self.subgroup.count < LEAST_UNITS


@dataclass(frozen=True)
class Fairness:
    """The scores of one model by an attribute of people.

    Attributes:
        attribute: the attribute.
        groups: its groups.
        best: the group with the highest main score, such as accuracy, of those that are not small; None for fewer than
            two.
        worst: that with the lowest.
        gap: the score of the best less that of the worst.
        gap_interval: the 95 % interval of this difference, between these two groups.
        gap_by_chance: the mean gap where people, or rows, are dealt to groups of the same sizes at random.
        p: the share of such deals with a gap as large.
        over_rows: whether intervals draw rows although units are larger, because a group is a single unit (a speaker).
    """

    attribute: str
    groups: tuple[FairGroup, ...]
    best: str | None
    worst: str | None
    gap: float
    gap_interval: Interval
    gap_by_chance: float
    p: float
    over_rows: bool = False


def measure_fairness(
    groups: Sequence[Subgroup], answers: TestedRows, scoring: Scoring, resampling: Resampling, deals: int = 500
) -> Fairness:
    """Measure the scores of a model in the groups of one attribute, and the gap between the best and the worst.

    Args:
        groups: the groups, which have no row in common.
        answers: the answers of the model to all rows.
        scoring: the scores of the target.
        resampling: the number of resamples and the seed.
        deals: the number of random deals of rows to groups.
    """
    over_rows = any(len(np.unique(answers.unit[group.rows])) < 2 <= group.count for group in groups)
    if over_rows:
        answers = replace(answers, unit=np.arange(len(answers.unit)))
    parts = [
        scoring.prepare(
            answers.unit[group.rows],
            answers.label[group.rows],
            answers.outputs[group.rows],
            None if answers.target is None else answers.target[group.rows],
        )
        for group in groups
    ]
    resampled = scoring.resample([[part] for part in parts], units=int(answers.unit.max()) + 1, resampling=resampling)
    names = [score.column for score in scoring.scores]
    found = [
        FairGroup(
            group,
            len(np.unique(parts[place].unit)),
            {name: float(resampled.observed[place, number]) for number, name in enumerate(names)},
            {name: bootstrap_interval(resampled.drawn[:, place, number]) for number, name in enumerate(names)},
        )
        for place, group in enumerate(groups)
    ]
    ranked = [
        place for place, group in enumerate(found) if not group.is_small and not np.isnan(group.scores[scoring.main])
    ]
    if len(ranked) < 2:
        nothing = Interval(float("nan"), float("nan"))
        return Fairness(
            groups[0].attribute, tuple(found), None, None, float("nan"), nothing, float("nan"), float("nan"), over_rows
        )
    best = max(ranked, key=lambda place: found[place].scores[scoring.main])
    worst = min(ranked, key=lambda place: found[place].scores[scoring.main])
    gap = found[best].scores[scoring.main] - found[worst].scores[scoring.main]
    by_chance = _gaps_by_chance(
        [groups[place] for place in ranked], answers, scoring, seed=resampling.seed, deals=deals
    )
    return Fairness(
        groups[0].attribute,
        tuple(found),
        groups[best].name,
        groups[worst].name,
        gap,
        bootstrap_interval(resampled.drawn[:, best, 0] - resampled.drawn[:, worst, 0]),
        float(by_chance.mean()),
        float((1 + np.count_nonzero(by_chance >= gap - 1e-12)) / (1 + len(by_chance))),
        over_rows,
    )


def _gaps_by_chance(
    groups: Sequence[Subgroup], answers: TestedRows, scoring: Scoring, *, seed: int, deals: int
) -> Floats:
    """Return the gaps (deals,) where rows are dealt to the groups at random.

    Where every unit of several rows, such as a speaker, lies in one group (such as a sex), whole units are dealt.
    """
    member = np.full(len(answers.unit), -1)
    for place, group in enumerate(groups):
        member[group.rows] = place
    inside = np.flatnonzero(member >= 0)
    target = None if answers.target is None else answers.target[inside]
    unit = np.unique(answers.unit[inside], return_inverse=True)[1]
    scorer = scoring.main_scorer(scoring.prepare(unit, answers.label[inside], answers.outputs[inside], target))
    member = member[inside]
    of_unit = np.zeros(int(unit.max()) + 1, np.int64)
    of_unit[unit] = member
    units_are_parted = len(of_unit) > len(groups) and bool((of_unit[unit] == member).all())
    rng = np.random.default_rng([seed, len(inside)])
    dealt = np.stack(
        [rng.permutation(of_unit)[unit] if units_are_parted else rng.permutation(member) for _ in range(deals)]
    )
    scores = np.concatenate([scorer((dealt == place).astype(np.float64)) for place in range(len(groups))], axis=1)
    gaps: Floats = np.nanmax(scores, axis=1) - np.nanmin(scores, axis=1)
    return gaps
