"""Says how runs ended on the terminal, and gathers their notes so that each is stated once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from emofuse.report.configurations import find_metric
from emofuse.report.formats import format_score, join_some
from emofuse.report.targets import reported_target
from emofuse.results import RunRecord


def describe_run(record: RunRecord, trained_now: bool) -> str:
    """Return a line on a run: its test scores, and whether and how long it was trained now."""
    how = f"{record.seconds:.1f} s" if trained_now else "done before"
    scores = reported_target(record.target_kind).leading
    texts = [f"{score.name} {format_score(find_metric(record, score.path), score.decimals)}" for score in scores]
    return f"{record.name}, test {', '.join(texts)} ({how})"


def gather_notes(runs: Iterable[tuple[str, RunRecord]]) -> list[str]:
    """Return each note of training once, with the configurations that it holds for if these are not all.

    Args:
        runs: pairs of the name of a configuration and one of its runs.
    """
    totals: Counter[str] = Counter()
    notes: dict[str, Counter[str]] = {}
    for name, run in runs:
        totals[name] += 1
        for note in run.notes:
            notes.setdefault(note, Counter())[name] += 1
    return [_sentence(note, where, totals) for note, where in notes.items()]


def _sentence(note: str, where: Counter[str], totals: Counter[str]) -> str:
    count, of_these = where.total(), sum(totals[name] for name in where)
    if count == totals.total():
        return note
    some = f" ({count} of {of_these} runs)" if count < of_these else ""
    return f"{join_some(list(where))}{some}: {note}" if len(totals) > 1 else f"{note[:-1]}{some}."


def gather_further_notes(known: Iterable[RunRecord], runs: Iterable[tuple[str, RunRecord]]) -> list[str]:
    """Return the notes of runs as `gather_notes` does, without those that one of the known runs has too."""
    there = {note for run in known for note in run.notes}
    return gather_notes(
        (name, replace(run, notes=[note for note in run.notes if note not in there])) for name, run in runs
    )
