"""`emofuse sweep best`: a search that comes with emofuse, sized to a cache and to a number of minutes.

    stages of candidates -> those that the time allows, in folds -> scores on rows that a head did not learn from
    -> the best one -> the mean of its fold heads, saved and scored once on the test rows

It is a sweep (`emofuse.sweep.run`) whose strategy is `BestSearch`. The time is counted by the seconds in the rows of
the search and estimated from them, so that the same command after an interruption makes the same decisions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emofuse.errors import SpecError, TrainingError, did_you_mean
from emofuse.progress import Progress, format_duration
from emofuse.report.configurations import find_metric
from emofuse.report.formats import format_score
from emofuse.report.search import SELECTS
from emofuse.report.targets import ShownScore, reported_target
from emofuse.results import ResultPaths, RunRecord, run_dir
from emofuse.specs import (
    ClassTarget,
    EnsembleSpec,
    FeaturesSpec,
    OfficialSplit,
    OuterTestSpec,
    RunSpec,
    SplitSpec,
    SweepSpec,
    TargetSpec,
)
from emofuse.specs.sweeps import BaseRun, CrossValidation, FinalSpec, Metric
from emofuse.specs.target_options import MAIN_SCORES
from emofuse.sweep.best_candidates import Candidates
from emofuse.sweep.best_search import BestSearch
from emofuse.sweep.choice import ScoredConfiguration
from emofuse.sweep.configurations import StreamType
from emofuse.sweep.nested import NestedSummary, run_nested
from emofuse.sweep.options import Say, SearchPlan, SweepOptions, SweepSummary
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.run import run_sweep
from emofuse.sweep.searching import open_trainer, stream_types
from emofuse.sweep.strategies import SearchStrategy
from emofuse.sweep.trainers import Trainer

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

NAME = "best"
FOLDS = 5
_SEARCH = 0.8
"""The share of the minutes for the search; the rest is for the heads of the recommended run and the report."""


@dataclass(frozen=True)
class BestOptions:
    """What a search for the best model is asked for.

    Attributes:
        minutes: the time of the search and the final heads.
        score: the score that compares candidates, on rows that a head did not learn from; None for accuracy, of numbers
            `ccc` and of several labels `map`.
        split: the split; its test rows are scored once, at the end.
        streams: the names of the streams that may be used; empty for all streams of the cache.
        seed: the seed of the folds.
        target: what the model learns.
        weight_column: the column of the weights of rows in training; None for equal weights.
        test_folds: the number of outer folds, inside each of which the search is repeated for an estimate on all rows;
            0 for the test rows of the split alone. The minutes are divided among all searches.
    """

    minutes: float = 10.0
    score: Metric | None = None
    split: SplitSpec = field(default_factory=OfficialSplit)
    streams: tuple[str, ...] = ()
    seed: int = 0
    target: TargetSpec = field(default_factory=ClassTarget)
    weight_column: str | None = None
    test_folds: int = 0

    @property
    def seconds(self) -> float:
        """The time of one search."""
        return 60 * self.minutes * _SEARCH / (self.test_folds + 1)

    @property
    def select(self) -> Metric:
        """The score that compares candidates."""
        if self.score is not None:
            return self.score
        return "accuracy" if self.target.kind in {"class", "distribution"} else MAIN_SCORES[self.target.kind]


def run_best(
    cache: Cache,
    options: BestOptions,
    folder: Path,
    machine: SweepOptions,
    *,
    say: Say = lambda _: None,
    progress: Progress | None = None,
) -> BestModel:
    """Search for the best model of a cache and save it; a second call does what is missing.

    Args:
        cache: the cache of the features.
        options: what is asked for.
        folder: the folder of all results.
        machine: the options of this call.
        say: receives a line for each step.
        progress: receives the progress of the search, the final run and the report.

    Raises:
        SpecError: a stream that is not in the cache.
        EmofuseError: a step failed. Finished results are kept.
    """
    spec, plan = spec_of_best(cache, options), search_plan(cache, options)
    summary = run_sweep(cache, spec, folder, machine, plan=plan, say=say, progress=progress)
    if summary.finals.used is None:
        raise TrainingError("sweep best: no candidate can be used, because the final run of every one diverged")
    (record,) = summary.finals.used.records
    nested = None
    if options.test_folds:
        test = OuterTestSpec(folds=options.test_folds, seed=options.seed)
        base = BaseRun(
            target=options.target, weight_column=options.weight_column
        )  # the split is that of each outer fold
        outer = spec.model_copy(update={"test": test, "base": base, "title": f"{spec.title}, in outer folds"})
        make_plan = partial(_plan_of_split, cache, options)
        nested = run_nested(cache, outer, folder / "outer", machine, make_plan=make_plan, say=say, progress=progress)
    return BestModel(summary, record, run_dir(ResultPaths(folder).runs, record.digest), spec, nested)


def _plan_of_split(cache: Cache, options: BestOptions, split: SplitSpec) -> SearchPlan:
    return search_plan(cache, replace(options, split=split))


def plan_best(cache: Cache, options: BestOptions, folder: Path, machine: SweepOptions) -> str:
    """Return lines on what `run_best` would try. Nothing is trained or written.

    Raises:
        EmofuseError: see `run_best`.
    """
    spec = spec_of_best(cache, options)
    with open_trainer(cache, spec, machine) as trainer:
        search = make_search(spec, options, trainer, ResultsFolder(folder), _streams(cache, options))
        lines = [
            f"{spec.title}: {options.minutes:g} minutes, {FOLDS} folds, candidates compared by {SELECTS[spec.select]}"
        ]
        for stage, candidates, seconds in search.preview(trainer.rates):
            lines.append(f"{stage:<9} up to {candidates:>3} candidates, all of them about {format_duration(seconds)}")
    if options.test_folds:
        lines.append(f"The search is repeated inside {options.test_folds} outer folds, each in the same time.")
    return "\n".join(
        [*lines, "Each stage takes as many as the time allows, then the mean of the best one's fold heads."]
    )


def spec_of_best(cache: Cache, options: BestOptions) -> SweepSpec:
    """Return the search as a sweep, whose configurations are not combinations of factors."""
    return SweepSpec(
        name=NAME,
        title=f"The best model of {cache.path.stem}",
        base=BaseRun(split=options.split, target=options.target, weight_column=options.weight_column),
        folds=CrossValidation(count=FOLDS, seed=options.seed),
        select=options.select,
        final=FinalSpec(best_of=(), ensemble=EnsembleSpec(folds=FOLDS, fold_seed=options.seed)),
        references="off",  # they are among the candidates, as far as the time allows
    )


def search_plan(cache: Cache, options: BestOptions) -> SearchPlan:
    """Return the plan of the search: its strategy, and that it has no baseline.

    Raises:
        SpecError: a stream that is not in the cache.
    """
    streams = _streams(cache, options)

    def make(spec: SweepSpec, trainer: Trainer, folder: ResultsFolder) -> SearchStrategy:
        return make_search(spec, options, trainer, folder, streams)

    return SearchPlan(make, kind="best", has_baseline=False)


def _streams(cache: Cache, options: BestOptions) -> dict[str, StreamType]:
    """Return the streams that may be used, in the cache's order."""
    types = stream_types(cache)
    unknown = [name for name in options.streams if name not in types]
    if unknown:
        problems = [
            f"streams: {name!r} is not in the cache{did_you_mean(name, types)} (there are: {', '.join(types)})"
            for name in unknown
        ]
        raise SpecError("sweep best", problems)
    return {name: each for name, each in types.items() if name in options.streams or not options.streams}


def make_search(
    spec: SweepSpec, options: BestOptions, trainer: Trainer, folder: ResultsFolder, streams: Mapping[str, StreamType]
) -> BestSearch:
    """Return the strategy of the search on some streams."""
    rows = trainer.data.folds(_first_run(spec, tuple(streams)))[0].train
    candidates = Candidates(streams, spec.base.split, len(rows), spec.base.target, spec.select, spec.base.weight_column)
    return BestSearch(candidates, spec, trainer, folder, options.seconds)


def _first_run(spec: SweepSpec, streams: tuple[str, ...]) -> RunSpec:
    """Return a run on all streams, which has the folds of every candidate."""
    fold = spec.folds.each()[0] if spec.folds else None
    features, base = FeaturesSpec(streams=streams), spec.base
    return RunSpec(
        name=NAME,
        features=features,
        split=base.split,
        fold=fold,
        target=base.target,
        weight_column=base.weight_column,
    )


@dataclass(frozen=True)
class BestModel:
    """The recommended model.

    Attributes:
        summary: the results of the search as a sweep.
        record: the recommended run.
        folder: its folder.
        spec: the search.
        nested: the searches inside outer folds; None without.
    """

    summary: SweepSummary
    record: RunRecord
    folder: Path
    spec: SweepSpec
    nested: NestedSummary | None = None

    @property
    def sentences(self) -> list[str]:
        """What was tried, why this model is recommended, what it scores, and how it is used."""
        scored, ranked = self.summary.scored, self.summary.choice.ranked
        subsets = len({each.configuration.run.features.streams for each in scored})
        kinds = list(dict.fromkeys(each.configuration.run.head.kind for each in scored))
        heads = sum(len(each.rows) for each in scored)
        used = next(each for each in ranked if each.configuration.name == self.record.name)
        single = [each for each in ranked if len(each.configuration.run.features.streams) == 1 and each is not used]
        others = [each for each in ranked if each is not used]
        compared = [f"the next best has {_score(others[0])} ({others[0].configuration.name})"] if others else []
        if single and single[0] is not others[0]:
            compared.append(f"the best of a single stream {_score(single[0])} ({single[0].configuration.name})")
        best = "lowest" if self.spec.select == "loss" else "highest"
        if self.summary.finals.failed:
            best += " of the candidates whose final heads did not diverge"
        rows = self.record.rows["test"]["rows"]
        test = [
            f"{score.name} {format_score(find_metric(self.record, score.path), score.decimals)}"
            for score in reported_target(self.record.target_kind).leading
        ]
        tried = (
            f"Tried: {len(scored)} candidates on {subsets} subsets of the streams, {heads} heads in {FOLDS} folds "
            f"({', '.join(kinds)})."
        )
        why = (
            f"Recommended: {self.record.name}, because its {SELECTS[self.spec.select]} on rows that its heads did not "
            f"learn from is the {best}: {'; '.join([_score(used), *compared])}."
        )
        result = (
            f"It is the mean of {len(self.record.heads)} heads. On {rows:,} test rows, which chose nothing: "
            f"{', '.join(test)}."
        )
        report, use = f"Report: {self.summary.report.page}", f"Use it: emofuse predict {self.folder} IMAGE"
        return [tried, why, result, *([_estimate(self.nested)] if self.nested else []), report, use]


def _estimate(nested: NestedSummary) -> str:
    """Return what the whole procedure scores on all rows of the dataset, each tested once."""
    (row,) = json.loads(nested.report.numbers_json.read_text(encoding="utf-8"))["configurations"]
    leading = reported_target(nested.records[0].target_kind).leading
    scores = ", ".join(f"{score.name} {_pooled(row, score)}" for score in leading)
    return (
        f"The same search inside each of {len(nested.folds)} outer folds, in which every row is tested once: {scores} "
        f"(95 % intervals over rows; {nested.report.page})."
    )


def _pooled(row: Mapping[str, Any], score: ShownScore) -> str:
    """Return the score of all rows with its interval, as `report.json` has them."""
    names = (f"pooled_{score.column}", f"pooled_{score.column}_95_low", f"pooled_{score.column}_95_high")
    value, low, high = (format_score(row.get(name), score.decimals) for name in names)
    return f"{value} [{low}, {high}]"


def _score(each: ScoredConfiguration) -> str:
    error = "" if each.error is None else f" ± {each.error:.3f}"
    return f"{each.score:.3f}{error}"
