"""Chooses how much detail on single classes the figures of a report show, so that they stay readable and quick to draw.

A text costs about a millisecond and half a kilobyte in each figure. Cells are counted over all figures of a report: a
dozen matrices of 20 labels have as many as one of 70.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_CELLS = 2000
MOST_LABELS_IN_CELLS = 25
MOST_NAMES = 400
MOST_LABELS_WITH_NAMES = 40


@dataclass(frozen=True)
class Detail:
    """The detail that figures of single classes show.

    Attributes:
        numbers: whether the cells of matrices hold their numbers beside their colours.
        names: whether axes name the labels; otherwise they count them from 1, in the order of the tables.
    """

    numbers: bool
    names: bool


def choose_detail(figures: int, labels: int) -> Detail:
    """Choose the detail for a report with this number of confusion matrices, and of figures of each other kind."""
    return Detail(
        numbers=labels <= MOST_LABELS_IN_CELLS and figures * labels * (labels + 1) <= MOST_CELLS,
        names=labels <= MOST_LABELS_WITH_NAMES and figures * labels <= MOST_NAMES,
    )


def counted_words(detail: Detail) -> str:
    """Return the sentence on where to find the names of counted labels."""
    return "" if detail.names else " Labels are shown by number; the tables of classes list the numbers."
