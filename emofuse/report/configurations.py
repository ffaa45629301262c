"""The configurations of a report, from which every table, figure and sentence is made.

A configuration is all runs of one name that differ in their seeds only. Its numbers are means over these repeats;
differences to the baseline are taken repeat by repeat where both have the same seeds and splits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.report.search import SearchSummary
from emofuse.report.targets import ReportedTarget, ShownScore, decimals_of, part_entries, reported_target
from emofuse.results import RunRecord
from emofuse.specs import is_random
from emofuse.specs.heads import ORDERED
from emofuse.specs.nouns import Noun, common_noun

MOST_FEATURED = 12  # nobody looks at more confusion matrices
FEATURED = 6

DrawnSplit = int | tuple[int, int] | None
"""The seed of the split; of outer folds (the seed by which rows were dealt, the fold); None for the official split."""
Repeat = tuple[DrawnSplit, int]
"""(the split, the seed of the training)."""


@dataclass(frozen=True)
class Spread:
    """One number that was measured in n repeats.

    Attributes:
        mean: the mean; NaN if no repeat defines the number.
        sd: the standard deviation of the sample (n - 1); NaN for fewer than two repeats.
        low: the smallest value.
        high: the largest value.
        n: the number of repeats that define the number.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """Return the spread of the values that are defined (neither None nor NaN)."""
        defined = [float(value) for value in values if value is not None and not math.isnan(value)]
        if not defined:
            return cls(math.nan, math.nan, math.nan, math.nan, 0)
        if len(defined) == 1:  # most of the hundred thousands of numbers of a large sweep
            return cls(defined[0], math.nan, defined[0], defined[0], 1)
        return cls(float(np.mean(defined)), float(np.std(defined, ddof=1)), min(defined), max(defined), len(defined))


@dataclass(frozen=True)
class ReportedConfiguration:
    """All repeats of one configuration.

    Attributes:
        label: its name in tables: the name of the runs and, if it is used twice, the values that differ.
        runs: one or more runs, ordered by split, then training seed.
    """

    label: str
    runs: tuple[RunRecord, ...]

    @property
    def name(self) -> str:
        """The name in the specs of the runs."""
        return self.runs[0].name

    @property
    def spec(self) -> Mapping[str, Any]:
        """The spec of the first repeat; the others differ in their seeds only."""
        return self.runs[0].spec

    @property
    def repeats(self) -> tuple[Repeat, ...]:
        """The seeds of the runs."""
        return tuple(map(repeat_of, self.runs))

    @property
    def test_to_train(self) -> float:
        """The number of test rows divided by that of training rows, the mean over the runs."""
        return float(np.mean([run.rows["test"]["rows"] / run.rows["train"]["rows"] for run in self.runs]))

    @property
    def is_nested(self) -> bool:
        """Whether a nested sweep chose the options of each run, so that those of `spec` are of the first run alone."""
        return bool(self.spec.get("chosen_by"))

    @property
    def is_reference(self) -> bool:
        """Whether it is a reference model, which is shown apart and compared with nothing."""
        return bool(self.spec.get("reference"))

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of the streams, in the order of the spec."""
        return tuple(self.spec["features"]["streams"])

    @property
    def random_streams(self) -> tuple[str, ...]:
        """The names of the streams with random weights."""
        return tuple(name for name in self.streams if is_random(self.runs[0].streams[name]["weights"]))

    def metric(self, path: str, split: str = "test") -> Spread:
        """Return the spread of a metric by its place, such as `accuracy` or `macro.f1`."""
        return Spread.of(find_metric(run, path, split) for run in self.runs)

    @cached_property
    def noun(self) -> Noun:
        """What the test rows are called."""
        return common_noun(run.cache_spec for run in self.runs)

    @property
    def target(self) -> ReportedTarget:
        """What the report shows of the target of the runs."""
        return reported_target(self.runs[0].target_kind)

    def part_metric(self, key: str, split: str = "test") -> list[Spread]:
        """Return the spread of a score (or of `support`, `rows`) for each class, column or label, in their order."""
        columns = (
            [entry.get(key) for entry in part_entries(run.metrics[split], tuple(run.classes))] for run in self.runs
        )
        return [Spread.of(values) for values in zip(*columns, strict=True)]

    @cached_property
    def part_ranks(self) -> list[int]:
        """The rank of each class, column or label by its main score on the test split, from 1 for the best."""
        scores = np.array([spread.mean if spread.n else 0.0 for spread in self.part_metric(self.target.main_part.path)])
        ranks = np.empty(len(scores), dtype=np.int64)
        ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        return [int(rank) for rank in ranks]

    def validation(self, select: str) -> Spread:
        """Return the spread of a validation score (such as `macro_f1` or `loss`) at the epochs that were kept.

        That of an ensemble is the score of its mean probabilities.
        """
        return Spread.of(validation_score(run, select) for run in self.runs)

    @property
    def heads(self) -> int:
        """The number of heads whose probabilities are averaged, 1 for a single head."""
        return max(1, len(self.runs[0].heads))

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """The counts of test rows summed over repeats, int64 (C, C), true class down and predicted class across."""
        counts = np.asarray([run.metrics["test"]["confusion"] for run in self.runs], dtype=np.int64)
        total: npt.NDArray[np.int64] = counts.sum(axis=0)
        return total


@dataclass(frozen=True)
class Results:
    """Everything a report shows.

    Attributes:
        configurations: one or more configurations, in the order of tables and figures.
        baseline: the configuration that others are compared with.
        search: the search whose finalists these configurations are; None without a search.
        references: the reference models, which are shown apart.
    """

    configurations: tuple[ReportedConfiguration, ...]
    baseline: ReportedConfiguration
    search: SearchSummary | None = None
    references: tuple[ReportedConfiguration, ...] = ()

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, in the order of the configurations."""
        return [run for configuration in self.configurations for run in configuration.runs]

    @property
    def of_references(self) -> Results:
        """The results with the reference models in the place of the configurations, and the same baseline."""
        return replace(self, configurations=self.references, references=())

    @property
    def runs_by_split(self) -> list[RunRecord]:
        """The runs whose training and validation rows are those of their split; all runs if there is none.

        In ensembles of folds and in second trainings, validation rows train too and are counted twice.
        """
        return [run for run in self.runs if not shares_rows(run)] or self.runs

    @property
    def classes(self) -> tuple[str, ...]:
        """The label names in index order."""
        return tuple(self.configurations[0].runs[0].classes)

    @cached_property
    def noun(self) -> Noun:
        """What the test rows are called."""
        return common_noun(run.cache_spec for run in self.runs)

    @property
    def target(self) -> ReportedTarget:
        """What the report shows of the target, of which all runs have one kind."""
        return self.baseline.target

    def in_table(self, score: ShownScore) -> ShownScore:
        """Return a score with the decimals that all its values in a table have.

        A score in the unit of a column has those that give the smallest mean three significant digits, but at most one
        more than the largest mean needs.
        """
        if score.decimals is not None:
            return score
        means = [mean for item in self.configurations if (mean := abs(item.metric(score.path).mean)) > 0] or [0.0]
        return replace(score, decimals=min(decimals_of(min(means)), decimals_of(max(means)) + 1))

    @property
    def dataset(self) -> Mapping[str, Any]:
        """The manifest's information on the dataset."""
        return self.configurations[0].runs[0].dataset

    @property
    def random_streams(self) -> tuple[str, ...]:
        """The names of all streams with random weights, in order of first use."""
        return tuple(dict.fromkeys(name for item in self.configurations for name in item.random_streams))

    @cached_property
    def select(self) -> str:
        """The validation score that ranks: that of the search, else the one by which all runs chose their epoch.

        A score of the target takes the place of losses that cannot be compared.
        """
        if self.search:
            return self.search.select
        used = {run.spec["train"]["select"] for run in self.runs}
        if len(used) > 1 or (used == {"loss"} and not self._losses_compare):
            return self.target.curve
        return str(used.pop())

    @property
    def _losses_compare(self) -> bool:
        """Whether validation losses have one definition and one unit.

        Runs may learn by several losses. The loss of an ensemble of numbers is in the units of its columns, and that of
        a single head in those of the standardised ones.
        """
        losses = {(run.spec.get("target") or {}).get("loss") for run in self.runs}
        ensembles = {bool(run.heads) for run in self.runs}
        return len(losses) == 1 and (self.target.kind != "regression" or len(ensembles) == 1)

    @cached_property
    def ranked(self) -> tuple[ReportedConfiguration, ...]:
        """The configurations by validation score, the best first; test scores play no part.

        If a search knows all their names, its ranking counts, and configurations with a final run that diverged come
        last.
        """
        names = {item.name for item in self.configurations}
        searched = [item for item in self.search.ranked if item.name in names] if self.search else []
        places = {item.name: (bool(item.final_diverged), place) for place, item in enumerate(searched)}
        if len(places) == len(self.configurations):
            return tuple(sorted(self.configurations, key=lambda item: places[item.name]))
        sign = 1 if self.select == "loss" else -1
        scores = [item.validation(self.select).mean for item in self.configurations]
        keys = [math.inf if math.isnan(score) else sign * score for score in scores]
        return tuple(item for _, item in sorted(zip(keys, self.configurations, strict=True), key=lambda pair: pair[0]))

    @cached_property
    def featured(self) -> tuple[ReportedConfiguration, ...]:
        """The configurations that have single figures: all, or of many the best by validation and the baseline."""
        if len(self.configurations) <= MOST_FEATURED:
            return self.configurations
        best = self.ranked[:FEATURED]
        return best if self.baseline in best else (*best, self.baseline)

    def difference(
        self, configuration: ReportedConfiguration, path: str, other: ReportedConfiguration | None = None
    ) -> Spread:
        """Return the difference of a metric to another configuration, the baseline unless given.

        The difference is taken repeat by repeat if both have the same seeds, which removes what the splits have in
        common. Otherwise it is the difference of the means, without a spread.
        """
        other = other or self.baseline
        ours = {repeat_of(run): find_metric(run, path, "test") for run in configuration.runs}
        theirs = {repeat_of(run): find_metric(run, path, "test") for run in other.runs}
        if ours.keys() == theirs.keys():
            return Spread.of(value - theirs[repeat] for repeat, value in ours.items())
        return Spread.of([configuration.metric(path).mean - other.metric(path).mean])

    def reachable(self, configuration: ReportedConfiguration) -> float | None:
        """Return the accuracy that the cues of a configuration's streams allow by design; None if it is unknown.

        Cues that only the order of steps shows count for stems over time that know an order.
        """
        reachable, cues = self.dataset.get("reachable_accuracy"), self.dataset.get("cue_streams")
        if not reachable or not cues:
            return None
        if configuration.spec["head"].get("temporal") not in ORDERED:
            cues = {cue: streams for cue, streams in cues.items() if cue not in self.dataset.get("order_cues", ())}
        kinds = (stream["kind"] for stream in configuration.runs[0].streams.values())
        used = {*configuration.streams, *kinds}
        value = reachable.get("+".join(sorted(cue for cue, streams in cues.items() if used & set(streams))))
        return None if value is None else float(value)


def shares_rows(run: RunRecord) -> bool:
    """Return whether validation rows of a run also train: in an ensemble of folds, or in a second training."""
    ensemble = run.spec.get("ensemble") or {}
    return ensemble.get("folds") is not None or run.spec.get("refit", "none") != "none"


def repeat_of(run: RunRecord) -> Repeat:
    """Return what distinguishes the repeats of a configuration: the split and the seed of the training."""
    split = run.spec["split"]
    drawn: DrawnSplit = split.get("seed")
    if split["kind"] == "outer_folds":
        drawn = (split["seed"] + split["repeat"], split["index"])
    return drawn, run.spec["train"]["seed"]


def split_words(split: DrawnSplit) -> str:
    """Return the split of a repeat in a few words."""
    if split is None:
        return "official"
    if isinstance(split, tuple):
        return f"fold {split[1] + 1}, dealt by seed {split[0]}"
    return f"seed {split}"


def validation_score(run: RunRecord, select: str) -> float:
    """Return a validation score (such as `macro_f1` or `loss`) of a run at the epoch that was kept; NaN without it."""
    if run.heads:
        return find_metric(run, reported_target(run.target_kind).validation.get(select, select), "val")
    value = run.history[run.best_epoch - 1].get(f"val_{select}")
    return math.nan if value is None else float(value)


def find_metric(run: RunRecord, path: str, split: str = "test") -> float:
    """Return a metric by its place, such as `macro.f1`; NaN if the run was saved without it."""
    value: Any = run.metrics.get(split)
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return math.nan if value is None else float(value)
