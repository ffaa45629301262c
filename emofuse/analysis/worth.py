"""What each stream is worth to models that are trained on subsets of the streams, with intervals.

The value of a subset is the score of its models on rows that they have not learned from: accuracy, mean CCC or mean
average precision (`emofuse.analysis.scoring`). That of no stream is the score of the most frequent class of the
training rows, or of the mean of their values: a CCC of 0, or the mean average precision of an order at random. For the
accuracy in the rows of one class it is 1 / C, that of a guess at random. All numbers are linear in these values
(`emofuse.analysis.shapley`) and are computed for the same bootstrap resamples of the rows, or of whole groups, for all
subsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.analysis.scoring import ScoredAnswers, Scoring
from emofuse.analysis.shapley import Game, Subset
from emofuse.statistics import Interval, Resampling, bootstrap_interval

Floats = npt.NDArray[np.float64]
KINDS: tuple[str, ...] = ("shapley", "leave_one_out", "add_one_in")


@dataclass(frozen=True)
class SubsetAnswers:
    """The answers of models of every subset of some streams to the same rows.

    Attributes:
        streams: the streams.
        scoring: the scores of the target.
        answers: subset -> its repeats, each with all rows; that of no stream is there too.
        units: the number of units that resamples draw from.
        grouped: whether units are groups of rows.
        models: what the models are, as a sentence.
        random_streams: the streams with random weights.
    """

    streams: tuple[str, ...]
    scoring: Scoring
    answers: Mapping[Subset, Sequence[ScoredAnswers]]
    units: int
    grouped: bool
    models: str
    random_streams: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, columns or labels."""
        return self.scoring.names

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.answers[frozenset()][0].unit)


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
        of_streams: (kind of `KINDS`, score) -> a number for each stream. A score is one of `Scoring.gains`, such as
            `accuracy`, or that of a part (`Scoring.parts`), such as `recall.K` for the accuracy in the rows of class K.
        interactions: score -> a number for each pair of streams (`Game.pairs`).
        values: score -> a number for each subset (`Game.subsets`).
        answers: what was scored.
    """

    game: Game
    of_streams: Mapping[tuple[str, str], tuple[Measured, ...]]
    interactions: Mapping[str, tuple[Measured, ...]]
    values: Mapping[str, tuple[Measured, ...]]
    answers: SubsetAnswers

    def get(self, stream: str, kind: str = "shapley", score: str = "") -> Measured:
        """Return one number of a stream, by the main score unless another is named."""
        return self.of_streams[kind, score or self.main][self.game.players.index(stream)]

    @property
    def main(self) -> str:
        """The main score."""
        return self.answers.scoring.main

    @property
    def total(self) -> float:
        """The score of all streams less that of none, which the Shapley values sum to."""
        values = self.values[self.main]
        return values[-1].value - values[0].value


def measure_worth(answers: SubsetAnswers, resampling: Resampling) -> Worth:
    """Return what streams are worth, by the scores of the target, and by those of each class, column or label.

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
    scoring = answers.scoring
    resampled = scoring.resample(
        [answers.answers[subset] for subset in game.subsets], units=answers.units, resampling=resampling
    )
    if scoring.target.has_classes:
        # Without streams all rows get one class, whose recall of 1 would make all streams look harmful to it.
        first, chance = len(scoring.scores), 1 / len(answers.classes)
        resampled.observed[0, first:] = chance
        resampled.drawn[:, 0, first:] = chance
    names = (*(score.column for score in scoring.gains), *scoring.parts)
    of_streams, interactions, values = {}, {}, {}
    for name in names:
        place = scoring.keys.index(name)
        observed, drawn = resampled.observed[:, place], resampled.drawn[:, :, place]
        for kind in KINDS:
            of_streams[kind, name] = _measured(getattr(game, kind), observed, drawn)
        interactions[name] = _measured(game.interactions, observed, drawn)
        values[name] = _measured(np.eye(len(game.subsets)), observed, drawn)
    return Worth(game, of_streams, interactions, values, answers)


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
            "score": score.partition(".")[0],
            worth.answers.scoring.target.part: worth.answers.classes[int(score.partition(".")[2])]
            if "." in score
            else "",
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
                for score in (each.column for each in worth.answers.scoring.gains)
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
        for score in (each.column for each in worth.answers.scoring.gains)
        for (first, second), each in zip(worth.game.pairs, worth.interactions[score], strict=True)
    ]
