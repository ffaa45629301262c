"""The A/A check: how often do the tests of a report call two trainings of one configuration different?

    runs of one configuration that differ in their training seeds alone -> pairs of equals -> tests -> rate at 5 %

A test that keeps its word is wrong in about 5 % of such pairs. A test that leaves the randomness of training out of its
intervals is wrong more often, and by how much depends on the data and the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta

from emofuse.errors import ResultsError
from emofuse.report.answers import ConfigurationAnswers, Pool, pool_by_images, read_answers
from emofuse.report.configurations import DrawnSplit, ReportedConfiguration, Results
from emofuse.report.pool_scores import score_pool
from emofuse.results import RunRecord
from emofuse.specs import RunSpec
from emofuse.statistics import Interval, Resampling, mcnemar
from emofuse.training.runs import train_runs

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

LEAST_REPEATS = 4
LEVEL = 0.05
MOST_PAIRS = 100
"""The largest number of pairs of one kind for each configuration and split; drawn at random if there are more."""

ONE_RUN, SEVERAL_RUNS, SPLITS = "one run each", "several runs each", "the same splits each"


@dataclass(frozen=True)
class FalseAlarms:
    """How often a test calls equals different.

    Attributes:
        test: the name of the test.
        of: what each side of a pair is: one run, half of the runs of a split, or one run on each of several splits.
        pairs: the number of pairs that were tested.
        alarms: the number of pairs with p < 5 %.
        independent: the largest number of these pairs in which no run occurs twice; the interval counts these alone.
    """

    test: str
    of: str
    pairs: int
    alarms: int
    independent: int

    @property
    def rate(self) -> float:
        """The share of false alarms."""
        return self.alarms / self.pairs

    @property
    def interval(self) -> Interval:
        """The 95 % binomial interval of the rate (Clopper and Pearson, 1934), as of the independent pairs."""
        count = self.independent
        hits = self.rate * count
        low = float(beta.ppf(0.025, hits, count - hits + 1)) if hits > 0 else 0.0
        high = float(beta.ppf(0.975, hits + 1, count - hits)) if hits < count else 1.0
        return Interval(low, high)


def check_statistics(results: Results, runs: Path, *, seed: int = 0) -> list[FalseAlarms]:
    """Test pairs of equals: runs of one configuration that differ in their training seeds alone.

    Three kinds of pairs are tested as a report tests configurations. One run against one run, on one split: paired
    bootstrap and McNemar. Half of the runs of a split against the other half: the bootstrap over images and repeats.
    One run on each of several splits against another run on each: the corrected resampled t-test.

    Args:
        results: the configurations; those with fewer than four runs on every split, and with fewer than two runs on
            each of several splits, have no pairs.
        runs: the folder of the saved runs.
        seed: the seed of the pairs that are drawn if there are many.

    Raises:
        ResultsError: no configuration has enough runs, or the predictions of one that has cannot be used.
    """
    enough = [item for item in results.configurations if has_pairs(item)]
    if not enough:
        raise ResultsError(
            f"{runs}: no configuration has {LEAST_REPEATS} runs on one split, or two on each of several splits, that "
            "differ in their training seeds alone"
        )
    answered, faults = read_answers(enough, runs)
    if faults:
        raise ResultsError("; ".join(faults.values()))
    generator = np.random.default_rng(seed)
    tallies: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for item in answered:
        for key, tally in _tallies(item, results, generator):
            tallies.setdefault(key, []).append(tally)
    return [FalseAlarms(test, of, *np.sum(counts, axis=0).tolist()) for (test, of), counts in tallies.items()]


def retrain(
    cache: Cache,
    specs: Sequence[RunSpec],
    seeds: int,
    folder: Path,
    *,
    device: str = "auto",
    say: Callable[[str], None] | None = None,
) -> list[RunRecord]:
    """Train one configuration with training seeds 0, 1, ... on each of its splits; runs that exist are read.

    Args:
        cache: the cache of the features.
        specs: the configuration, once for each split.
        seeds: the number of training seeds.
        folder: the folder of these runs, apart from those of reports.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        say: receives a sentence on what is trained.

    Raises:
        EmofuseError: as `train_runs`.
    """
    runs = [
        spec.model_copy(update={"train": spec.train.model_copy(update={"seed": seed})})
        for spec in specs
        for seed in range(seeds)
    ]
    if say is not None:
        say(f"training {specs[0].name} with {seeds} seeds on {len(specs)} split{'s' * (len(specs) > 1)}, in {folder}")
    return [record for record, _ in train_runs(cache, runs, folder, device=device)]


def has_pairs(item: ReportedConfiguration) -> bool:
    """Return whether a configuration has enough runs: four on a split, or two on each of several splits."""
    counts = [len(seeds) for seeds in seeds_by_split(item).values()]
    return max(counts) >= LEAST_REPEATS or (len(counts) > 1 and min(counts) > 1)


def seeds_by_split(item: ReportedConfiguration) -> dict[DrawnSplit, list[int]]:
    """Return split -> training seeds."""
    seeds: dict[DrawnSplit, list[int]] = {}
    for split, seed in item.repeats:
        seeds.setdefault(split, []).append(seed)
    return seeds


def _tallies(
    item: ConfigurationAnswers, results: Results, generator: np.random.Generator
) -> Iterator[tuple[tuple[str, str], tuple[int, int, int]]]:
    """Yield (test, kind of pairs), (pairs, alarms, independent pairs) of one configuration."""
    by_split: dict[str, list[int]] = {}
    for place, rows in enumerate(item.rows):
        by_split.setdefault(rows.key, []).append(place)
    for places in by_split.values():
        if len(places) >= LEAST_REPEATS:
            singles = [((first,), (second,)) for first, second in combinations(places, 2)]
            yield from _tested(item, _some(singles, generator), results, ONE_RUN, len(places) // 2)
            yield from _tested(item, _halves(places, generator), results, SEVERAL_RUNS, 1)
    if len(by_split) > 1 and (count := min(map(len, by_split.values()))) > 1:
        across = [tuple(places[nth] for places in by_split.values()) for nth in range(count)]
        pairs = list(combinations(across, 2))
        yield from _tested(item, _some(pairs, generator), results, SPLITS, count // 2)


Side = tuple[int, ...]
"""The places of the runs of one side of a pair."""


def _some(pairs: Sequence[tuple[Side, Side]], generator: np.random.Generator) -> list[tuple[Side, Side]]:
    if len(pairs) <= MOST_PAIRS:
        return list(pairs)
    return [pairs[place] for place in sorted(generator.choice(len(pairs), MOST_PAIRS, replace=False))]


def _halves(places: Sequence[int], generator: np.random.Generator) -> list[tuple[Side, Side]]:
    """Return different ways to draw two halves of the runs, at most a fifth of `MOST_PAIRS`."""
    half, chosen = len(places) // 2, {}
    for _ in range(MOST_PAIRS):
        order = generator.permutation(places).tolist()
        sides = sorted((tuple(sorted(order[:half])), tuple(sorted(order[half : 2 * half]))))
        chosen[tuple(sides)] = (sides[0], sides[1])
    return list(chosen.values())[: MOST_PAIRS // 5]


def _tested(
    item: ConfigurationAnswers, pairs: Iterable[tuple[Side, Side]], results: Results, of: str, independent: int
) -> Iterator[tuple[tuple[str, str], tuple[int, int, int]]]:
    alarms: dict[str, int] = {}
    count = 0
    for first, second in pairs:
        count += 1
        for test, p in _p_values(item, first, second, results, count).items():
            alarms[test] = alarms.get(test, 0) + (p < LEVEL)
    for test, number in alarms.items():
        yield (test, of), (count, number, independent)


def _p_values(
    item: ConfigurationAnswers, first: Side, second: Side, results: Results, seed: int
) -> Mapping[str, float]:
    """Return test -> p value of the two sides, which are tested like two configurations of a report."""
    sides = [_side(item, label, places) for label, places in (("first", first), ("second", second))]
    (pool,), _ = pool_by_images(sides)
    resampling = Resampling(count=1000, seed=seed)
    scores = score_pool(pool, len(results.classes), resampling, results.target, [("first", "second")])
    kind = _name(pool)
    compared = [score.path for score in results.target.compared]
    p_values = {f"{kind}, {path}": scores.test("first", "second", path).p for path in compared}
    groups = pool.unit if pool.grouped else None
    if len(first) > 1 or not results.target.has_classes:
        return p_values
    right = [side.predicted[0] == side.rows[0].label for side in sides]
    return p_values | {"McNemar": mcnemar(right[1], right[0], groups, seed).p}


def _name(pool: Pool) -> str:
    if pool.splits > 1:
        return "corrected resampled t"
    return "bootstrap over images" if len(pool.answered[0].rows) == 1 else "bootstrap over images and repeats"


def _side(item: ConfigurationAnswers, label: str, places: Side) -> ConfigurationAnswers:
    """Return some runs of a configuration as a configuration of its own."""
    return replace(
        item,
        label=label,
        rows=tuple(item.rows[place] for place in places),
        predicted=tuple(item.predicted[place] for place in places),
        probs={item.rows[place].key: item.probs[item.rows[place].key] for place in places},
        repeats=tuple(item.repeats[place] for place in places),
        outputs=tuple(item.outputs[place] for place in places) if item.outputs else (),
    )
