"""Groups saved runs into configurations, from which every table, figure and sentence of a report is made.

A configuration is all runs of one name that differ in their seeds only. Its numbers are means over these repeats;
differences to the baseline are taken repeat by repeat where both have the same seeds and splits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import ResultsError
from emofuse.report.search import SearchSummary
from emofuse.report.targets import ReportedTarget, ShownScore, decimals_of, part_entries, reported_target
from emofuse.results import RunRecord
from emofuse.specs import EXACT_HEADS, digest, is_random

MOST_FEATURED = 12  # nobody looks at more confusion matrices
FEATURED = 6

DrawnSplit = int | tuple[int, int] | None
"""The seed of the split; of outer folds (the seed by which rows were dealt, the fold); None for the official split."""
Repeat = tuple[DrawnSplit, int]
"""(the split, the seed of the training)."""


_DRAWN = ("split.seed", "split.repeat", "split.index")
"""The places in a spec by which the splits of a configuration's repeats differ."""


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
        sd = float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
        return cls(float(np.mean(defined)), sd, min(defined), max(defined), len(defined))


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
        path = self.target.validation.get(select, select)
        return Spread.of(
            find_metric(run, path, "val") if run.heads else run.history[run.best_epoch - 1].get(f"val_{select}")
            for run in self.runs
        )

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
        return tuple(self.runs[0].classes)

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
        return self.runs[0].dataset

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
        """Return the accuracy that the cues of a configuration's streams allow by design; None if it is unknown."""
        reachable, cues = self.dataset.get("reachable_accuracy"), self.dataset.get("cue_streams")
        if not reachable or not cues:
            return None
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


def group_runs(
    records: Sequence[RunRecord],
    where: str,
    *,
    baseline: str | None = None,
    order: Sequence[str] | None = None,
    search: SearchSummary | None = None,
) -> Results:
    """Group runs into configurations.

    Runs of one name whose specs or cached streams differ in more than seeds become separate configurations, with the
    difference in their labels.

    Args:
        records: the runs.
        where: where the runs come from, for messages.
        baseline: the name or label of the baseline; the first configuration unless given.
        order: names in the order of tables; others follow, the first trained first.
        search: the search whose finalists the runs are.

    Raises:
        ResultsError: there are no runs, several datasets, the same repeat twice, or the baseline is unknown.
    """
    if not records:
        raise ResultsError(f"{where}: no runs in this folder; train first: emofuse run NAME")
    _check_one_target(records, where)
    _check_one_dataset(records, where)
    groups: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: (record.created, record.digest)):
        groups.setdefault(digest([record.name, _identity(record)]), []).append(record)
    _check_repeats(groups.values(), where)
    rank = {name: index for index, name in enumerate(order or ())}
    ranked = sorted(groups.values(), key=lambda runs: rank.get(runs[0].name, len(rank)))
    labels = _labels([runs[0] for runs in ranked])
    items = [
        ReportedConfiguration(label, tuple(sorted(runs, key=repeat_of)))
        for label, runs in zip(labels, ranked, strict=True)
    ]
    configurations = tuple(item for item in items if not item.is_reference)
    references = sorted((item for item in items if item.is_reference), key=_place_of_reference)
    if not configurations:
        raise ResultsError(
            f"{where}: only reference models in this folder, and no configuration; train first: emofuse run NAME"
        )
    first = configurations[0] if baseline is None else find_configuration(configurations, baseline, where, "baseline")
    return Results(configurations, first, search, tuple(references))


def find_metric(run: RunRecord, path: str, split: str = "test") -> float:
    """Return a metric by its place, such as `macro.f1`; NaN if the run was saved without it."""
    value: Any = run.metrics.get(split)
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return math.nan if value is None else float(value)


def _place_of_reference(item: ReportedConfiguration) -> tuple[int, tuple[str, ...], int]:
    """Return the place of a reference model in its table: those of many streams first, each in the same order."""
    kind = item.spec["head"]["kind"]
    return -len(item.streams), item.streams, EXACT_HEADS.index(kind) if kind in EXACT_HEADS else len(EXACT_HEADS)


def _identity(run: RunRecord) -> dict[str, Any]:
    """Return what the repeats of a configuration have in common: dotted place in the spec -> value."""
    if run.spec.get("chosen_by"):  # the options of a nested sweep differ between its outer folds
        split = {key: value for key, value in run.spec["split"].items() if key not in {"seed", "repeat", "index"}}
        return _flatten({"chosen_by": run.spec["chosen_by"], "split": split})
    flat = _flatten({key: value for key, value in run.spec.items() if key != "name"})
    flat.pop("train.seed")
    for key in _DRAWN:
        flat.pop(key, None)
    return flat | {f"digest of {name}": stream["digest"][:8] for name, stream in run.streams.items()}


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {prefix + key: item}
    return flat


def _labels(firsts: Sequence[RunRecord]) -> list[str]:
    """Return the name of each configuration; where a name is used twice, also the values that differ."""
    labels = []
    for first in firsts:
        twins = [_identity(other) for other in firsts if other.name == first.name]
        if len(twins) == 1:
            labels.append(first.name)
            continue
        ours = _identity(first)
        keys = dict.fromkeys(key for twin in (ours, *twins) for key in twin)
        differing = [key for key in keys if any(twin.get(key) != ours.get(key) for twin in twins)]
        if 1 <= len(differing) <= 2:
            values = ", ".join(f"{key.rpartition('.')[2]} {_plain(ours.get(key, 'default'))}" for key in differing)
        else:
            values = f"spec {digest(ours)[:8]}"
        labels.append(f"{first.name} ({values})")
    return labels


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def find_configuration(
    configurations: Sequence[ReportedConfiguration], wanted: str, where: str, role: str
) -> ReportedConfiguration:
    """Return the configuration with this label, or the only one with this name.

    Args:
        configurations: all configurations.
        wanted: the label or name.
        where: where the runs come from, for messages.
        role: what the configuration is wanted as, for messages.

    Raises:
        ResultsError: there is none, or there are several of the name.
    """
    same_label = [item for item in configurations if item.label == wanted]
    matches = same_label or [item for item in configurations if item.name == wanted]
    if len(matches) == 1:
        return matches[0]
    labels = ", ".join(repr(item.label) for item in matches or configurations)
    if matches:
        raise ResultsError(f"{where}: the {role} {wanted!r} means several configurations, name one of: {labels}")
    raise ResultsError(f"{where}: no runs of the {role} {wanted!r}, there are: {labels}")


def _check_one_target(records: Sequence[RunRecord], where: str) -> None:
    kinds = Counter(record.target_kind for record in records)
    if len(kinds) > 1:
        counts = ", ".join(f"{count} of {kind}" for kind, count in kinds.items())
        raise ResultsError(
            f"{where}: runs of different kinds of targets cannot be in one table: {counts}. Move the runs of each kind "
            "into a separate folder"
        )


def _check_one_dataset(records: Sequence[RunRecord], where: str) -> None:
    datasets = Counter((str(record.dataset.get("name", "unnamed")), tuple(record.classes)) for record in records)
    if len(datasets) > 1:
        parts = reported_target(records[0].target_kind).parts
        counts = ", ".join(f"{count} of {name} ({len(classes)} {parts})" for (name, classes), count in datasets.items())
        raise ResultsError(
            f"{where}: runs of different datasets cannot be in one table: {counts}. Move the runs of each dataset "
            "into a separate folder"
        )


def _check_repeats(groups: Iterable[Sequence[RunRecord]], where: str) -> None:
    """Raise unless every repeat of a configuration is there once; all that are there twice are named together."""
    twins = []
    for runs in groups:
        seen: dict[Repeat, RunRecord] = {}
        for run in runs:
            twin = seen.setdefault(repeat_of(run), run)
            if twin is not run:
                former, later = sorted((twin, run), key=lambda record: record.created)
                twins.append(
                    f"{run.name!r}: {former.digest[:16]} (made {former.created}) "
                    f"and {later.digest[:16]} (made {later.created})"
                )
    if twins:
        raise ResultsError(
            f"{where}: runs have the same spec and seeds but were trained on other labels or splits, or by another "
            f"release of emofuse: {'; '.join(twins)}. Delete the folders of those that no longer hold"
        )
