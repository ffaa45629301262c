"""Nested sweeps: the whole search is repeated inside every outer fold, and every row is tested once.

    outer folds -> for each: search on its train + val rows -> choice -> final runs, scored on the rows of the fold
    -> one report on what the procedure "search and choose" scores, and how often each configuration won

The final runs are named by what they are the best of, and not by their options, which may differ from fold to fold. All
rows and runs are in the folder of the sweep, so that a second call does what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from emofuse.cache.reader import Cache
from emofuse.errors import TrainingError
from emofuse.progress import Progress, followed, step
from emofuse.report import ReportFiles, SearchedConfiguration, SearchSummary
from emofuse.report.choice import choice_sentences
from emofuse.report.notes import gather_notes
from emofuse.report.search import SearchKind
from emofuse.report.stamp import report_when_needed
from emofuse.results import ResultPaths, RunRecord
from emofuse.results.progress import keep_progress
from emofuse.specs import RunSpec, SplitSpec, SweepSpec, digest
from emofuse.stores import replace_file
from emofuse.sweep.choice import Choice, ScoredConfiguration, factor_values
from emofuse.sweep.final_runs import FinalRuns, final_specs, train_final_runs
from emofuse.sweep.options import Say, SearchPlan, SweepOptions
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.run import train_finals
from emofuse.sweep.searching import search_and_choose
from emofuse.training.divergence import Divergence
from emofuse.training.references import SolvedReferences, plan_references, train_references

MakePlan = Callable[[SplitSpec], SearchPlan | None]
"""Returns what is tried on a split in place of the sweep's factors."""
_BASELINE = "Baseline"


@dataclass(frozen=True)
class OuterFold:
    """What a nested sweep did inside one outer fold.

    Attributes:
        split: the split, whose test rows are those of the fold.
        scored: every configuration with its score.
        best: the best of all by validation score, whose final runs did not diverge.
        records: the scored final runs.
        baseline: the name of those that others are compared with; None if no final run was scored.
        trained: the number of heads that this call trained for the search.
    """

    split: SplitSpec
    scored: tuple[ScoredConfiguration, ...]
    best: ScoredConfiguration | None
    records: tuple[RunRecord, ...]
    baseline: str | None
    trained: int


@dataclass(frozen=True)
class NestedSummary:
    """The results of a nested sweep.

    Attributes:
        folds: what was done inside each outer fold.
        search: all searches, as the report shows them.
        report: the files of the report.
        report_written: whether this call wrote the report.
        references: the runs of the reference models.
    """

    folds: tuple[OuterFold, ...]
    search: SearchSummary
    report: ReportFiles
    report_written: bool
    references: tuple[RunRecord, ...]

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The scored final runs of all folds."""
        return tuple(record for fold in self.folds for record in fold.records)


def run_nested(
    cache: Cache,
    spec: SweepSpec,
    folder: Path,
    options: SweepOptions,
    *,
    make_plan: MakePlan = lambda _: None,
    say: Say = lambda _: None,
    progress: Progress | None = None,
) -> NestedSummary:
    """Repeat a sweep inside each of its outer folds and write one report; a second call does what is missing.

    Args:
        cache: the cache of the features.
        spec: a sweep with `test`.
        folder: the folder of all results.
        options: the options of this call.
        make_plan: what is tried in place of the sweep's factors.
        say: receives a line for each step and each final run.
        progress: receives the progress.

    Raises:
        TrainingError: a sweep without outer folds; or no final run of a fold can be used.
        EmofuseError: a step failed. Finished results are kept.
    """
    if spec.test is None:
        raise TrainingError(f"sweep {spec.name!r} has no outer folds: give it `test: {{folds: 5}}`")
    splits = spec.test.splits()
    kept = keep_progress(folder, "sweep", spec.name, title=spec.title, parts=len(splits), progress=progress)
    with kept as follower, followed(follower):
        folds = []
        say(f"test: {spec.test.describe()}")
        for number, split in enumerate(splits, start=1):
            say(f"outer fold {number} of {len(splits)}")
            folds.append(_run_fold(cache, spec, split, folder, options, plan=make_plan(split), say=say))
        plan = make_plan(splits[0])
        return _finish(cache, spec, folds, folder, options, kind=plan.kind if plan else spec.search.kind, say=say)


def _run_fold(
    cache: Cache,
    spec: SweepSpec,
    split: SplitSpec,
    folder: Path,
    options: SweepOptions,
    *,
    plan: SearchPlan | None,
    say: Say,
) -> OuterFold:
    inner = spec.model_copy(update={"base": spec.base.model_copy(update={"split": split}), "test": None})
    rows, runs = ResultsFolder(folder), ResultPaths(folder).runs
    inner, result, choice = search_and_choose(cache, inner, rows, options, plan=plan, say=say)
    names = _names(choice, inner)

    def train(specs: Sequence[RunSpec]) -> list[tuple[RunRecord | Divergence, bool]]:
        renamed = [
            run.model_copy(update={"name": names.get(run.name, _chosen("")), "chosen_by": spec.name}) for run in specs
        ]
        return train_finals(cache, renamed, runs, options, say)

    wanted = digest([run.model_dump(mode="json") for run in final_specs(choice.finalists, inner)])
    with rows.wait_for(wanted, lambda who: say(f"waiting for {who}")):
        finals = train_final_runs(choice, inner, train, say)
    return OuterFold(
        split=split,
        scored=result.scored,
        best=finals.used.scored if finals.used else None,
        records=_usable(finals, inner),
        baseline=names.get(finals.baseline.name, _chosen("")) if finals.baseline else None,
        trained=result.trained,
    )


def _names(choice: Choice, spec: SweepSpec) -> dict[str, str]:
    """Return name of a finalist -> the name of what it is the best of, which it has in all outer folds."""
    names: dict[str, str] = {}
    seen: set[str] = set()
    for each in choice.finalists:
        values = factor_values(each.configuration, spec.final.best_of)
        is_best = values not in seen
        seen.add(values)
        streams = "+".join(each.configuration.run.features.streams)
        names[each.configuration.name] = _chosen(values) if is_best else f"{_BASELINE} ({streams})"
    return names


def _chosen(values: str) -> str:
    return f"Chosen ({values})" if values else "Chosen"


def _usable(finals: FinalRuns, spec: SweepSpec) -> tuple[RunRecord, ...]:
    """Return the records of what was chosen: of a single choice that diverged, those of what takes its place."""
    left_out = [item for item in finals.items if item.is_fallback] if spec.final.best_of else list(finals.failed)
    return tuple(record for item in finals.items if item not in left_out for record in item.records)


def _finish(
    cache: Cache,
    spec: SweepSpec,
    folds: Sequence[OuterFold],
    folder: Path,
    options: SweepOptions,
    *,
    kind: SearchKind,
    say: Say,
) -> NestedSummary:
    paths, search = ResultPaths(folder), nested_summary(spec, folds, kind)
    records = [record for fold in folds for record in fold.records]
    if not records:
        raise TrainingError(f"sweep {spec.name!r}: every final run diverged. Lower its learning rates")
    for note in gather_notes((record.name, record) for record in records):
        say(f"note: {note}")
    for line in choice_sentences(search):
        say(f"choice: {line}")
    names = list(dict.fromkeys(record.name for record in records))
    baseline = next((fold.baseline for fold in folds if fold.baseline in names), None) or names[0]
    references = SolvedReferences([], [])
    if spec.references == "on":
        runs = [RunSpec.model_validate(record.spec) for record in records]
        references = train_references(
            cache,
            plan_references(cache, runs, baseline),
            paths.runs,
            device=options.device,
            memory_bytes=options.memory_bytes,
        )
    with step("writing the report"):
        files, written = report_when_needed(
            [*records, *references.records],
            paths.runs,
            paths.report,
            title=spec.title or spec.name,
            baseline=baseline,
            order=names,
            command=f"emofuse sweep {spec.name}",
            search=search,
            reference_notes=references.notes,
            images=options.shows_images(spec),
            say=say,
        )
    replace_file(paths.choice, f"# {spec.title or spec.name}\n\n{files.summary_markdown.read_text(encoding='utf-8')}")
    say(f"report: {'written' if written else 'up to date'}, {files.page}")
    return NestedSummary(tuple(folds), search, files, written, tuple(references.records))


def nested_summary(spec: SweepSpec, folds: Sequence[OuterFold], kind: SearchKind) -> SearchSummary:
    """Return all searches of a nested sweep as one: mean scores over the outer folds, and how often each one won."""
    of_name: dict[str, list[ScoredConfiguration]] = {}
    for fold in folds:
        for each in fold.scored:
            of_name.setdefault(each.configuration.name, []).append(each)
    wins = Counter(fold.best.configuration.name for fold in folds if fold.best is not None)
    configurations = []
    for name, scored in of_name.items():
        scores = [each.score for each in scored if each.score is not None]
        configurations.append(
            SearchedConfiguration(
                name=name,
                settings=scored[0].configuration.settings,
                score=fmean(scores) if len(scores) == len(scored) else None,
                error=None,
                runs=sum(len(each.rows) for each in scored),
                diverged=sum(each.diverged for each in scored),
                halved=sum(each.halved for each in scored),
                chosen=wins[name] > 0,
                wins=wins[name],
            )
        )
    return SearchSummary(
        kind=kind,
        select=spec.select,
        configurations=tuple(configurations),
        heads=sum(len(each.rows) for fold in folds for each in fold.scored),
        folds=spec.folds.count if spec.folds else 1,
        repeats=spec.folds.repeats if spec.folds else 1,
        seeds=len(spec.seeds),
        best_of=spec.final.best_of,
        outer_folds=len(folds),
    )
