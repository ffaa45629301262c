"""A sweep from its question to its report: search on validation rows, choice from rows alone, final runs, one page.

Everything is found again by its digest, so the same sweep does only what is missing. All it makes is in one folder::

    FOLDER/
        rows/, claims/      of the search (see `emofuse.sweep.rows`); other sweeps may share them
        runs/               one folder a final run (see `emofuse.results`)
        report/             tables, figures and the page of the final runs, and how they were chosen
        choice.md           the finalists: validation score of the search, test scores of their final runs

The search is given `TrainingData`, which holds no test label, and the choice is given rows; only what they have chosen
is trained by `try_runs`, which scores the test rows once. A final run that diverges ends nothing: the others are
trained and reported, and the place of a choice that diverged is taken by the next in the ranking of the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from emofuse.cache.reader import Cache
from emofuse.datasets.split_needs import USES
from emofuse.devices import resolve_device
from emofuse.errors import TrainingError
from emofuse.progress import Progress, followed, step
from emofuse.report import ReportFiles, SearchSummary
from emofuse.report.choice import divergence_sentences
from emofuse.report.notes import gather_notes
from emofuse.report.stamp import report_when_needed
from emofuse.results import RunRecord
from emofuse.specs import RunSpec, SweepSpec, digest
from emofuse.stores import replace_file
from emofuse.sweep.choice import Choice, ScoredConfiguration, choose, factor_values
from emofuse.sweep.configurations import Configuration, StreamType, baseline_streams
from emofuse.sweep.final_runs import FinalRuns, final_specs, train_final_runs
from emofuse.sweep.groups import only_missing, plan_search, searched_runs
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.search import ConfigurationSearch, SearchResult
from emofuse.sweep.strategies import make_strategy
from emofuse.sweep.summary import choice_table, describe_baseline, describe_losses, search_summary
from emofuse.sweep.trainers import LocalTrainer, Trainer
from emofuse.training.data import TrainingData
from emofuse.training.divergence import Divergence
from emofuse.training.machine import Machine, default_memory_bytes
from emofuse.training.runs import try_runs

Say = Callable[[str], None]

_SAID_RUNS = 20


@dataclass(frozen=True)
class SweepOptions:
    """What belongs to this machine and this call, not to the science: no part of any digest.

    Attributes:
        device: where heads train: `cpu`, `cuda`, `cuda:N` or `auto`.
        memory_bytes: that training may use; a share of what the device has unless given.
        scheduler: address of a running Dask scheduler, `tcp://...`, whose workers search; this process otherwise.
    """

    device: str = "auto"
    memory_bytes: int | None = None
    scheduler: str | None = None


@dataclass(frozen=True)
class SweepPaths:
    """Where a sweep keeps what it makes, all below `out`."""

    out: Path

    @property
    def runs(self) -> Path:
        """One folder a final run."""
        return self.out / "runs"

    @property
    def report(self) -> Path:
        """Tables, figures and the page."""
        return self.out / "report"

    @property
    def choice(self) -> Path:
        """The finalists and their scores."""
        return self.out / "choice.md"


@dataclass(frozen=True)
class SweepSummary:
    """What a call did.

    Attributes:
        scored: every configuration, in the order of the search.
        trained: heads of the search that were trained by this call.
        choice: among the configurations.
        finals: final runs of the finalists and of what takes the place of one that diverged.
        table: the finalists and their scores, in Markdown.
        report: its files.
        report_written: whether they were written by this call.
    """

    scored: tuple[ScoredConfiguration, ...]
    trained: int
    choice: Choice
    finals: FinalRuns
    table: str
    report: ReportFiles
    report_written: bool


def run_sweep(
    cache: Cache,
    spec: SweepSpec,
    folder: Path,
    options: SweepOptions = SweepOptions(),
    *,
    say: Say = lambda _: None,
    progress: Progress | None = None,
) -> SweepSummary:
    """Searches, chooses, trains and scores the finalists, and writes the report; a second call does what is missing.

    Args:
        cache: where the features are.
        spec: the sweep.
        folder: of everything that it makes.
        options: of this machine and call.
        say: is given one line a step and a final run.
        progress: follows the search, the final runs and the report.

    Raises:
        TrainingError: no configuration can be used, because a run of each diverged, in the search or in the end.
        EmofuseError: whatever a step raises; what was finished is kept.
    """
    with followed(progress):
        return _run_sweep(cache, spec, folder, options, say)


def _run_sweep(cache: Cache, spec: SweepSpec, folder: Path, options: SweepOptions, say: Say) -> SweepSummary:
    rows = ResultsFolder(folder)
    found = _search(cache, spec, rows, options)
    for line in found.describe():
        say(f"search: {line}")
    choice = choose(found.scored, spec.select, spec.final.best_of, baseline_streams(spec, cache.streams))
    for note in describe_losses(choice):
        say(f"choice: {note}")
    if not choice.finalists:
        raise TrainingError(
            f"sweep {spec.name!r}: every configuration had a run that diverged, so none can be chosen. "
            "Lower its learning rates"
        )
    paths = SweepPaths(folder)
    wanted = digest([run.model_dump(mode="json") for run in final_specs(choice.finalists, spec)])

    def train(specs: Sequence[RunSpec]) -> list[tuple[RunRecord | Divergence, bool]]:
        return _train_finals(cache, specs, paths.runs, options, say)

    with rows.wait_for(wanted, lambda who: say(f"waiting for {who}")):
        finals = train_final_runs(choice, spec, train, say)
        for note in gather_notes((record.name, record) for record in finals.records):
            say(f"note: {note}")
        search = search_summary(spec, found.scored, finals)
        for note in [*divergence_sentences(search), *describe_baseline(choice, finals)]:
            say(f"choice: {note}")
        table = choice_table(choice, finals, spec, search)
        replace_file(paths.choice, f"# {spec.title or spec.name}\n\n{table}")
        with step("writing the report"):
            files, written = _report(spec, finals, search, paths, say) if finals.records else (None, False)
    if files is not None:
        say(f"report: {'written' if written else 'up to date'}, {files.page}")
    if files is None or finals.used is None:
        raise TrainingError(
            f"sweep {spec.name!r}: no configuration can be used, a final run of every one that can be chosen diverged "
            f"(see {paths.choice}). Lower its learning rates"
        )
    return SweepSummary(found.scored, found.trained, choice, finals, table, files, written)


def plan_sweep(cache: Cache, spec: SweepSpec, folder: Path, options: SweepOptions = SweepOptions()) -> str:
    """What `run_sweep` would train, in some lines. Trains and writes nothing.

    Raises:
        EmofuseError: as `run_sweep` before it trains.
    """
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
        if len(batch) < search.total:
            lines.append(f"The search decides as it goes, {len(batch)} configurations at a time. The first of them:")
        done = f"{len(runs) - len(missing)} of {len(runs)} heads trained before"
        lines.append(done if missing else f"{done}, nothing to train")
        if missing:
            with step("planning"):
                plan = plan_search(trainer.data, runs, spec, trainer.machine, trainer.rates)
            lines.append(str(only_missing(plan, runs, there)))
    return "\n".join(lines)


@contextmanager
def open_trainer(cache: Cache, spec: SweepSpec, options: SweepOptions) -> Iterator[Trainer]:
    """What trains the search: this process, or the workers of a scheduler.

    Raises:
        DeviceError: no such device.
        BuildError: no such scheduler, or it has no workers of this make.
    """
    if options.scheduler is not None:
        from emofuse.sweep.cluster import dask_trainer

        split = spec.base.split
        with dask_trainer(
            options.scheduler, cache, split, device=options.device, memory_bytes=options.memory_bytes
        ) as workers:
            yield workers
        return
    device = torch.device(resolve_device(options.device))
    memory_bytes = options.memory_bytes or default_memory_bytes(device)
    data = TrainingData.of(cache, spec.base.split, memory_bytes=memory_bytes)
    yield LocalTrainer(data, Machine.of(device))


def _search(cache: Cache, spec: SweepSpec, rows: ResultsFolder, options: SweepOptions) -> SearchResult:
    """In a function of its own, so that the features are freed before the finalists are trained."""
    with open_trainer(cache, spec, options) as trainer:
        _check_split_rows(trainer.data)
        return ConfigurationSearch(spec, make_strategy(spec, stream_types(cache)), rows, trainer).run()


def _train_finals(
    cache: Cache, specs: Sequence[RunSpec], runs: Path, options: SweepOptions, say: Say
) -> list[tuple[RunRecord | Divergence, bool]]:
    """Says how many, then each run, or with many of them how far it is; those that diverge in any case."""
    say(f"final runs: {len(specs)}, on all training rows of the split")
    numbers = count(1)
    every = 1 if len(specs) <= _SAID_RUNS else -(-len(specs) // 10)

    def tell(_: int, result: RunRecord | Divergence, trained_now: bool) -> None:
        number = next(numbers)
        place = f"final run {number}/{len(specs)}"
        if isinstance(result, Divergence):
            known = "" if trained_now else " (known from before)"
            say(f"{place}: {result.name}, seed {result.seed} DIVERGED in epoch {result.epoch}{known}")
        elif every == 1:
            test = result.metrics["test"]
            scores = f"test accuracy {test['accuracy']:.3f}, macro F1 {test['macro']['f1']:.3f}"
            how = f"{result.seconds:.1f} s" if trained_now else "done before"
            say(f"{place}: {result.name}, {scores} ({how})")
        elif number % every == 0 or number == len(specs):
            say(place)

    return try_runs(cache, specs, runs, device=options.device, memory_bytes=options.memory_bytes, on_run=tell)


def _report(
    spec: SweepSpec, finals: FinalRuns, search: SearchSummary, paths: SweepPaths, say: Callable[[str], None]
) -> tuple[ReportFiles, bool]:
    """The report of all scored final runs, of which there is one at least, and whether it was written now."""
    scored = [item.name for item in finals.items if item.records]
    return report_when_needed(
        finals.records,
        paths.runs,
        paths.report,
        title=spec.title or spec.name,
        baseline=finals.baseline.name if finals.baseline else scored[0],
        order=scored,
        command=f"emofuse sweep {spec.name}",
        search=search,
        say=say,
    )


def _describe_finals(spec: SweepSpec, configurations: Sequence[Configuration], *, is_all: bool) -> str:
    """How much is trained once all is chosen, as far as that is known before the search."""
    seeds = f"{len(spec.final.seeds)} seed{'s' * (len(spec.final.seeds) > 1)} each"
    if not is_all:
        return f"then final runs of what is chosen ({seeds})"
    chosen = len({factor_values(each, spec.final.best_of) for each in configurations})
    chosen = min(len(configurations), chosen + ("streams" not in spec.final.best_of))  # with the baseline
    return f"then at most {chosen * len(spec.final.seeds)} final runs ({chosen} chosen, {seeds})"


def stream_types(cache: Cache) -> dict[str, StreamType]:
    """Return the type of every stream of a cache, in the cache's order."""
    return {name: StreamType.of(stream.kind, stream.layout.shape) for name, stream in cache.streams.items()}


def _check_split_rows(data: TrainingData) -> None:
    """Raises, before hours of search, if final runs could not be trained or scored. Test labels are not looked at."""
    lacking, rows = {}, {}
    for split, use in USES.items():
        of_split = data.splits == split
        if split != "test":
            of_split &= data.labels >= 0
        if not (of_split & ~data.features.unreadable(data.features.streams)).any():
            lacking[split], rows[split] = use, int(of_split.sum())
    data.check_splits(lacking, rows)
