"""The separator of the fields of a table: comma, semicolon (spreadsheets of many countries), tab or bar."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

_SEPARATORS = (",", ";", "\t", "|")
SEPARATORS_SHOWN = "',' ';' tab '|'"


def find_separator(lines: Iterator[str], wanted: Sequence[str]) -> tuple[str, list[str]]:
    """Find the separator of a table by its header.

    The separator is the one that gives the most of the wanted columns, then the most columns, then the first of comma,
    semicolon, tab, bar. A line `sep=;` before the header, as spreadsheets write it, names the separator and is no row.

    Args:
        lines: the lines of the table, from the first.
        wanted: the columns that the table should have.

    Returns:
        The separator, and the lines that were consumed and still have to be parsed.

    Raises:
        csv.Error: the header is not a row of a table.
    """
    first = next(lines, "")
    is_statement = first.strip().lower().startswith("sep=")
    if is_statement and (stated := first.strip("\r\n")[4:]) in _SEPARATORS:
        return stated, []
    header = [first]
    while sum(line.count('"') for line in header) % 2:  # a quoted name that contains a line break
        line = next(lines, None)
        if line is None:
            break
        header.append(line)
    names = {separator: _names(header, separator) for separator in _SEPARATORS}
    best = max(_SEPARATORS, key=lambda separator: (len(names[separator] & {*wanted}), len(names[separator])))
    return best, header


def shown_separator(separator: str) -> str:
    """Return a separator as messages show it."""
    return "tabs" if separator == "\t" else repr(separator)


def _names(header: Sequence[str], separator: str) -> set[str]:
    return {name.strip() for name in next(csv.reader(header, delimiter=separator), [])}
