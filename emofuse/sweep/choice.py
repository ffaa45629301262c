"""The choice among the configurations of a search, made from the scores of validation rows alone.

This module opens no cache and sees no label, so no choice can depend on a test row.
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
    """A configuration with the rows and the score of its searched runs.

    Attributes:
        configuration: the configuration.
        rows: the rows of its runs, sorted by fold and seed.
        score: the mean validation score, in its own unit (a loss is not negated); None if a run diverged.
        error: the standard error of the score (see `mean_and_error`); None for a single run.
        loss: the mean validation loss; infinite if a run diverged.
        order: the index of the configuration in the search.
    """

    configuration: Configuration
    rows: tuple[RunRow, ...]
    score: float | None
    error: float | None
    loss: float
    order: int

    @property
    def diverged(self) -> int:
        """The number of runs that diverged."""
        return sum(row.ended == "diverged" for row in self.rows)

    @property
    def halved(self) -> int:
        """The number of runs that successive halving ended early."""
        return sum(row.ended == "halved" for row in self.rows)

    @property
    def parameters(self) -> int:
        """The number of trainable parameters of one head."""
        return self.rows[0].parameters


@dataclass(frozen=True)
class Choice:
    """The ranking of a search, and the configurations chosen from it.

    Attributes:
        ranked: the configurations that have a score, the best first.
        lost: the configurations without a score because a run diverged, in the order of the search.
        finalists: the best configuration for each value of `best_of`, and the baseline, the best first.
        baseline: the best configuration with the baseline's streams, against which others are tested; None if there is
            none with a score.
        undecided: the values of `best_of`, as `factor value`, for which no configuration has a score.
        has_baseline: whether a baseline was asked for.
    """

    ranked: tuple[ScoredConfiguration, ...]
    lost: tuple[ScoredConfiguration, ...]
    finalists: tuple[ScoredConfiguration, ...]
    baseline: ScoredConfiguration | None
    undecided: tuple[str, ...]
    has_baseline: bool = True


def score_configurations(
    configurations: Sequence[Configuration], rows: Mapping[str, Sequence[RunRow]], select: Metric
) -> list[ScoredConfiguration]:
    """Return the configurations with their scores, in the same order.

    Args:
        configurations: the configurations in the order of the search.
        rows: key of a configuration -> the rows of all its runs, at least one.
        select: the validation score by which configurations are compared.
    """
    scored = []
    for order, configuration in enumerate(configurations):
        runs = sorted(rows[configuration.key], key=_fold_and_seed)
        score, error = mean_and_error(runs, select)
        loss, _ = mean_and_error(runs, "loss")
        scored.append(
            ScoredConfiguration(configuration, tuple(runs), score, error, math.inf if loss is None else loss, order)
        )
    return scored


def mean_and_error(rows: Sequence[RunRow], metric: Metric) -> tuple[float | None, float | None]:
    """Return the mean of a validation score over folds and seeds, and its standard error.

    The samples are the means of the n folds, over their seeds: seeds of one fold share its rows, so they are not
    independent. Folds share training rows, so they are not independent either: the squared error is the variance
    (n - 1) of the samples, multiplied by 1 / n + 1 / (K - 1) for K folds, and not by 1 / n (Nadeau and Bengio, Machine
    Learning 52, 2003). Without folds, the samples are the seeds, and the error is their deviation by the root of n.

    Returns:
        The mean and the error. Both are None if a run diverged or has no score; the error is None for a single sample.
    """
    values: dict[tuple[int, int] | None, list[float]] = {}
    for row in sorted(rows, key=_fold_and_seed):
        value: float | None = getattr(row, f"val_{metric}")
        if row.ended == "diverged" or value is None:
            return None, None
        values.setdefault(row.drawn_fold, []).append(value)
    samples = [fmean(of_fold) for of_fold in values.values()] if len(values) > 1 else next(iter(values.values()))
    if len(samples) == 1:
        return samples[0], None
    last_fold = max((fold[1] for fold in values if fold is not None), default=0) if len(values) > 1 else 0
    test_to_train = 1 / last_fold if last_fold else 0.0
    return fmean(samples), stdev(samples) * math.sqrt(1 / len(samples) + test_to_train)


def choose(
    scored: Sequence[ScoredConfiguration], select: Metric, best_of: Sequence[str], baseline: Sequence[str] | None
) -> Choice:
    """Choose the best configuration for each value of the factors `best_of`.

    A configuration with a run that diverged is not chosen. One that halving ended early ranks behind all that were
    trained to the end. Of equal scores, the lower validation loss wins, then fewer parameters, then the earlier
    configuration.

    Args:
        scored: every configuration of the sweep.
        select: the validation score by which configurations are compared.
        best_of: the factors; with several, a configuration is chosen for each combination of their values.
        baseline: the streams of the baseline, which is the best configuration with them; None for no baseline.
    """
    with_score = [each for each in scored if each.score is not None]
    ranked = sorted(with_score, key=lambda each: _rank(each, select))
    chosen: dict[str, ScoredConfiguration] = {}
    for each in ranked:
        chosen.setdefault(factor_values(each.configuration, best_of), each)
    streams = None if baseline is None else set(baseline)
    best_of_baseline = next((each for each in ranked if set(each.configuration.run.features.streams) == streams), None)
    final = {each.order for each in (*chosen.values(), best_of_baseline) if each is not None}
    wanted = dict.fromkeys(factor_values(each.configuration, best_of) for each in scored)
    return Choice(
        ranked=tuple(ranked),
        lost=tuple(each for each in scored if each.score is None),
        finalists=tuple(each for each in ranked if each.order in final),
        baseline=best_of_baseline,
        undecided=tuple(values for values in wanted if values not in chosen),
        has_baseline=baseline is not None,
    )


def factor_values(configuration: Configuration, factors: Sequence[str]) -> str:
    """Return text such as `learning_rate 0.001, width 256`; a factor that does not vary or is not used has `-`."""
    return ", ".join(f"{name} {_text(configuration.settings.get(name))}" for name in factors)


def objective(score: float | None, select: Metric) -> float | None:
    """Return the score with a sign by which larger is better."""
    return -score if score is not None and select == "loss" else score


def _rank(each: ScoredConfiguration, select: Metric) -> tuple[bool, float, float, int, int]:
    better = objective(each.score, select)
    return (each.halved > 0, math.inf if better is None else -better, each.loss, each.parameters, each.order)


def _fold_and_seed(row: RunRow) -> tuple[tuple[int, int], int]:
    return row.drawn_fold or (0, -1), row.seed


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return canonical_json(value)
