"""Words and cells that several sections share."""

from __future__ import annotations

from collections.abc import Sequence

from emofuse.report.formats import format_difference, format_interval, format_score
from emofuse.report.tables import Cell
from emofuse.statistics import Interval


def difference_cell(value: float, interval: Interval | None) -> Cell:
    """Return a signed number with its interval."""
    return Cell(format_difference(value), interval=format_interval(interval, signed=True))


def score_cell(value: float, interval: Interval | None = None) -> Cell:
    """Return a score with its interval."""
    return Cell(format_score(value), interval=format_interval(interval))


def unit_words(*, grouped: bool) -> str:
    """Return what resamples draw."""
    return "whole groups of rows" if grouped else "rows"


def random_sentence(streams: Sequence[str]) -> list[str]:
    """Return the warning on streams with random weights, or nothing."""
    if not streams:
        return []
    return [f"RANDOM WEIGHTS: {', '.join(streams)}. What these streams are worth is a demonstration, not a finding."]


def heading_of(score: str) -> str:
    """Return the name of a score at the beginning of a heading: `Accuracy`, `Macro F1`, and `mAP` as it is."""
    return f"{score[0].upper()}{score[1:]}" if score.partition(" ")[0].islower() else score
