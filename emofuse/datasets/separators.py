"""What separates the fields of a table: commas, semicolons (spreadsheets of half of Europe), tabs or bars."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

_SEPARATORS = (",", ";", "\t", "|")
SEPARATORS_SHOWN = "',' ';' tab '|'"


def find_separator(lines: Iterator[str], wanted: Sequence[str]) -> tuple[str, list[str]]:
    """Which separator a table's header has.

    That under which the most of the columns that are wanted are there; of several, that which makes the most columns;
    of these the first of comma, semicolon, tab, bar. A line `sep=;` before the header, as spreadsheets write it, says
    so itself and is no row.

    Args:
        lines: of the table, from its first.
        wanted: columns that the table should have.

    Returns:
        The separator, and the lines that were taken to find it and still are to be read.

    Raises:
        csv.Error: the header is no row of a table.
    """
    first = next(lines, "")
    said = first.strip().lower()
    if said.startswith("sep=") and (own := first.strip("\r\n")[4:]) in _SEPARATORS:
        return own, []
    header = [first]
    while sum(line.count('"') for line in header) % 2:  # a name in quotes that goes over the end of the line
        line = next(lines, None)
        if line is None:
            break
        header.append(line)
    found = {separator: _names(header, separator) for separator in _SEPARATORS}
    best = max(_SEPARATORS, key=lambda separator: (len(found[separator] & {*wanted}), len(found[separator])))
    return best, header


def shown_separator(separator: str) -> str:
    """For a message."""
    return "tabs" if separator == "\t" else repr(separator)


def _names(header: Sequence[str], separator: str) -> set[str]:
    return {name.strip() for name in next(csv.reader(header, delimiter=separator), [])}
