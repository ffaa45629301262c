"""Lists of names and counts in messages, reports and notes."""

from __future__ import annotations

from collections.abc import Iterable


def join_names(names: Iterable[str]) -> str:
    """Return `a`, `a and b` or `a, b and c`."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def join_first(names: Iterable[str], most: int, *, joint: str = ", ", word: str = "and") -> str:
    """Return the first names and the number of the others, such as `a, b and 3 more`.

    Args:
        names: the names.
        most: the largest number of names that are listed.
        joint: what stands between two names.
        word: what stands before the number of the others.
    """
    every = list(names)
    more = f" {word} {len(every) - most} more" if len(every) > most else ""
    return joint.join(every[:most]) + more


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 row` or `2 rows`."""
    return f"{number} {noun}{'s' * (number != 1)}"
