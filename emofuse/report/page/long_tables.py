"""Tables of the page: short ones as HTML alone, and long ones as a few rows of HTML and compact JSON of all rows.

A browser needs seconds to lay out a table of thousands of rows. So the script of the page draws a long table one page
of rows at a time. Readers without scripts see its first rows, and the name of the CSV file with all of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from emofuse.report.formats import show_controls
from emofuse.report.tables import Cell, ReportTable

MOST_STATIC = 100
"""The largest number of rows of a table that is HTML alone."""
FIRST_ROWS = 25
"""The number of rows of a longer table that are HTML."""


@dataclass(frozen=True)
class PageTable:
    """A table as the page shows it.

    Attributes:
        table: its cells.
        rows: the rows that are HTML.
        data: all rows as JSON for the script; an empty text if all rows are HTML.
    """

    table: ReportTable
    rows: list[tuple[Cell, ...]]
    data: str

    @property
    def count(self) -> int:
        """The number of all rows."""
        return len(self.table.columns[0].cells)


def page_table(table: ReportTable) -> PageTable:
    """Return a table as the page shows it."""
    rows = table.rows
    if len(rows) <= MOST_STATIC:
        return PageTable(table, rows, "")
    return PageTable(table, rows[:FIRST_ROWS], script_json([[_plain(cell) for cell in row] for row in rows]))


def _plain(cell: Cell) -> str | list[Any]:
    """Return the text of a cell, or [text, spread, interval, best, mark] if it has more."""
    text = show_controls(cell.text)
    if cell.spread or cell.interval or cell.best or cell.mark:
        return [text, cell.spread, cell.interval, int(cell.best), cell.mark]
    return text


def script_json(data: Any) -> Markup:
    """Return compact JSON that can stand in a script element: no text of the data ends it or begins a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - no character of it is markup
