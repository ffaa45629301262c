"""What each stream is worth for targets without classes: numbers by their mean CCC, several labels by mAP.

It is the same as `emofuse.analysis.worth` with another score. The value of no stream is the score of the mean of the
training rows: a CCC of 0, and the mean average precision of an order at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from emofuse.analysis.shapley import Floats, Game
from emofuse.analysis.solved_outputs import SolvedOutputs
from emofuse.analysis.worth import KINDS, Measured
from emofuse.errors import TrainingError
from emofuse.metrics.multilabel import multilabel_scorer
from emofuse.metrics.regression import regression_scorer
from emofuse.metrics.weighted import RowScorer
from emofuse.statistics import Resampling, ScoredRows, bootstrap_interval, resample_rows

SCORES: Mapping[str, tuple[str, str, Callable[[Floats, Floats], RowScorer]]] = {
    "regression": ("ccc", "mean CCC", regression_scorer),
    "multilabel": ("map", "mean average precision", multilabel_scorer),
}
"""Kind of a target -> its main score: the key, the name, and the scorer whose first score it is."""


@dataclass(frozen=True)
class TargetWorth:
    """What the streams are worth by one score.

    Attributes:
        game: the streams and their subsets.
        key: the key of the score in tables of numbers.
        title: its name.
        of_streams: kind of `emofuse.analysis.worth.KINDS` -> a number for each stream.
        values: the scores of the subsets, in the order of the game.
        outputs: the outputs that were scored.
    """

    game: Game
    key: str
    title: str
    of_streams: Mapping[str, tuple[Measured, ...]]
    values: tuple[Measured, ...]
    outputs: SolvedOutputs

    def get(self, stream: str, kind: str = "shapley") -> Measured:
        """Return one number of a stream."""
        return self.of_streams[kind][self.game.players.index(stream)]


def measure_target_worth(outputs: SolvedOutputs, kind: str, resampling: Resampling) -> TargetWorth:
    """Return what streams are worth by the main score of a kind of target.

    Args:
        outputs: the outputs of all subsets.
        kind: the kind of the target.
        resampling: the number of resamples and the seed.

    Raises:
        TrainingError: the kind has no score here.
    """
    if kind not in SCORES or outputs.values is None:
        raise TrainingError(f"what streams are worth is measured for {', '.join(SCORES)} and classes, got {kind}")
    key, title, scorer = SCORES[kind]
    game, values = Game(outputs.streams), outputs.values
    resampled = resample_rows(
        [ScoredRows(outputs.unit, _main(scorer(values, outputs.outputs[subset]))) for subset in game.subsets],
        units=int(outputs.unit.max()) + 1,
        resampling=resampling,
    )
    observed, drawn = resampled.observed[:, 0], resampled.drawn[:, :, 0]
    of_streams = {each: _measured(getattr(game, each), observed, drawn) for each in KINDS}
    return TargetWorth(game, key, title, of_streams, _measured(np.eye(len(game.subsets)), observed, drawn), outputs)


def _main(scorer: RowScorer) -> RowScorer:
    return lambda weights: scorer(weights)[:, :1]


def _measured(weights: Floats, observed: Floats, drawn: Floats) -> tuple[Measured, ...]:
    values, draws = weights @ observed, drawn @ weights.T
    return tuple(
        Measured(float(value), bootstrap_interval(column)) for value, column in zip(values, draws.T, strict=True)
    )


def stream_rows(worth: TargetWorth) -> list[dict[str, Any]]:
    """Return plain numbers, one row for each stream and kind."""
    return [
        {
            "stream": stream,
            "kind": kind,
            "score": worth.key,
            "value": worth.get(stream, kind).value,
            "low": worth.get(stream, kind).interval.low,
            "high": worth.get(stream, kind).interval.high,
        }
        for kind in KINDS
        for stream in worth.game.players
    ]


def subset_rows(worth: TargetWorth) -> list[dict[str, Any]]:
    """Return plain numbers, one row for each subset."""
    return [
        {
            "streams": " ".join(name for name in worth.game.players if name in subset),
            worth.key: each.value,
            f"{worth.key}_low": each.interval.low,
            f"{worth.key}_high": each.interval.high,
        }
        for subset, each in zip(worth.game.subsets, worth.values, strict=True)
    ]
