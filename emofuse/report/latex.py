r"""Writes the tables of a report for LaTeX, in the style of booktabs. They compile as they are.

A file needs `\usepackage{booktabs}`, a wide table also `\usepackage{graphicx}` and a long one `\usepackage{longtable}`;
its first lines say so. All text is ASCII, so that no `inputenc` is needed: accents and common signs are commands that
every pdfTeX knows. Letters of other scripts are drawn by XeTeX and LuaTeX; pdfTeX shows their code points.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from emofuse.report.formats import show_controls
from emofuse.report.tables import Cell, ReportTable

MOST_ROWS_ON_A_PAGE = 42
_LETTERS_IN_A_LINE = {"": 66, "\\small": 74, "\\footnotesize": 84}
"""The size of letters -> the number of letters that fit a line of the class `article`, which is 345 points wide."""
_CODE_LETTERS = 7
"""The letters of a code point that stands for a letter of another script."""
_LETTER_COMMAND = "emofuseletter"
_AT_MOST_A_LINE = r"\ifdim\width>\textwidth\textwidth\else\width\fi"

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"$<$",
    ">": r"$>$",
    '"': r"''",
    "`": r"\textasciigrave{}",
} | {letter: rf"\{letter}" for letter in "&%$#_{}"}
_SIGNS = {
    "\u00a0": "~",
    "\u2009": r"\,",
    "\u202f": r"\,",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "‐": "-",
    "‑": "-",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "∑": r"$\sum$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "•": r"$\bullet$",
    "°": r"$^{\circ}$",
    "′": r"$'$",
    "″": r"$''$",
    "²": "$^{2}$",
    "³": "$^{3}$",
    "¹": "$^{1}$",
    "½": "$1/2$",
    "µ": r"$\mu$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "↔": r"$\leftrightarrow$",
    "⇒": r"$\Rightarrow$",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "„": "''",
    "‘": "`",
    "’": "'",
    "«": "$\\ll$",
    "»": "$\\gg$",
    "§": r"\S{}",
    "¶": r"\P{}",
    "©": r"\copyright{}",
    "£": r"\pounds{}",
    "¡": "!`",
    "¿": "?`",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "å": r"\aa{}",
    "Å": r"\AA{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0323": "d",
    "\u0327": "c",
    "\u0331": "b",
}
"""Combining accent -> the command that sets it on a letter, in every encoding of fonts."""
_GREEK = {
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", (
        r"\alpha", r"\beta", r"\gamma", r"\delta", r"\varepsilon", r"\zeta", r"\eta", r"\theta", r"\iota", r"\kappa",
        r"\lambda", r"\mu", r"\nu", r"\xi", r"\pi", r"\rho", r"\sigma", r"\tau", r"\upsilon", r"\varphi", r"\chi",
        r"\psi", r"\omega",
    ), strict=True)),
    **dict(zip("ΓΔΘΛΞΠΣΥΦΨΩ", (
        r"\Gamma", r"\Delta", r"\Theta", r"\Lambda", r"\Xi", r"\Pi", r"\Sigma", r"\Upsilon", r"\Phi", r"\Psi",
        r"\Omega",
    ), strict=True)),
    "ς": r"\varsigma",
    "ο": "o",
}  # fmt: skip
_COMMANDS = _ESCAPES | _SIGNS | {letter: f"${command}$" for letter, command in _GREEK.items()}
_LIGATURES = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)|(?<=[!?])(?=`)")


def latex_table(table: ReportTable, caption: str, label: str) -> str:
    r"""Return a `table` environment, or a `longtable` of many rows; the document needs `\usepackage{booktabs}`.

    A table that may be wider than a line is set in small letters, and scaled to the line if it is wider all the same. A
    long one cannot be scaled; it has still smaller letters.

    Args:
        table: the table.
        caption: the caption as plain text.
        label: the name by which the document refers to it, as `tab:LABEL`.
    """
    align = "".join("l" if column.align == "left" else "r" for column in table.columns)
    head = _row([escape_latex(column.title) for column in table.columns])
    body = "".join(_row([_cell(cell) for cell in row]) for row in table.rows)
    name = f"\\caption{{{escape_latex(caption)}}}\n\\label{{tab:{latex_label(label)}}}"
    size = _size(table)
    if len(table.rows) > MOST_ROWS_ON_A_PAGE:
        text, packages = _long_table(align, head, body, name, size), ["booktabs", "longtable"]
    else:
        tabular = f"\\begin{{tabular}}{{{align}}}\n\\toprule\n{head}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}"
        text, packages = f"\\begin{{table}}\n\\centering\n{name}\n", ["booktabs"]
        if size:
            tabular = f"\\resizebox{{{_AT_MOST_A_LINE}}}{{!}}{{%\n{tabular}%\n}}"
            text, packages = f"{text}\\small\n", ["booktabs", "graphicx"]
        text += f"{tabular}\n\\end{{table}}\n"
    needs = "".join(f"% needs \\usepackage{{{package}}}\n" for package in packages)
    return needs + (_letter_definition() if f"\\{_LETTER_COMMAND}" in text else "") + text


def latex_document(title: str, files: Sequence[str]) -> str:
    r"""Return a small document that shows the tables of all files, each of which is read with `\input`.

    Args:
        title: the title of the document as plain text.
        files: the names of the files beside the document, without their ending.
    """
    inputs = "\n".join(f"\\input{{{name}}}\n\\clearpage" for name in files)
    definition = _letter_definition() if f"\\{_LETTER_COMMAND}" in (text := escape_latex(title)) else ""
    return (
        "\\documentclass{article}\n"
        "\\usepackage[T1]{fontenc}\n"
        "\\usepackage[a4paper,margin=2cm]{geometry}\n"
        "\\usepackage{booktabs}\n\\usepackage{graphicx}\n\\usepackage{longtable}\n"
        f"{definition}"
        f"\\begin{{document}}\n\\section*{{{text}}}\n{inputs}\n\\end{{document}}\n"
    )


def latex_label(name: str) -> str:
    """Return a name as labels may be written: letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name)


def escape_latex(text: str) -> str:
    """Return text that LaTeX shows unchanged, on one line, in ASCII."""
    plain = " ".join(show_controls(text).split(" "))
    plain = unicodedata.normalize("NFC", " ".join(plain.split()))
    parts = re.split(r"([^\x00-\x7f]+)", _LIGATURES.sub("\0", plain))
    return "".join(_escape_run(part) for part in parts).replace("\0", "{}")


def _escape_run(text: str) -> str:
    """Return the commands of a run of letters, with those of other scripts together in one command."""
    shown, foreign = "", ""
    for letter in text:
        command = letter if letter == "\0" else _command(letter)
        if command is None:
            foreign += letter
            continue
        shown += _foreign(foreign) + command
        foreign = ""
    return shown + _foreign(foreign)


def _command(letter: str) -> str | None:
    """Return the ASCII text that shows a letter; None for letters that pdfTeX has no command for."""
    if letter in _COMMANDS:
        return _COMMANDS[letter]
    if letter.isascii():
        return letter
    parts = unicodedata.normalize("NFD", letter)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        base = {"i": r"\i", "j": r"\j"}.get(parts[0], parts[0])
        return rf"\{_ACCENTS[parts[1]]}{{{base}}}"
    if unicodedata.category(letter) == "Cf":
        return ""  # joiners and soft hyphens have no shape
    return None


def _foreign(letters: str) -> str:
    """Return letters of other scripts: as they are in XeTeX and LuaTeX, and as code points in pdfTeX."""
    if not letters:
        return ""
    codes = " ".join(f"U+{ord(letter):04X}" for letter in letters)
    drawn = "".join(f'\\char"{ord(letter):X} ' for letter in letters)
    return f"\\{_LETTER_COMMAND}{{{drawn}}}{{[{codes}]}}"


def _letter_definition() -> str:
    r"""Return the command for letters of other scripts. `\Umathchar` exists in XeTeX and LuaTeX alone."""
    return (
        f"\\providecommand{{\\{_LETTER_COMMAND}}}[2]"
        "{\\ifcsname Umathchar\\endcsname#1\\else#2\\fi} % letters of other scripts need XeTeX or LuaTeX\n"
    )


def _long_table(align: str, head: str, body: str, name: str, size: str) -> str:
    columns = len(align)
    return (
        ("{" + size + "\n" if size else "{\n")
        + f"\\begin{{longtable}}{{{align}}}\n{name}\\\\\n\\toprule\n{head}\\midrule\n\\endfirsthead\n"
        + f"\\toprule\n{head}\\midrule\n\\endhead\n"
        + f"\\midrule\n\\multicolumn{{{columns}}}{{r}}{{continued}} \\\\\n\\endfoot\n\\bottomrule\n\\endlastfoot\n"
        + f"{body}\\end{{longtable}}\n}}\n"
    )


def _size(table: ReportTable) -> str:
    """Return the command for the size of letters at which the table fits a line, as far as their number tells."""
    letters = sum(
        max(_width(column.title), *(_width(_plain(cell)) for cell in column.cells), 1) + 2 for column in table.columns
    )
    return next((size for size, most in _LETTERS_IN_A_LINE.items() if letters <= most), "\\scriptsize")


def _width(text: str) -> int:
    """Return the number of letters that pdfTeX shows of a text."""
    return len(text) + sum(_CODE_LETTERS - 1 for letter in text if _command(letter) is None)


def _plain(cell: Cell) -> str:
    spread, interval = f" ± {cell.spread}" * bool(cell.spread), f" [{cell.interval}]" * bool(cell.interval)
    return f"{cell.text}{cell.mark}{spread}{interval}"


def _row(cells: Sequence[str]) -> str:
    r"""Return a row. After `\\` and `\midrule`, a bracket or star would begin an option, which `{}` prevents."""
    first = "{}" if cells and cells[0][:1] in {"[", "*", "("} else ""
    return f"{first}{' & '.join(cells)} \\\\\n"


def _cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    if cell.best:
        text = rf"\textbf{{{text}}}"
    if cell.mark:
        text += rf"\textsuperscript{{{escape_latex(cell.mark)}}}"
    if cell.spread:
        text += rf" $\pm$ {escape_latex(cell.spread)}"
    if cell.interval:
        text += f" [{escape_latex(cell.interval)}]"
    return text
