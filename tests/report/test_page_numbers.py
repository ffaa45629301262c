"""Every number of the page stands in a row of the tables of plain numbers beside it."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from html.parser import HTMLParser

import pytest

from emofuse.report import write_report
from emofuse.report.search import SearchedConfiguration, SearchSummary

CLASSES = ("joy", "fear", "rage")
NUMBER = re.compile(r"(?<![\w.])[+−-]?\d[\d,]*(?:\.\d+)?(?![\w.]*\w)")


class Tables(HTMLParser):
    """The tables of a page: [(name of the file with their numbers, [[text of a cell, ...], ...])]."""

    def __init__(self, text):
        super().__init__()
        self.tables, self._source, self._cell, self._in_data = [], None, None, False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "figure" and "table" in attributes.get("class", "").split():
            self._source = attributes.get("data-source")
        if tag == "table":
            self.tables.append((self._source, []))
        if tag == "tr":
            self.tables[-1][1].append([])
        if tag in {"td", "th"}:
            self._cell = ""
        if tag == "script":
            self._in_data = attributes.get("class") == "rows"

    def handle_endtag(self, tag):
        if tag in {"td", "th"}:
            self.tables[-1][1][-1].append(self._cell.strip())
            self._cell = None
        if tag == "script":
            self._in_data = False

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data + " "
        if self._in_data:  # the rows of a long table
            rows = json.loads(data)
            self.tables[-1][1][1:] = [[as_text(cell) for cell in row] for row in rows]


def as_text(cell):
    if isinstance(cell, str):
        return cell
    text, spread, interval, *_ = cell
    return f"{text} ± {spread} [{interval}]"


def read_rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def is_in(number, values):
    """Whether a number as the page prints it is one of these values, rounded as it is."""
    text = number.replace("−", "-").replace(",", "")
    decimals = len(text.partition(".")[2])
    wanted = float(text)
    return any(abs(value - wanted) <= 0.5000001 * 10**-decimals + 1e-9 for value in values)


def values_of(rows):
    """All numbers in rows of plain numbers; shares also as percent, and numbers in texts."""
    values = []
    for row in rows:
        for column, text in row.items():
            for each in NUMBER.findall((text or "").replace("–", " – ")):
                value = float(each.replace("−", "-").replace(",", ""))
                values += [value, 100 * value]
            if re.fullmatch(r"-?[\d.]+(e-?\d+)?", text or ""):
                values += [float(text), 100 * float(text)]
                if column.endswith("bytes"):  # which the page shows in MiB
                    values.append(float(text) / 2**20)
    return values


def lost_numbers(files):
    """The numbers of the page's tables that are in no row of their file: of the same configuration if it names one."""
    folder = files.page.parent
    tables = Tables(files.page.read_text(encoding="utf-8")).tables
    assert len(tables) > 5
    lost = []
    for source, (_, *rows) in tables:
        assert source, "a table names no file with its numbers"
        every = read_rows(folder / source)
        for name, *cells in rows:
            same = [row for row in every if html.unescape(name) in row.values()] or every
            values = values_of(same)
            numbers = [number for cell in cells for number in NUMBER.findall(cell.replace("–", " – "))]
            lost += [(source, name, number) for number in numbers if not is_in(number, values)]
    return lost


def lost_in_the_overview(files):
    """The scores, differences, intervals and p values of the first sentences that are in no row of the files."""
    text = html.unescape(re.search(r'<p class="lead">(.*?)</p>', files.page.read_text(encoding="utf-8")).group(1))
    folder = files.page.parent
    values = values_of([row for name in ("summary.csv", "comparisons.csv") for row in read_rows(folder / name)])
    numbers = [number for number in NUMBER.findall(re.sub("<[^>]*>", "", text)) if "." in number]
    assert len(numbers) > 5
    return [number for number in numbers if not is_in(number, values) and number != "0.001"]


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("kind", ["class", "distribution", "regression", "multilabel"])
def test_every_number_of_the_tables_of_the_page_is_in_a_row_of_the_file_that_they_name(make_run, tmp_path, kind):
    how = {"target": kind, "rows": 120, "epochs": 3} | ({"classes": CLASSES} if kind == "class" else {})
    for seed in range(2):
        for name, streams in (("a", ("lbp",)), ("b", ("lbp", "resnet50"))):
            make_run(name, streams, seed=seed, random_weights=("resnet50",), **how)
    make_run("Reference", ("resnet50",), head="logistic", reference=True, **how)
    searched = [
        SearchedConfiguration(name, {"depth": depth}, 0.5 + depth / 7, 0.01, 2, chosen=depth == 1, final_runs=2)
        for depth, name in enumerate(("a", "b"))
    ]
    search = SearchSummary("grid", "loss" if kind != "class" else "macro_f1", tuple(searched), 4)
    files = write_report(make_run.folder, tmp_path / "report", search=search, metrics=[])
    assert lost_numbers(files) == []
    assert lost_in_the_overview(files) == []


@pytest.mark.usefixtures("blank_figures")
def test_numbers_of_long_tables_of_charts_and_of_samples_are_in_their_files(make_run, tmp_path):
    for seed in range(51):
        for name, streams in (("a", ("lbp",)), ("b", ("resnet50",))):
            make_run(name, streams, seed=seed, classes=CLASSES, rows=60, epochs=2)
    files = write_report(make_run.folder, tmp_path / "report")
    assert lost_numbers(files) == []
    text = files.page.read_text(encoding="utf-8")
    charts, samples = (
        json.loads(re.search(rf'id="{name}-data">(.*?)</script>', text).group(1)) for name in ("charts", "samples")
    )
    summary = {row["configuration"]: row for row in read_rows(files.summary_csv)}
    for place, label in enumerate(charts["scores"]["labels"]):
        for score in charts["scores"]["scores"]:
            column = {"accuracy": "accuracy", "macro F1": "macro_f1"}[score["name"]]
            for end, name in (("mean", "mean"), ("low", "95_low"), ("high", "95_high")):
                assert float(summary[label][f"{column}_{name}"]) == pytest.approx(score[end][place], abs=1e-5)
    curves = {
        (row["configuration"], row["digest"][:8], int(row["epoch"])): row
        for row in read_rows(tmp_path / "report" / "curves.csv")
    }
    for item in charts["training"]["configurations"]:
        for run in item["runs"]:
            for epoch, value in enumerate(run["val_macro_f1"], start=1):
                row = curves[item["label"], run["name"], epoch]
                assert float(row["val_macro_f1"]) == pytest.approx(value, abs=1e-5)
                assert (row["kept"] == "yes") == (epoch == run["best"])
    rows = {
        (row["configuration"], row["sample_id"], row["predicted"]): row
        for row in read_rows(tmp_path / "report" / "samples.csv")
    }
    counts = {
        (row["configuration"], row["true"], row["predicted"]): int(row["count"])
        for row in read_rows(tmp_path / "report" / "confusion.csv")
    }
    for label, cells in samples["cells"].items():
        for cell, listed in cells.items():
            true, predicted = (CLASSES[int(part)] for part in cell.split(","))
            assert sum(times for _, times, _, _ in listed) == counts[label, true, predicted]
            for sample, times, tested, confidence in listed:
                row = rows[label, samples["ids"][sample], predicted]
                assert (row["true"], int(row["runs"]), int(row["tested_by"])) == (true, times, tested)
                assert float(row["confidence"]) == pytest.approx(confidence, abs=1e-3)
                votes = [row[f"answer_of_{stream}"] for stream in samples["streams"]]
                assert votes == [CLASSES[vote] for vote in samples["votes"][sample]]
