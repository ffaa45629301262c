"""What a trained head loses when one of its streams is taken away from the rows that it is tested on.

    missing             the row counts as one without the stream: the head uses its vector for missing streams
    mean                every value is the mean of the training rows (0 after standardisation)
    shuffled_in_class   rows of the same class exchange the stream: what it says about the class stays, what it says
                        about the single row is gone
    shuffled_in_stratum the same for targets without classes: rows with similar values, or with the same set of labels
    shuffled            all tested rows exchange the stream: only its distribution stays (permutation importance;
                        Breiman, Machine Learning 2001)

The head is not trained again. So the drop says how much *this* head relies on the stream, and not what another head
could do without it: two streams that say the same can both have a drop of 0. `emofuse.analysis.worth` trains again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import Ints, TestedConfiguration
from emofuse.analysis.cached_rows import RunOnRows, check_same_answers, open_run, rows_of_samples
from emofuse.cache.reader import Cache
from emofuse.progress import step
from emofuse.statistics import Interval, Resampling, bootstrap_interval
from emofuse.training.trained import HeadInputs

METHODS: tuple[str, ...] = ("missing", "mean", "shuffled_in_class", "shuffled")
_DRAWN = ("shuffled_in_class", "shuffled_in_stratum", "shuffled")
_LEAST_IN_STRATUM = 8
"""The least mean number of rows of a stratum of numbers, and the least number of one of sets of labels."""
Outputs = npt.NDArray[Any]


def methods_of(*, has_classes: bool) -> tuple[str, ...]:
    """Return how the streams of a target are suppressed."""
    return METHODS if has_classes else tuple(name.replace("in_class", "in_stratum") for name in METHODS)


@dataclass(frozen=True)
class SuppressionOptions:
    """How streams are suppressed.

    Attributes:
        draws: the number of shuffles of each kind.
        seed: the seed of the shuffles and of the bootstrap.
        resamples: the number of bootstrap resamples.
    """

    draws: int = 10
    seed: int = 0
    resamples: int = 2_000


@dataclass(frozen=True)
class Drop:
    """The loss of one score without one stream.

    Attributes:
        stream: the stream.
        method: how it was suppressed, one of `methods_of`.
        score: the key of the score (`emofuse.analysis.scoring.Scoring.scores`), such as `accuracy`.
        full: the score of the head with all its streams.
        suppressed: the score without the stream, the mean over the draws.
        interval: the 95 % interval of the drop, by a paired bootstrap over rows or groups.
        sd_of_draws: the standard deviation of the drop over the draws; None for methods without draws.
        larger_is_better: whether a larger score is better.
    """

    stream: str
    method: str
    score: str
    full: float
    suppressed: float
    interval: Interval
    sd_of_draws: float | None
    larger_is_better: bool = True

    @property
    def drop(self) -> float:
        """What is lost; positive where the stream helps, also of a score of which a smaller one is better."""
        return self.full - self.suppressed if self.larger_is_better else self.suppressed - self.full


@dataclass(frozen=True)
class Suppression:
    """All drops of a configuration.

    Attributes:
        drops: the drops, by stream, method and score.
        missing: stream -> the share of the tested rows that have no such stream anyway.
        rows: the number of tested rows.
        draws: the number of draws of each shuffle.
        grouped: whether the intervals draw whole groups.
    """

    drops: tuple[Drop, ...]
    missing: Mapping[str, float]
    rows: int
    draws: int
    grouped: bool

    def get(self, stream: str, method: str, score: str = "") -> Drop:
        """Return one drop, of the main score unless another is named."""
        score = score or self.drops[0].score
        return next(each for each in self.drops if (each.stream, each.method, each.score) == (stream, method, score))


def suppress_streams(
    cache: Cache, runs: Path, tested: TestedConfiguration, options: SuppressionOptions, *, device: str = "cpu"
) -> Suppression:
    """Suppress each stream of a configuration on the rows that its runs have tested.

    Every run of the configuration answers its own test rows. The shuffles exchange rows of one run.

    Args:
        cache: the cache that the runs were trained on.
        runs: the folder of the runs.
        tested: the configuration with its saved answers.
        options: the draws, the seed and the resamples.
        device: the device of the heads.

    Raises:
        ResultsError: a run does not fit the cache or its saved predictions.
        StaleCacheError: a stream of the cache is not that of the runs.
    """
    streams = tested.item.streams
    answers: dict[tuple[str, str], list[list[Outputs]]] = {}
    lacking = dict.fromkeys(streams, 0)
    total = sum(len(rows.runs) for rows in tested.repeats) * len(streams)
    with step("suppressing", total, "streams") as advance:
        done = 0
        for rows in tested.repeats:
            of_runs: dict[tuple[str, str], list[list[Outputs]]] = {}
            strata = strata_of(tested.item.target.kind, rows.label, rows.target)
            for record, places in rows.parts:
                opened = open_run(cache, runs, record, rows_of_samples(cache, rows.sample_id[places]), device=device)
                check_same_answers(record, rows.outputs[places], opened.trained.answers(opened.inputs))
                for stream in streams:
                    lacking[stream] += int((~opened.inputs[0].valid[stream]).sum())
                    ids = rows.sample_id[places]
                    found = _answers(tested, opened, stream, strata[places], ids=ids, options=options)
                    for method, answer in found:
                        of_runs.setdefault((stream, method), []).append(answer)
                    done += 1
                    advance(done, total)
            for key, parts in of_runs.items():  # of the r-th draw the answers of all runs are joined
                joined = [np.concatenate(of_draw) for of_draw in zip(*parts, strict=True)]
                answers.setdefault(key, []).append(joined)
    count = sum(len(rows.sample_id) for rows in tested.repeats)
    drops = [
        drop
        for stream in streams
        for method in methods_of(has_classes=tested.item.target.has_classes)
        for drop in _drops(tested, stream, method, answers, options)
    ]
    return Suppression(
        tuple(drops),
        {stream: number / count for stream, number in lacking.items()},
        count // len(tested.repeats),
        options.draws,
        tested.grouped,
    )


def strata_of(kind: str, label: Ints, target: npt.NDArray[np.float64] | None) -> Ints:
    """Return the stratum of each row, int64 (n,), within which rows exchange a stream: what it says of it stays.

    A stratum is a class, the majority of a distribution, or a set of labels; sets with fewer than 8 rows are one.
    Numbers are cut into fifths of every column, or into fewer parts, so that a stratum of the columns together has 8
    rows on average; into halves of the first column alone where there are still too few rows.
    """
    if target is None or kind == "distribution":
        return label
    if kind == "multilabel":
        _, sets = np.unique(target > 0.5, axis=0, return_inverse=True)
        sets = sets.reshape(-1)
        return np.where(np.bincount(sets)[sets] < _LEAST_IN_STRATUM, sets.max() + 1, sets).astype(np.int64)
    columns, parts = target.shape[1], 5
    while parts > 2 and parts**columns * _LEAST_IN_STRATUM > len(target):
        parts -= 1
    if parts**columns * _LEAST_IN_STRATUM > len(target):
        columns = 1
    stratum = np.zeros(len(target), np.int64)
    for column in target.T[:columns]:
        inner = np.quantile(column, np.linspace(0, 1, parts + 1)[1:-1])
        stratum = stratum * parts + np.searchsorted(inner, column, side="right")
    return stratum


def _answers(
    tested: TestedConfiguration,
    opened: RunOnRows,
    stream: str,
    strata: Ints,
    *,
    ids: npt.NDArray[np.str_],
    options: SuppressionOptions,
) -> list[tuple[str, list[Outputs]]]:
    """Return, for each method, what scores need of the outputs to n rows in every draw."""
    found = []
    for method in methods_of(has_classes=tested.item.target.has_classes):
        if method not in _DRAWN:
            parts = [suppressed(opened.inputs, stream, method)]
        else:
            orders = [
                shuffle_of(method, strata, _generator(options.seed, stream, draw, ids)) for draw in range(options.draws)
            ]
            parts = [suppressed(opened.inputs, stream, method, order) for order in orders]
        found.append((method, [tested.scoring.kept(opened.trained.answers(part)) for part in parts]))
    return found


def suppressed(
    inputs: Sequence[HeadInputs], stream: str, method: str, order: Ints | None = None
) -> tuple[HeadInputs, ...]:
    """Return what heads see of n rows after one stream has been suppressed.

    Args:
        inputs: what each head sees.
        stream: the stream.
        method: one of `methods_of`.
        order: of a shuffle, the row whose stream each row gets, int64 (n,).
    """
    return tuple(_suppressed(each, stream, method, order) for each in inputs)


def _suppressed(inputs: HeadInputs, stream: str, method: str, order: Ints | None) -> HeadInputs:
    features, valid, steps = inputs.features[stream], inputs.valid[stream], inputs.steps.get(stream)
    if method == "missing":
        features, valid = np.zeros_like(features), np.zeros_like(valid)
    elif method == "mean":
        features = np.zeros_like(features)  # rows that lack the stream keep lacking it
    elif order is not None:
        features, valid = features[order], valid[order]
        steps = None if steps is None else steps[order]
    else:
        raise ValueError(f"method {method!r} needs an order of the rows")
    all_steps = dict(inputs.steps) if steps is None else {**inputs.steps, stream: steps}
    return replace(
        inputs,
        features={**inputs.features, stream: features},
        valid={**inputs.valid, stream: valid},
        steps=all_steps,
    )


def shuffle_of(method: str, strata: Ints, rng: np.random.Generator) -> Ints:
    """Return the row whose stream each row gets, int64 (n,): any row, or one of the same stratum, such as its class."""
    order = np.arange(len(strata))
    groups = [order] if method == "shuffled" else [np.flatnonzero(strata == each) for each in np.unique(strata)]
    for places in groups:
        order[places] = rng.permutation(places)
    return order


def _generator(seed: int, stream: str, draw: int, ids: npt.NDArray[np.str_]) -> np.random.Generator:
    """Return a generator that depends on the stream, the draw and the rows, not on the order of the work."""
    name = hashlib.sha256("\0".join([stream, *ids.tolist()]).encode()).digest()[:8]
    return np.random.default_rng([seed, draw, int.from_bytes(name, "little")])


def _drops(
    tested: TestedConfiguration,
    stream: str,
    method: str,
    answers: Mapping[tuple[str, str], list[list[Outputs]]],
    options: SuppressionOptions,
) -> list[Drop]:
    of_repeats = answers[stream, method]
    full = [tested.scored(rows) for rows in tested.repeats]
    draws = [
        [tested.scored(rows, of_draw[draw]) for rows, of_draw in zip(tested.repeats, of_repeats, strict=True)]
        for draw in range(len(of_repeats[0]))
    ]
    scoring = tested.scoring
    resampled = scoring.resample(
        [full, *draws], units=tested.units, resampling=Resampling(options.resamples, options.seed)
    )
    drops = []
    for place, score in enumerate(scoring.scores):
        observed, drawn = resampled.observed[:, place], resampled.drawn[:, :, place]
        sign = 1 if score.larger_is_better else -1
        of_draws = observed[0] - observed[1:]
        drops.append(
            Drop(
                stream=stream,
                method=method,
                score=score.column,
                full=float(observed[0]),
                suppressed=float(observed[1:].mean()),
                interval=bootstrap_interval(sign * (drawn[:, 0] - drawn[:, 1:].mean(axis=1))),
                sd_of_draws=float(np.std(of_draws, ddof=1)) if len(of_draws) > 1 else None,
                larger_is_better=score.larger_is_better,
            )
        )
    return drops


def drop_rows(suppression: Suppression) -> list[dict[str, Any]]:
    """Return plain numbers, one row for each stream, method and score."""
    return [
        {
            "stream": each.stream,
            "method": each.method,
            "score": each.score,
            "with_all_streams": each.full,
            "suppressed": each.suppressed,
            "drop": each.drop,
            "drop_low": each.interval.low,
            "drop_high": each.interval.high,
            "sd_of_draws": each.sd_of_draws,
            "draws": suppression.draws if each.method in _DRAWN else None,
        }
        for each in suppression.drops
    ]
