"""What each stream is worth to models that are trained on subsets of the streams, with intervals.

The value of a subset is the score of its models on rows that they have not learned from. That of no stream is the
score of the most frequent class of the training rows, and for the accuracy in the rows of one class 1 / C, that of a
guess at random. All numbers are linear in these values
(`emofuse.analysis.shapley`)
and are computed for the same bootstrap resamples of the rows, or of whole groups, for all subsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import SCORES, score_means
from emofuse.analysis.shapley import Game, Subset
from emofuse.metrics.confusion import class_scores
from emofuse.statistics import Interval, Resampling, RunPredictions, bootstrap_interval

Floats = npt.NDArray[np.float64]
KINDS: tuple[str, ...] = ("shapley", "leave_one_out", "add_one_in")


@dataclass(frozen=True)
class SubsetAnswers:
    """The answers of models of every subset of some streams to the same rows.

    Attributes:
        streams: the streams.
        classes: the names of the classes.
        answers: subset -> its repeats, each with all rows; that of no stream is there too.
        units: the number of units that resamples draw from.
        grouped: whether units are groups of rows.
        models: what the models are, as a sentence.
        random_streams: the streams with random weights.
    """

    streams: tuple[str, ...]
    classes: tuple[str, ...]
    answers: Mapping[Subset, Sequence[RunPredictions]]
    units: int
    grouped: bool
    models: str
    random_streams: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.answers[frozenset()][0].label)


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Worth:
    """What the streams are worth.

    Attributes:
        game: the streams and their subsets.
        of_streams: (kind of `KINDS`, score) -> a number for each stream. A score is `accuracy`, `macro_f1`, or
            `recall.K` for the accuracy in the rows of class K.
        interactions: score -> a number for each pair of streams (`Game.pairs`).
        values: score -> a number for each subset (`Game.subsets`).
        answers: what was scored.
    """

    game: Game
    of_streams: Mapping[tuple[str, str], tuple[Measured, ...]]
    interactions: Mapping[str, tuple[Measured, ...]]
    values: Mapping[str, tuple[Measured, ...]]
    answers: SubsetAnswers

    def get(self, stream: str, kind: str = "shapley", score: str = "accuracy") -> Measured:
        """Return one number of a stream."""
        return self.of_streams[kind, score][self.game.players.index(stream)]

    @property
    def total(self) -> float:
        """The accuracy of all streams less that of none, which the Shapley values sum to."""
        values = self.values["accuracy"]
        return values[-1].value - values[0].value


def measure_worth(answers: SubsetAnswers, resampling: Resampling) -> Worth:
    """Return what streams are worth, by accuracy, macro F1 and the accuracy of every class.

    Args:
        answers: the answers of all subsets.
        resampling: the number of resamples and the seed.

    Raises:
        ValueError: a subset has no answers.
    """
    game = Game(answers.streams)
    absent = [subset for subset in game.subsets if subset not in answers.answers]
    if absent:
        raise ValueError(f"no answers of {' + '.join(sorted(absent[0]))} and {len(absent) - 1} more subsets")
    resampled = score_means(
        [answers.answers[subset] for subset in game.subsets],
        units=answers.units,
        classes=len(answers.classes),
        resampling=resampling,
        metrics=[*(formula for _, formula in SCORES), _recalls],
    )
    names = [*(name for name, _ in SCORES), *(f"recall.{place}" for place in range(len(answers.classes)))]
    # Without streams all rows get one class, whose recall of 1 would make all streams look harmful to it.
    chance = 1 / len(answers.classes)
    resampled.observed[0, len(SCORES) :] = chance
    resampled.drawn[:, 0, len(SCORES) :] = chance
    of_streams, interactions, values = {}, {}, {}
    for place, name in enumerate(names):
        observed, drawn = resampled.observed[:, place], resampled.drawn[:, :, place]
        for kind in KINDS:
            of_streams[kind, name] = _measured(getattr(game, kind), observed, drawn)
        interactions[name] = _measured(game.interactions, observed, drawn)
        values[name] = _measured(np.eye(len(game.subsets)), observed, drawn)
    return Worth(game, of_streams, interactions, values, answers)


def _recalls(counts: Floats) -> Floats:
    """Return the accuracy in the rows of each class; NaN where a resample has no row of the class."""
    recalls: Floats = np.where(counts.sum(axis=-1) > 0, class_scores(counts)["recall"], np.nan)
    return recalls


def _measured(weights: Floats, observed: Floats, drawn: Floats) -> tuple[Measured, ...]:
    """Return each linear combination (k, S) of observed values (S,) with its interval from drawn ones (B, S)."""
    values, draws = weights @ observed, drawn @ weights.T
    return tuple(
        Measured(float(value), bootstrap_interval(column)) for value, column in zip(values, draws.T, strict=True)
    )


def worth_rows(worth: Worth) -> list[dict[str, Any]]:
    """Return plain numbers, one row for each stream, kind and score."""
    return [
        {
            "stream": stream,
            "kind": kind,
            "score": score if not score.startswith("recall.") else "recall",
            "class": worth.answers.classes[int(score.partition(".")[2])] if score.startswith("recall.") else "",
            "value": each.value,
            "low": each.interval.low,
            "high": each.interval.high,
        }
        for (kind, score), numbers in worth.of_streams.items()
        for stream, each in zip(worth.game.players, numbers, strict=True)
    ]


def subset_rows(worth: Worth) -> list[dict[str, Any]]:
    """Return plain numbers, one row for each subset."""
    return [
        {
            "streams": " ".join(name for name in worth.game.players if name in subset),
            **{
                key: value
                for score, _ in SCORES
                for key, value in (
                    (score, worth.values[score][place].value),
                    (f"{score}_low", worth.values[score][place].interval.low),
                    (f"{score}_high", worth.values[score][place].interval.high),
                )
            },
        }
        for place, subset in enumerate(worth.game.subsets)
    ]


def interaction_rows(worth: Worth) -> list[dict[str, Any]]:
    """Return plain numbers, one row for each pair of streams and score."""
    return [
        {
            "first": first,
            "second": second,
            "score": score,
            "value": each.value,
            "low": each.interval.low,
            "high": each.interval.high,
        }
        for score, _ in SCORES
        for (first, second), each in zip(worth.game.pairs, worth.interactions[score], strict=True)
    ]
