"""A whole sweep: search on validation rows, choice by validation scores, final runs on test rows, report.

All results are stored by their digest, so the same sweep trains only what is missing. They are in one folder::

    FOLDER/
        rows/, claims/      the rows of the search (see `emofuse.sweep.rows`), which other sweeps may share
        runs/               one folder for each final run (see `emofuse.results`)
        report/             tables, figures and the page on the final runs and the search
        progress/           what a call does now and how the last one ended (see `emofuse.results.progress`)
        choice.md           the finalists: validation score of the search, test scores of their final runs

The search sees `TrainingData`, which holds no test label, and the choice sees the rows of the search. `try_runs` then
trains the chosen configurations and scores the test rows once. If a final run diverges, the others are still trained
and reported; if it is one of the best configuration, the next in the ranking of the search is trained in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch

from emofuse.cache.reader import Cache
from emofuse.datasets.annotators import describe_target
from emofuse.datasets.split_needs import USES
from emofuse.errors import TrainingError
from emofuse.machine.devices import resolve_device
from emofuse.progress import Progress, followed, step
from emofuse.report import ReportFiles, SearchSummary
from emofuse.report.choice import divergence_sentences
from emofuse.report.notes import describe_run, gather_further_notes, gather_notes
from emofuse.report.search import SearchKind
from emofuse.report.stamp import report_when_needed
from emofuse.results import ResultPaths, RunRecord
from emofuse.results.progress import keep_progress, plan_more_runs
from emofuse.specs import RunSpec, SweepSpec, digest
from emofuse.stores import replace_file
from emofuse.sweep.choice import Choice, ScoredConfiguration, choose, factor_values
from emofuse.sweep.compared import check_compared, find_compared
from emofuse.sweep.configurations import Configuration, StreamType, baseline_streams
from emofuse.sweep.final_runs import FinalRuns, final_specs, train_final_runs
from emofuse.sweep.groups import only_missing, plan_search, searched_runs
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.search import ConfigurationSearch, SearchResult
from emofuse.sweep.strategies import SearchStrategy, make_strategy
from emofuse.sweep.summary import choice_table, describe_baseline, describe_losses, search_summary
from emofuse.sweep.trainers import LocalTrainer, Trainer
from emofuse.training.data import TrainingData
from emofuse.training.divergence import Divergence
from emofuse.training.machine import Machine, default_memory_bytes
from emofuse.training.references import SolvedReferences, plan_references, train_references
from emofuse.training.rows import run_splits, targets_of
from emofuse.training.runs import try_runs

Say = Callable[[str], None]

_SAID_RUNS = 20


@dataclass(frozen=True)
class SweepOptions:
    """The options of one call on one machine, which are part of no digest.

    Attributes:
        device: the device of training: `cpu`, `cuda`, `cuda:N` or `auto`.
        memory_bytes: the memory that training may use; by default a share of the device's.
        scheduler: the address of a running Dask scheduler, `tcp://...`, whose workers train the search; None for this
            process.
        images: whether the page of the report has thumbnails of samples; None for what the sweep says.
    """

    device: str = "auto"
    memory_bytes: int | None = None
    scheduler: str | None = None
    images: bool | None = None

    def shows_images(self, spec: SweepSpec) -> bool:
        """Return whether the page of the report of a sweep has thumbnails of samples."""
        return spec.report.images if self.images is None else self.images


@dataclass(frozen=True)
class SweepSummary:
    """The results of a sweep, and what this call has done.

    Attributes:
        scored: every configuration with its score, in the order of the search.
        trained: the number of heads that this call trained for the search.
        choice: the choice among the configurations.
        finals: the final runs of the finalists and fallbacks.
        table: the finalists and their scores, in Markdown.
        report: the files of the report.
        report_written: whether this call wrote the report.
        references: the runs of the reference models.
    """

    scored: tuple[ScoredConfiguration, ...]
    trained: int
    choice: Choice
    finals: FinalRuns
    table: str
    report: ReportFiles
    report_written: bool
    references: tuple[RunRecord, ...] = ()


MakeStrategy = Callable[[SweepSpec, Trainer, ResultsFolder], SearchStrategy]
"""Makes the strategy of a search."""


@dataclass(frozen=True)
class SearchPlan:
    """What a sweep tries that is not written as factors.

    Attributes:
        make: makes the strategy, in place of the one that the sweep names.
        kind: the kind of the search in the report.
        has_baseline: whether the best configuration with the baseline's streams is trained too.
    """

    make: MakeStrategy
    kind: SearchKind
    has_baseline: bool


def run_sweep(
    cache: Cache,
    spec: SweepSpec,
    folder: Path,
    options: SweepOptions = SweepOptions(),
    *,
    plan: SearchPlan | None = None,
    say: Say = lambda _: None,
    progress: Progress | None = None,
) -> SweepSummary:
    """Search, choose, train and score the finalists, and write the report; a second call does what is missing.

    Args:
        cache: the cache of the features.
        spec: the sweep.
        folder: the folder of all results.
        options: the options of this call.
        plan: what is tried in place of the sweep's factors.
        say: receives a line for each step and each final run.
        progress: receives the progress of the search, the final runs and the report.

    Raises:
        TrainingError: no configuration can be used, because each had a run that diverged; or a nested sweep.
        EmofuseError: a step failed. Finished results are kept.
    """
    if spec.test is not None:
        raise TrainingError(f"sweep {spec.name!r} is nested (`test`): run it by emofuse.sweep.nested.run_nested")
    kept = keep_progress(folder, "sweep", spec.name, title=spec.title, progress=progress)
    with kept as follower, followed(follower):
        return _run_sweep(cache, spec, folder, options, plan=plan, say=say)


def _run_sweep(
    cache: Cache, spec: SweepSpec, folder: Path, options: SweepOptions, *, plan: SearchPlan | None, say: Say
) -> SweepSummary:
    rows = ResultsFolder(folder)
    check_compared(spec, stream_types(cache))
    if line := describe_target(cache.manifest, spec.base.target, spec.base.weight_column):
        say(f"target: {line}")
    spec, result, choice = search_and_choose(cache, spec, rows, options, plan=plan, say=say)
    paths = ResultPaths(folder)
    wanted = digest([run.model_dump(mode="json") for run in final_specs(choice.finalists, spec)])

    def train(specs: Sequence[RunSpec]) -> list[tuple[RunRecord | Divergence, bool]]:
        return train_finals(cache, specs, paths.runs, options, say)

    with rows.wait_for(wanted, lambda who: say(f"waiting for {who}")):
        finals = train_final_runs(choice, spec, train, say)
        references = _train_references(cache, spec, finals, paths.runs, options=options, say=say)
        for note in gather_notes((record.name, record) for record in finals.records):
            say(f"note: {note}")
        of_references = ((record.name, record) for record in references.records)
        for note in [*references.notes, *gather_further_notes(finals.records, of_references)]:
            say(f"note: {note}")
        search = search_summary(spec, result.scored, finals, kind=plan.kind if plan else None)
        compared = find_compared(spec, finals)
        for note in [*divergence_sentences(search), *describe_baseline(choice, finals), *compared.notes]:
            say(f"choice: {note}")
        table = choice_table(choice, finals, spec, search, compared.notes)
        replace_file(paths.choice, f"# {spec.title or spec.name}\n\n{table}")
        with step("writing the report"):
            files, written = None, False
            if finals.records:
                images = options.shows_images(spec)
                files, written = _report(
                    spec, finals, references, search, paths, compare=compared.pairs, images=images, say=say
                )
    if files is not None:
        say(f"report: {'written' if written else 'up to date'}, {files.page}")
    if files is None or finals.used is None:
        raise TrainingError(
            f"sweep {spec.name!r}: no configuration can be used, a final run of every one that can be chosen diverged "
            f"(see {paths.choice}). Lower its learning rates"
        )
    return SweepSummary(result.scored, result.trained, choice, finals, table, files, written, tuple(references.records))


def search_and_choose(
    cache: Cache, spec: SweepSpec, rows: ResultsFolder, options: SweepOptions, *, plan: SearchPlan | None, say: Say
) -> tuple[SweepSpec, SearchResult, Choice]:
    """Search on the training and validation rows of the sweep's split, and choose.

    Returns:
        The sweep with its number of folds, the result of the search, and a choice with finalists.

    Raises:
        TrainingError: every configuration had a run that diverged.
        EmofuseError: a step failed. Finished results are kept.
    """
    spec = _with_groups(cache, spec)
    result = _search(cache, spec, rows, options, plan)
    for line in result.describe():
        say(f"search: {line}")
    baseline = baseline_streams(spec, cache.streams) if plan is None or plan.has_baseline else None
    choice = choose(result.scored, spec.select, spec.final.best_of, baseline)
    for note in describe_losses(choice):
        say(f"choice: {note}")
    if not choice.finalists:
        raise TrainingError(
            f"sweep {spec.name!r}: every configuration had a run that diverged, so none can be chosen. "
            "Lower its learning rates"
        )
    return spec, result, choice


def plan_sweep(cache: Cache, spec: SweepSpec, folder: Path, options: SweepOptions = SweepOptions()) -> str:
    """Return lines on what `run_sweep` would train. Nothing is trained or written.

    Raises:
        EmofuseError: see `run_sweep`.
    """
    nested, spec = spec.test, first_fold_of(spec)
    spec = _with_groups(cache, spec)
    check_compared(spec, stream_types(cache))
    with open_trainer(cache, spec, options) as trainer:
        _check_split_rows(trainer.data)
        search = make_strategy(spec, stream_types(cache))
        batch = search.ask()
        runs = searched_runs(trainer.data, batch, spec)
        there = {row.digest for row in ResultsFolder(folder).rows()}
        missing = {run.digest for run in runs} - there
        heads = search.total * len(runs) // len(batch)
        then = _describe_finals(spec, batch, is_all=len(batch) == search.total)
        lines = [f"{spec.title or spec.name}: {search.total} configurations, {heads} heads, {then}", *search.notes]
        if nested:
            lines.append(f"All of this is repeated inside each of {nested}. The first of them:")
        if len(batch) < search.total:
            lines.append(f"The search chooses {len(batch)} configurations at a time. The first batch:")
        done = f"{len(runs) - len(missing)} of {len(runs)} heads trained before"
        lines.append(done if missing else f"{done}, nothing to train")
        if missing:
            with step("planning"):
                plan = plan_search(trainer.data, runs, spec, trainer.machine, trainer.rates)
            lines.append(str(only_missing(plan, runs, there)))
    return "\n".join(lines)


def first_fold_of(spec: SweepSpec) -> SweepSpec:
    """Return the sweep of the first outer fold of a nested sweep; other sweeps as they are."""
    if spec.test is None:
        return spec
    return spec.model_copy(update={"base": spec.base.model_copy(update={"split": spec.test.splits()[0]}), "test": None})


@contextmanager
def open_trainer(cache: Cache, spec: SweepSpec, options: SweepOptions) -> Iterator[Trainer]:
    """Open the trainer of a search: this process, or the workers of a scheduler.

    Raises:
        DeviceError: the device does not exist.
        BuildError: the scheduler does not answer, or its workers cannot be used.
    """
    if options.scheduler is not None:
        from emofuse.sweep.cluster import dask_trainer

        with dask_trainer(
            options.scheduler, cache, spec.base, device=options.device, memory_bytes=options.memory_bytes
        ) as workers:
            yield workers
        return
    device = torch.device(resolve_device(options.device))
    memory_bytes = options.memory_bytes or default_memory_bytes(device)
    data = TrainingData.of(
        cache,
        spec.base.split,
        target=spec.base.target,
        weight_column=spec.base.weight_column,
        memory_bytes=memory_bytes,
    )
    yield LocalTrainer(data, Machine.of(device))


def _search(
    cache: Cache, spec: SweepSpec, rows: ResultsFolder, options: SweepOptions, plan: SearchPlan | None
) -> SearchResult:
    """Search; the features are freed at the end, before the finalists are trained."""
    with open_trainer(cache, spec, options) as trainer:
        _check_split_rows(trainer.data)
        strategy = plan.make(spec, trainer, rows) if plan else make_strategy(spec, stream_types(cache))
        return ConfigurationSearch(spec, strategy, rows, trainer).run()


def train_finals(
    cache: Cache, specs: Sequence[RunSpec], runs: Path, options: SweepOptions, say: Say
) -> list[tuple[RunRecord | Divergence, bool]]:
    """Train final runs and report each of them, or every tenth of many; those that diverge are always reported."""
    plan_more_runs(len(specs))
    say(f"final runs: {len(specs)}, scored on the test rows of the split")
    numbers = count(1)
    every = 1 if len(specs) <= _SAID_RUNS else -(-len(specs) // 10)

    def on_run(_: int, result: RunRecord | Divergence, trained_now: bool) -> None:
        number = next(numbers)
        place = f"final run {number}/{len(specs)}"
        if isinstance(result, Divergence):
            known = "" if trained_now else " (known from before)"
            say(f"{place}: {result.name}, seed {result.seed} DIVERGED in epoch {result.epoch}{known}")
        elif every == 1:
            say(f"{place}: {describe_run(result, trained_now)}")
        elif number % every == 0 or number == len(specs):
            say(place)

    return try_runs(cache, specs, runs, device=options.device, memory_bytes=options.memory_bytes, on_run=on_run)


def _train_references(
    cache: Cache, spec: SweepSpec, finals: FinalRuns, runs: Path, *, options: SweepOptions, say: Say
) -> SolvedReferences:
    """Solve the reference models of the final runs, unless they are switched off."""
    if spec.references == "off" or finals.baseline is None:
        return SolvedReferences([], [])
    scored = final_specs([item.scored for item in finals.items if item.records], spec)

    def on_run(record: RunRecord, trained_now: bool) -> None:
        say(f"reference: {describe_run(record, trained_now)}")

    return train_references(
        cache,
        plan_references(cache, scored, finals.baseline.name),
        runs,
        device=options.device,
        memory_bytes=options.memory_bytes,
        on_run=on_run,
    )


def _report(
    spec: SweepSpec,
    finals: FinalRuns,
    references: SolvedReferences,
    search: SearchSummary,
    paths: ResultPaths,
    *,
    compare: Sequence[tuple[str, str]],
    images: bool,
    say: Say,
) -> tuple[ReportFiles, bool]:
    """Return the report of all scored final runs, at least one, and whether it was written now."""
    scored = [item.name for item in finals.items if item.records]
    return report_when_needed(
        [*finals.records, *references.records],
        paths.runs,
        paths.report,
        title=spec.title or spec.name,
        baseline=finals.baseline.name if finals.baseline else scored[0],
        order=scored,
        command=f"emofuse sweep {spec.name}",
        search=search,
        compare=compare,
        reference_notes=references.notes,
        images=images,
        say=say,
    )


def _describe_finals(spec: SweepSpec, configurations: Sequence[Configuration], *, is_all: bool) -> str:
    """Return text on how many final runs there will be, as far as it is known before the search."""
    seeds = f"{len(spec.final.seeds)} seed{'s' * (len(spec.final.seeds) > 1)} each"
    beside = " and reference models" * (spec.references == "on")
    if not is_all:
        return f"then final runs of what is chosen ({seeds}){beside}"
    chosen = len({factor_values(each, spec.final.best_of) for each in configurations})
    chosen = min(len(configurations), chosen + ("streams" not in spec.final.best_of))  # with the baseline
    return f"then at most {chosen * len(spec.final.seeds)} final runs ({chosen} chosen, {seeds}){beside}"


def stream_types(cache: Cache) -> dict[str, StreamType]:
    """Return the type of every stream of a cache, in the cache's order."""
    return {name: StreamType.of(stream.kind, stream.layout.shape) for name, stream in cache.streams.items()}


def _with_groups(cache: Cache, spec: SweepSpec) -> SweepSpec:
    """Return the sweep with a fold for each group of the training and validation rows, where groups are left out."""
    if spec.folds is None or spec.folds.kind != "leave_one_group_out":
        return spec
    targets = targets_of(cache, spec.base.target, spec.base.weight_column)
    learned = np.isin(run_splits(cache, spec.base.split, targets), ["train", "val"]) & (targets.labels >= 0)
    groups = len(set(cache.groups[learned].tolist()) - {""})
    return spec.model_copy(update={"folds": spec.folds.with_groups(max(groups, 1))})


def _check_split_rows(data: TrainingData) -> None:
    """Check, before hours of search, that final runs can be trained and scored. Test targets are not read."""
    lacking, rows = {}, {}
    for split, use in USES.items():
        of_split = data.splits == split
        if split != "test":
            of_split &= data.labels >= 0
        if not (of_split & ~data.features.unreadable(data.features.streams)).any():
            lacking[split], rows[split] = use, int(of_split.sum())
    data.check_splits(lacking, rows)
