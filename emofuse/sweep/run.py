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

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from emofuse.cache.reader import Cache
from emofuse.datasets.annotators import describe_target
from emofuse.errors import TrainingError
from emofuse.progress import Progress, followed, step
from emofuse.report import ReportFiles, SearchSummary
from emofuse.report.choice import divergence_sentences
from emofuse.report.notes import describe_run, gather_further_notes, gather_notes
from emofuse.report.stamp import report_when_needed
from emofuse.results import ResultPaths, RunRecord
from emofuse.results.progress import keep_progress, plan_more_runs
from emofuse.specs import RunSpec, SweepSpec, digest
from emofuse.stores import replace_file
from emofuse.sweep.compared import check_compared, find_compared
from emofuse.sweep.final_runs import FinalRuns, final_specs, train_final_runs
from emofuse.sweep.options import DEFAULT_OPTIONS, Say, SearchPlan, SweepOptions, SweepSummary
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.searching import search_and_choose, stream_types
from emofuse.sweep.summary import choice_table, describe_baseline, search_summary
from emofuse.training.divergence import Divergence
from emofuse.training.references import SolvedReferences, plan_references, train_references
from emofuse.training.runs import try_runs

_SAID_RUNS = 20


def run_sweep(
    cache: Cache,
    spec: SweepSpec,
    folder: Path,
    options: SweepOptions = DEFAULT_OPTIONS,
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
