"""What becomes of a choice: final runs, what a report is told of the search, the table of both, and plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from emofuse.report.search import SELECTS, Searched, SearchSummary
from emofuse.report.tables import Cell, Column, Table, markdown
from emofuse.results import RunRecord
from emofuse.specs import RunSpec, SweepSpec
from emofuse.sweep.choice import Choice, Scored

_NAMED = 5  # configurations that a sentence names


def final_runs(choice: Choice, spec: SweepSpec) -> list[RunSpec]:
    """Every finalist on the whole split, once for each of the final seeds, a finalist's runs side by side."""
    return [
        each.configuration.run.model_copy(
            update={"train": each.configuration.run.train.model_copy(update={"seed": seed})}
        )
        for each in choice.finalists
        for seed in spec.final.seeds
    ]


def search_summary(spec: SweepSpec, scored: Sequence[Scored], choice: Choice) -> SearchSummary:
    """The search as a report shows it."""
    chosen = {each.order for each in choice.finalists}
    return SearchSummary(
        kind=spec.search.kind,
        select=spec.select,
        configurations=tuple(
            Searched(
                name=each.configuration.name,
                settings=each.configuration.settings,
                score=each.score,
                error=each.error,
                runs=len(each.rows),
                diverged=each.diverged,
                halved=each.halved,
                chosen=each.order in chosen,
            )
            for each in scored
        ),
        heads=sum(len(each.rows) for each in scored),
        folds=spec.folds.count if spec.folds else 1,
        seeds=len(spec.seeds),
        best_of=spec.final.best_of,
    )


def choice_table(choice: Choice, finals: Sequence[RunRecord], spec: SweepSpec) -> str:
    """The finalists in Markdown: what they were chosen by, and what their final runs scored on the test rows.

    Args:
        choice: of the sweep.
        finals: the runs of `final_runs`, in their order.
        spec: of the sweep.
    """
    seeds = len(spec.final.seeds)
    runs = [finals[start : start + seeds] for start in range(0, len(finals), seeds)]
    names = [each.configuration.name + (" (baseline)" * (each is choice.baseline)) for each in choice.finalists]
    table = Table(
        (
            Column("Configuration", [Cell(name) for name in names], "left"),
            Column(f"Validation {SELECTS[spec.select]}", [_score(each) for each in choice.finalists]),
            Column("Test macro F1", [_spread([run.metrics["test"]["macro"]["f1"] for run in own]) for own in runs]),
            Column("Test accuracy", [_spread([run.metrics["test"]["accuracy"] for run in own]) for own in runs]),
            Column("Parameters", [Cell(f"{own[0].parameters:,}") for own in runs]),
        )
    )
    notes = [describe_scores(choice, spec), *describe_losses(choice)]
    return markdown(table) + "\n" + "".join(f"- {note}\n" for note in notes)


def describe_scores(choice: Choice, spec: SweepSpec) -> str:
    """What stands in the table of the choice, in a sentence."""
    samples = [f"{spec.folds.count} folds"] if spec.folds else []
    samples += [f"{len(spec.seeds)} seeds"] if len(spec.seeds) > 1 else []
    error = f", mean ± standard error over {' and '.join(samples)}" if samples else ""
    test = f" (mean ± standard deviation over {len(spec.final.seeds)} seeds)" if len(spec.final.seeds) > 1 else ""
    return (
        f"Validation: the search's score{error}, by which {len(choice.finalists)} of "
        f"{len(choice.ranked) + len(choice.lost)} configurations were chosen. Test: scored once, when all was "
        f"chosen{test}."
    )


def describe_losses(choice: Choice) -> list[str]:
    """What could not win and why, one sentence each."""
    notes = []
    if choice.lost:
        count = len(choice.lost) + len(choice.ranked)
        named = _listed([each.configuration.name for each in choice.lost])
        notes.append(
            f"{len(choice.lost)} of {count} configurations cannot be chosen, a run of theirs diverged: {named}."
        )
    if choice.undecided:
        notes.append(f"No finalist for {_listed(choice.undecided)}: every configuration had a run that diverged.")
    halved = [each.configuration.name for each in choice.finalists if each.halved]
    if halved:
        notes.append(f"Chosen though halving had ended them early, for want of any other: {_listed(halved)}.")
    if choice.finalists and choice.baseline is None:
        best = choice.finalists[0].configuration.name
        notes.append(f"No configuration with the baseline's streams can be chosen; the baseline is the best: {best}.")
    return notes


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more


def _score(each: Scored) -> Cell:
    return Cell(f"{each.score:.4f}", "" if each.error is None else f"{each.error:.4f}")


def _spread(values: Sequence[float]) -> Cell:
    return Cell(f"{fmean(values):.4f}", f"{stdev(values):.4f}" if len(values) > 1 else "")
