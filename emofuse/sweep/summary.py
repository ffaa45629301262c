"""The summary of a sweep: its search, choice and final runs for the report, as a table and as sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from emofuse.report.choice import divergence_sentences
from emofuse.report.configurations import find_metric
from emofuse.report.formats import UNDEFINED
from emofuse.report.search import SELECTS, SearchedConfiguration, SearchKind, SearchSummary
from emofuse.report.tables import Cell, ReportTable, TableColumn, markdown
from emofuse.report.targets import reported_target
from emofuse.specs import SweepSpec, is_random
from emofuse.sweep.choice import Choice, ScoredConfiguration
from emofuse.sweep.final_runs import FinalConfiguration, FinalRuns
from emofuse.wording import join_first

_NAMED = 5  # at most this many configurations are named in a sentence


def search_summary(
    spec: SweepSpec, scored: Sequence[ScoredConfiguration], finals: FinalRuns, kind: SearchKind | None = None
) -> SearchSummary:
    """Return the search and the final runs as the report shows them; `kind` is that of the sweep unless given."""
    trained = {final.scored.order: final for final in finals.items}
    return SearchSummary(
        kind=kind or spec.search.kind,
        select=spec.select,
        configurations=tuple(
            SearchedConfiguration(
                name=each.configuration.name,
                settings=each.configuration.settings,
                score=each.score,
                error=each.error,
                runs=len(each.rows),
                diverged=each.diverged,
                halved=each.halved,
                **_final_fields(trained.get(each.order), finals),
            )
            for each in scored
        ),
        heads=sum(len(each.rows) for each in scored),
        folds=spec.folds.count if spec.folds else 1,
        repeats=spec.folds.repeats if spec.folds else 1,
        seeds=len(spec.seeds),
        best_of=spec.final.best_of,
    )


def choice_table(
    choice: Choice, finals: FinalRuns, spec: SweepSpec, search: SearchSummary, further_notes: Sequence[str] = ()
) -> str:
    """Return the finalists as a Markdown table: validation scores of the search, test scores of the final runs.

    If a final run diverged, there is a column with their number, and a sentence says which configuration is used.

    Args:
        choice: the choice of the sweep.
        finals: the final runs of the choice.
        spec: the sweep.
        search: the result of `search_summary`.
        further_notes: sentences that follow those on the choice.
    """
    items, target = finals.items, reported_target(spec.base.target.kind)
    columns = [
        TableColumn("Configuration", [Cell(_title(item, finals)) for item in items], "left"),
        TableColumn(f"Validation {SELECTS[spec.select]}", [_score(item.scored) for item in items]),
        *(
            TableColumn(f"Test {score.name}", [_test_score(item, score.path) for item in items])
            for score in (target.leading[::-1] if target.has_classes else target.leading)
        ),
        TableColumn("Parameters", [Cell(f"{item.scored.parameters:,}") for item in items]),
    ]
    if any(item.diverged for item in items):
        diverged = [f"{len(item.diverged)} of {len(item.results)}" if item.diverged else "none" for item in items]
        columns.insert(2, TableColumn("Final runs diverged", [Cell(text) for text in diverged]))
    notes = [
        *_result(finals, search),
        *describe_baseline(choice, finals),
        describe_scores(choice, spec, search),
        *describe_losses(choice),
        *further_notes,
    ]
    return markdown(ReportTable(tuple(columns))) + "\n" + "".join(f"- {note}\n" for note in notes)


def describe_scores(choice: Choice, spec: SweepSpec, search: SearchSummary) -> str:
    """Return a sentence that explains the scores in the table of the choice."""
    samples = [str(spec.folds)] if spec.folds else []
    samples += [f"{len(spec.seeds)} seeds"] if len(spec.seeds) > 1 else []
    error = f", mean ± {search.error_words} over {' and '.join(samples)}" if samples else ""
    test = f" (mean ± standard deviation over {len(spec.final.seeds)} seeds)" if len(spec.final.seeds) > 1 else ""
    return (
        f"Validation: the search's score{error}, by which {len(choice.finalists)} of "
        f"{len(choice.ranked) + len(choice.lost)} configurations were chosen. Test: scored once, when all was "
        f"chosen{test}."
    )


def describe_losses(choice: Choice) -> list[str]:
    """Return sentences on configurations that could not be chosen, and why."""
    notes = []
    if choice.lost:
        count = len(choice.lost) + len(choice.ranked)
        named = join_first((each.configuration.name for each in choice.lost), _NAMED, joint="; ")
        notes.append(f"{len(choice.lost)} of {count} configurations cannot be chosen because a run diverged: {named}.")
    if choice.undecided:
        named = join_first(choice.undecided, _NAMED, joint="; ")
        notes.append(f"No finalist for {named}: every configuration had a run that diverged.")
    halved = [each.configuration.name for each in choice.finalists if each.halved]
    if halved:
        named = join_first(halved, _NAMED, joint="; ")
        notes.append(f"Chosen although halving ended them early, because there was no other: {named}.")
    if choice.finalists and choice.baseline is None and choice.has_baseline:
        notes.append("No configuration with the baseline's streams can be chosen; the best one is the baseline.")
    return notes


def describe_baseline(choice: Choice, finals: FinalRuns) -> list[str]:
    """Return a sentence if all final runs of the baseline diverged and another one replaces it."""
    planned, replacement = choice.baseline, finals.baseline
    if planned is None or replacement is None or planned is replacement.scored:
        return []
    name = planned.configuration.name
    return [f"The baseline, {name}, diverged in all its final runs; the others are tested against {replacement.name}."]


def _result(finals: FinalRuns, search: SearchSummary) -> list[str]:
    """Return sentences on the configuration to use, on diverged runs and on random weights."""
    sentences = divergence_sentences(search)
    if finals.used is not None and not finals.failed:
        sentences = [f"Chosen, the best of all by its validation score: {finals.used.name}.", *sentences]
    streams = {name: stream for record in finals.records for name, stream in record.streams.items()}
    random = [name for name, stream in streams.items() if is_random(stream["weights"])]
    return [*sentences, *[f"RANDOM WEIGHTS in {', '.join(random)}: a demonstration, not a finding."] * bool(random)]


def _title(final: FinalConfiguration, finals: FinalRuns) -> str:
    """Return the name of the configuration, with `fallback` or `baseline` if it is one."""
    parts = ["fallback"] * (final is finals.used and bool(finals.failed)) + ["baseline"] * (final is finals.baseline)
    return final.name + (f" ({', '.join(parts)})" if parts else "")


def _final_fields(final: FinalConfiguration | None, finals: FinalRuns) -> dict[str, Any]:
    """Return the fields of `SearchedConfiguration` on the final runs of a configuration."""
    if final is None:
        return {}
    return {
        "chosen": not final.is_fallback,
        "fallback": final.is_fallback,
        "used": final is finals.used,
        "final_runs": len(final.results),
        "final_diverged": tuple(f"seed {run.seed} in epoch {run.epoch}" for run in final.diverged),
    }


def _score(each: ScoredConfiguration) -> Cell:
    return Cell(f"{each.score:.4f}", "" if each.error is None else f"{each.error:.4f}")


def _test_score(item: FinalConfiguration, path: str) -> Cell:
    return _spread([find_metric(run, path) for run in item.records])


def _spread(values: Sequence[float]) -> Cell:
    if not values:
        return Cell("diverged")
    if math.isnan(fmean(values)):
        return Cell(UNDEFINED)
    return Cell(f"{fmean(values):.4f}", f"{stdev(values):.4f}" if len(values) > 1 else "")
