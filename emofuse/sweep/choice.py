"""Which configurations are chosen: from rows of searched runs alone, which hold scores of validation rows and no other.

Nothing here opens a cache or knows a label, so no choice can depend on a test row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from emofuse.specs import canonical_json
from emofuse.specs.sweeps import Metric
from emofuse.sweep.rows import RunRow

if TYPE_CHECKING:
    from emofuse.sweep.configurations import Configuration


@dataclass(frozen=True)
class ScoredConfiguration:
    """A configuration and its searched runs.

    Attributes:
        configuration: what was trained.
        rows: its runs, by fold and seed.
        score: mean validation score, in its own unit (a loss is not negated); None if a run diverged or has no score.
        error: standard error of that mean; None of a single run.
        loss: mean validation loss; infinite where there is no score.
        order: place in the search.
    """

    configuration: Configuration
    rows: tuple[RunRow, ...]
    score: float | None
    error: float | None
    loss: float
    order: int

    @property
    def diverged(self) -> int:
        """How many of its runs diverged."""
        return sum(row.ended == "diverged" for row in self.rows)

    @property
    def halved(self) -> int:
        """How many of its runs were ended by successive halving."""
        return sum(row.ended == "halved" for row in self.rows)

    @property
    def parameters(self) -> int:
        """Trainable parameters of one head."""
        return self.rows[0].parameters


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        ranked: every configuration that can win, the best first.
        lost: those that cannot, because a run of theirs diverged, in the order of the search.
        finalists: the best for each value of `best_of`, and the baseline, the best first.
        baseline: the best with the baseline's streams, which the others are tested against; None if none can win.
        undecided: values of `best_of`, as `factor value`, for which no configuration can win.
    """

    ranked: tuple[ScoredConfiguration, ...]
    lost: tuple[ScoredConfiguration, ...]
    finalists: tuple[ScoredConfiguration, ...]
    baseline: ScoredConfiguration | None
    undecided: tuple[str, ...]


def score_configurations(
    configurations: Sequence[Configuration], rows: Mapping[str, Sequence[RunRow]], select: Metric
) -> list[ScoredConfiguration]:
    """Scores of configurations, in their order.

    Args:
        configurations: in the order of the search.
        rows: key of a configuration -> all its runs, at least one.
        select: the validation score that counts.
    """
    scored = []
    for order, configuration in enumerate(configurations):
        own = sorted(rows[configuration.key], key=_fold_and_seed)
        score, error = mean_and_error(own, select)
        loss, _ = mean_and_error(own, "loss")
        scored.append(
            ScoredConfiguration(configuration, tuple(own), score, error, math.inf if loss is None else loss, order)
        )
    return scored


def mean_and_error(rows: Sequence[RunRow], metric: Metric) -> tuple[float | None, float | None]:
    """Mean of a validation score over folds and seeds, and its standard error.

    The error is of the means of the folds (seeds of one fold share its rows and are no independent samples of them), or
    of the seeds where there are no folds: standard deviation (n - 1) over the root of n.

    Returns:
        Mean and error; both None if a run diverged or has no score, the error None of a single value.
    """
    values: dict[int | None, list[float]] = {}
    for row in sorted(rows, key=_fold_and_seed):
        value: float | None = getattr(row, f"val_{metric}")
        if row.ended == "diverged" or value is None:
            return None, None
        values.setdefault(row.fold, []).append(value)
    samples = [fmean(of_fold) for of_fold in values.values()] if len(values) > 1 else next(iter(values.values()))
    return fmean(samples), stdev(samples) / math.sqrt(len(samples)) if len(samples) > 1 else None


def choose(
    scored: Sequence[ScoredConfiguration], select: Metric, best_of: Sequence[str], baseline: Sequence[str]
) -> Choice:
    """The best configuration for each value of the factors `best_of`, among them the best of all.

    A configuration with a run that diverged cannot win. One that was halved was not trained to its end, so it comes
    after all that were. Equal scores go to the lower validation loss, then to fewer parameters, then to the earlier
    place in the search.

    Args:
        scored: every configuration of the sweep.
        select: the validation score that counts.
        best_of: factors; with several, each combination of their values that was searched.
        baseline: streams of the configurations of which the best is the baseline.
    """
    able = [each for each in scored if each.score is not None]
    ranked = sorted(able, key=lambda each: _rank(each, select))
    chosen: dict[str, ScoredConfiguration] = {}
    for each in ranked:
        chosen.setdefault(factor_values(each.configuration, best_of), each)
    plain = next((each for each in ranked if set(each.configuration.run.features.streams) == set(baseline)), None)
    final = {each.order for each in (*chosen.values(), plain) if each is not None}
    wanted = dict.fromkeys(factor_values(each.configuration, best_of) for each in scored)
    return Choice(
        ranked=tuple(ranked),
        lost=tuple(each for each in scored if each.score is None),
        finalists=tuple(each for each in ranked if each.order in final),
        baseline=plain,
        undecided=tuple(values for values in wanted if values not in chosen),
    )


def factor_values(configuration: Configuration, factors: Sequence[str]) -> str:
    """`learning_rate 0.001, width 256`: values of some factors; one that does not vary, or has no use here, is `-`."""
    return ", ".join(f"{name} {_text(configuration.settings.get(name))}" for name in factors)


def objective(score: float | None, select: Metric) -> float | None:
    """The score as a search takes it: larger is better."""
    return -score if score is not None and select == "loss" else score


def _rank(each: ScoredConfiguration, select: Metric) -> tuple[bool, float, float, int, int]:
    better = objective(each.score, select)
    return (each.halved > 0, math.inf if better is None else -better, each.loss, each.parameters, each.order)


def _fold_and_seed(row: RunRow) -> tuple[int, int]:
    return (-1 if row.fold is None else row.fold, row.seed)


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return canonical_json(value)
