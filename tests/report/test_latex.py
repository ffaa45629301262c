"""LaTeX tables: a strict check of their structure, because few machines that test have LaTeX."""

from __future__ import annotations

import re

import pytest

from emofuse.report.latex import MOST_ROWS_ON_A_PAGE, escape_latex, latex_document, latex_label, latex_table
from emofuse.report.tables import Cell, ReportTable, TableColumn

NAMES = (
    "[a] in brackets", "*starred", "(round)", r"a & b % c $ d # e _ f { } ~ ^ \ | < > \" ' `", "-- ,, ?` !` ''",
    "Łódź, zażółć gęślą", "Jörg Müller ß æøå É č ş ő ñ", "漢字 and 感情", "привет", "α β Δ → ± ≤ × ′ … ² − –", "😀",
    "a\x07b", "fi\u200bx", "½ · °C µ €", "line\nend",
)  # fmt: skip
KNOWN = {
    "textbackslash", "textasciitilde", "textasciicircum", "textasciigrave", "textbar", "ldots", "ss", "ae", "o", "aa",
    "l", "L", "v", "c", "H", "pm", "times", "cdot", "leq", "rightarrow", "alpha", "beta", "Delta", "dagger",
    "uparrow", "mu", "circ", "i", "AA", "begin", "end", "centering", "caption", "label", "toprule", "midrule",
    "bottomrule", "textbf", "textsuperscript", "small", "footnotesize", "scriptsize", "resizebox", "textwidth",
    "multicolumn", "endfirsthead", "endhead", "endfoot", "endlastfoot", "providecommand", "emofuseletter", "ifcsname",
    "endcsname", "else", "fi", "char", "ifdim", "width",
}  # fmt: skip


def check_latex(text):
    """Fail on what LaTeX would stop at; return the labels."""
    assert text.isascii()
    code = re.sub(r"(?m)(?<!\\)%.*$", "", text)  # comments
    depth = 0
    for token in re.findall(r"\\[A-Za-z]+|\\.|[{}]", code, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0, "braces"
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", code):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    assert set(re.findall(r"\\([A-Za-z]+)", code)) <= KNOWN
    assert len(re.findall(r"(?<!\\)\$", code)) % 2 == 0, "mathematics that is not closed"
    assert not re.findall(r"(?<!\\)#(?![12])", code)
    outside = re.sub(r"\\label\{[^}]*\}|(?<!\\)\$[^$]*(?<!\\)\$", "", code)
    assert not re.findall(r"(?<!\\)[_^]", outside), "an index outside of mathematics"
    assert not re.search(r"(\\\\|\\midrule|\\toprule)\s*[\[*(]", code), "a cell that is read as an option"
    for spec, body in re.findall(
        r"\\begin\{(?:tabular|longtable)\}\{([lr]+)\}(.*?)\\end\{(?:tabular|longtable)\}", code, re.DOTALL
    ):
        rows = [row for row in re.split(r"\\\\", body) if re.search(r"(?<!\\)&", row)]
        assert rows
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(spec) - 1}
    return re.findall(r"\\label\{([^}]*)\}", code)


def table_of(names, columns=1):
    cells = [Cell(name) for name in names]
    numbers = [Cell("+0.1", "0.2", "−0.1, 0.3", best=True, mark="**") for _ in names]
    right = [TableColumn(f"Δ F1 ↑ {place}", numbers) for place in range(columns)]
    return ReportTable((TableColumn("[Name] & more", cells, "left"), *right))


@pytest.mark.parametrize("columns", [1, 3, 9])
@pytest.mark.parametrize("rows", [len(NAMES), 60])
def test_tables_of_any_names_width_and_length_have_a_structure_that_compiles(columns, rows):
    names = [NAMES[place % len(NAMES)] for place in range(rows)]
    text = latex_table(table_of(names, columns), " ".join(NAMES), "a_b c")
    assert check_latex(text) == ["tab:a-b-c"]
    assert ("longtable" in text) == (rows > MOST_ROWS_ON_A_PAGE)
    assert ("\\resizebox" in text) == (rows <= MOST_ROWS_ON_A_PAGE)
    assert ("% needs \\usepackage{graphicx}" in text) == ("\\resizebox" in text)
    assert ("% needs \\usepackage{longtable}" in text) == ("\\begin{longtable}" in text)


def test_narrow_tables_have_the_letters_of_the_text_and_wide_ones_are_never_wider_than_a_line():
    narrow, wide = (latex_table(table_of(["a"], columns), "c", "l") for columns in (1, 9))
    assert "\\small" not in narrow
    assert "graphicx" not in narrow
    assert r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%" in wide
    foreign = latex_table(table_of(["漢字" * 8]), "c", "l")
    assert "\\resizebox" in foreign  # pdfTeX shows seven letters for each of these


def test_the_check_itself_finds_what_latex_stops_at():
    for bad in (
        "é",
        "{",
        "\\begin{a}",
        "a_b",
        "\\unknown",
        "$a",
        "\\\\ [x]",
        "\\begin{tabular}{ll}a & b & c\\\\\\end{tabular}",
    ):
        with pytest.raises((AssertionError, IndexError)):
            check_latex(bad)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("50 % of a_b & c", r"50 \% of a\_b \& c"),
        ("−0.1 ± 0.2 ≤ 3 × 4 → 5", r"$-$0.1 $\pm$ 0.2 $\leq$ 3 $\times$ 4 $\rightarrow$ 5"),
        ("Δ café Ångström naïve", r"$\Delta$ caf\'{e} \AA{}ngstr\"{o}m na\"{\i}ve"),
        ("a--b ''c''", r"a-{}-b '{}'c'{}'"),
        ("<0.001", "$<$0.001"),
        ("漢", r'\emofuseletter{\char"6F22 }{[U+6F22]}'),
    ],
)
def test_text_is_shown_unchanged(text, shown):
    assert escape_latex(text) == shown


def test_stars_follow_the_number_and_the_interval_follows_both():
    text = latex_table(table_of(["x"]), "c", "l")
    assert r"x & \textbf{+0.1}\textsuperscript{**} $\pm$ 0.2 [$-$0.1, 0.3] \\" in text


def test_the_document_reads_every_table_and_loads_what_they_need():
    text = latex_document("50 % & 漢", ["scores.tex", "per_class_a.tex"])
    for package in ("booktabs", "graphicx", "longtable"):
        assert f"\\usepackage{{{package}}}" in text
    assert text.index("\\providecommand") < text.index("\\begin{document}")
    assert re.findall(r"\\input\{(.*?)\}", text) == ["scores.tex", "per_class_a.tex"]
    assert latex_label("per_class_a b") == "per-class-a-b"
