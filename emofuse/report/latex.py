"""Writes the tables of a report for LaTeX, in the style of booktabs. They compile as they are."""

from __future__ import annotations

import re

from emofuse.report.formats import show_controls
from emofuse.report.tables import Cell, ReportTable

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "†": r"$\dagger$",
    "…": r"\ldots{}",
    "<": r"$<$",
    ">": r"$>$",
} | {letter: rf"\{letter}" for letter in "&%$#_{}"}


def latex_table(table: ReportTable, caption: str, label: str) -> str:
    r"""Return a `table` environment; the document needs `\usepackage{booktabs}`.

    Args:
        table: the table.
        caption: the caption as plain text.
        label: the name by which the document refers to it, as `tab:LABEL`.
    """
    align = "".join("l" if column.align == "left" else "r" for column in table.columns)
    head = " & ".join(escape_latex(column.title) for column in table.columns)
    body = "".join(f"{' & '.join(map(_cell, row))} \\\\\n" for row in table.rows)
    return (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{escape_latex(caption)}}}\n\\label{{tab:{re.sub(r'[^A-Za-z0-9-]+', '-', label)}}}\n"
        f"\\begin{{tabular}}{{{align}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def escape_latex(text: str) -> str:
    """Return text that LaTeX shows unchanged, on one line."""
    return "".join(_ESCAPES.get(letter, letter) for letter in " ".join(show_controls(text).split()))


def _cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    if cell.best:
        text = rf"\textbf{{{text}}}"
    if cell.spread:
        text += rf" $\pm$ {escape_latex(cell.spread)}"
    if cell.interval:
        text += f" [{escape_latex(cell.interval)}]"
    return text
