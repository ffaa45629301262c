"""`emofuse explain` from its options to its files, and the page that shows them."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from emofuse.analysis.explain import PARTS, ExplainOptions, explain
from emofuse.analysis.sources import open_source
from emofuse.cli import app
from emofuse.errors import ResultsError
from emofuse.report.analysis import read_analysis
from emofuse.report.latex import escape_latex

FAST = ExplainOptions(configuration="network", draws=2, resamples=100, folds=2)


@pytest.fixture(scope="module")
def copied(planted, tmp_path_factory):
    """A copy of the folder, with everything explained."""
    folder = tmp_path_factory.mktemp("explained") / "planted"
    shutil.copytree(planted.folder, folder)
    written, sections = explain(folder, FAST)
    return folder, written, sections


def test_every_part_of_runs_is_made_and_read_again(copied):
    folder, written, sections = copied
    assert written == folder / "analysis" / "analysis.json"
    keys = [section.key for section in sections]
    assert keys == [part for part in PARTS if part in keys]
    assert {"worth", "suppression", "subgroups", "calibration", "mistakes", "label_noise"} <= set(keys)
    again = read_analysis(folder / "analysis")
    assert [section.key for section in again] == keys
    for before, after in zip(sections, again, strict=True):
        assert list(after.sentences) == list(before.sentences)
        assert [each.table for each in after.tables] == [each.table for each in before.tables]
        assert [each.svg for each in after.figures] == [each.svg for each in before.figures]


def test_every_table_is_there_as_csv_markdown_and_latex_and_every_figure_as_svg_png_and_pdf(copied):
    folder, _, sections = copied
    for section in sections:
        for table in section.tables:
            files = [folder / "analysis" / "tables" / f"{table.stem}.{ending}" for ending in ("csv", "md", "tex")]
            assert all(path.stat().st_size for path in files)
            assert r"\begin{tabular}" in files[2].read_text()
        for figure in section.figures:
            assert (folder / "analysis" / "figures" / f"{figure.stem}.svg").read_bytes().startswith(b"<?xml")
            assert (folder / "analysis" / "figures" / f"{figure.stem}.png").read_bytes().startswith(b"\x89PNG")
            assert (folder / "analysis" / "figures" / f"{figure.stem}.pdf").read_bytes().startswith(b"%PDF-")


def test_plain_numbers_are_those_of_the_cells(copied):
    folder, _, sections = copied
    (section,) = (each for each in sections if each.key == "suppression")
    with (folder / "analysis" / "tables" / "suppression_accuracy.csv").open() as lines:
        rows = {(row["stream"], row["method"]): row for row in csv.DictReader(lines)}
    names = [cell.text for cell in section.tables[0].table.columns[0].cells]
    missing = next(column for column in section.tables[0].table.columns if column.title == "Missing")
    for name, cell in zip(names, missing.cells, strict=True):
        assert cell.text.replace("−", "-") == f"{float(rows[name, 'missing']['drop']):+.3f}".replace("+0.000", "0.000")


def test_the_worth_by_class_counts_the_rows_of_each_class(planted, copied):
    (worth,) = (each for each in copied[2] if each.key == "worth")
    (table,) = (each.table for each in worth.tables if each.stem == "worth_per_class")
    assert [column.title for column in table.columns[:2]] == ["Class", "Rows"]
    assert [cell.text for cell in table.columns[1].cells] == [str(count) for count in np.bincount(planted.truth)]


def test_numbers_are_json_without_nan(copied):
    data = json.loads(copied[1].read_text(), parse_constant=pytest.fail)
    assert data["source"]["configuration"] == "network"
    assert len(data["runs"]) == 2


def test_a_part_that_is_made_again_leaves_the_others(copied, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(copied[0], folder)
    before = {section.key: section for section in read_analysis(folder / "analysis")}
    options = ExplainOptions(configuration="network", parts=("suppression",), draws=3, resamples=100)
    explain(folder, options)
    after = {section.key: section for section in read_analysis(folder / "analysis")}
    assert after.keys() == before.keys()
    assert after["worth"].numbers == before["worth"].numbers
    assert after["suppression"].numbers["draws"] == 3


def test_the_analysis_of_another_configuration_replaces_all_of_it(copied, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(copied[0], folder)
    explain(folder, ExplainOptions(configuration="ridge", parts=("mistakes",), resamples=100))
    assert [section.key for section in read_analysis(folder / "analysis")] == ["mistakes"]
    left = {path.stem for path in (folder / "analysis" / "tables").iterdir()}
    assert not left & {"worth", "suppression_accuracy"}
    assert not (folder / "analysis" / "figures" / "worth.svg").exists()


def test_an_analysis_of_other_runs_is_not_shown(copied):
    folder, _, _ = copied
    digests = json.loads(copied[1].read_text())["runs"]
    assert read_analysis(folder / "analysis", [*digests, "0" * 64])
    assert read_analysis(folder / "analysis", digests[:1]) == []
    assert read_analysis(folder / "nothing") == []


def test_the_page_of_the_runs_shows_the_analysis_and_is_written_again_for_it(copied, tmp_path):
    from emofuse.report.stamp import report_when_needed
    from emofuse.results import list_runs

    folder = tmp_path / "page"
    shutil.copytree(copied[0], folder)
    records = list_runs(folder / "runs")
    names = ["network", "ridge", "folds"]

    def report():
        return report_when_needed(
            records, folder / "runs", folder / "report", title="t", baseline="network", order=names, command="c"
        )

    files, written = report()
    page = files.page.read_text()
    assert written
    assert 'id="analysis"' in page
    for section in copied[2]:
        assert f"<h3>{section.title}</h3>" in page
    assert not report()[1]
    (folder / "analysis" / "analysis.json").unlink()
    files, written = report()
    assert written
    assert 'id="analysis"' not in files.page.read_text()


def test_a_damaged_analysis_is_named(tmp_path):
    (tmp_path / "analysis.json").write_text('{"format": 1, "runs": []}')
    with pytest.raises(ResultsError, match=r"analysis.json: damaged \(KeyError.*emofuse explain"):
        read_analysis(tmp_path)


def test_an_unknown_part_is_refused_with_a_hint(planted):
    with pytest.raises(ResultsError, match=r"no part 'shapely' of an analysis.*there are: worth, suppression"):
        explain(planted.folder, ExplainOptions(parts=("shapely",)))


def test_a_single_run_is_explained_without_the_others(planted, tmp_path):
    run = min((planted.folder / "runs").iterdir())
    _, sections = explain(run, ExplainOptions(parts=("suppression",), draws=2, resamples=50, out=tmp_path / "one"))
    rows = sections[0].numbers["rows"]
    assert 0 < rows < 150


def test_a_run_without_its_cache_says_what_is_lacking(planted, tmp_path):
    folder = tmp_path / "alone" / "moved"
    shutil.copytree(planted.folder / "runs", folder / "runs")
    with pytest.raises(ResultsError, match=r"suppressing streams needs the cache.*--cache"):
        explain(folder, ExplainOptions(parts=("suppression",)))
    said = []
    _, sections = explain(folder, ExplainOptions(resamples=50), said.append)
    assert {section.key for section in sections} == {"calibration", "mistakes", "label_noise"}
    assert any(line.startswith("worth: left out, there is no cache") for line in said)


def test_a_sweep_finds_the_cache_of_its_pipeline_by_streams_and_samples(planted, tmp_path, write_cache):
    shutil.copytree(planted.folder / "runs", tmp_path / "sweep" / "runs")
    assert open_source(tmp_path / "sweep").cache is None
    (tmp_path / "a_other").mkdir()
    streams = {name: ("backbone", *stream.read()) for name, stream in planted.cache.streams.items()}
    few = {name: (kind, features[:9], status[:9]) for name, (kind, features, status) in streams.items()}
    write_cache(tmp_path / "a_other" / "features.zarr", planted.cache.classes, planted.truth[:9], ["test"] * 9, few)
    assert open_source(tmp_path / "sweep").cache is None
    shutil.copytree(planted.folder, tmp_path / "pipeline")
    assert open_source(tmp_path / "sweep").cache.path == tmp_path / "pipeline" / "features.zarr"


def test_a_cache_alone_is_explained_from_the_command_line(planted, tmp_path):
    result = CliRunner().invoke(
        app,
        [
            "explain",
            f"{planted.path}",
            "--rows",
            "folds",
            "--folds",
            "2",
            "--resamples",
            "50",
            "--out",
            f"{tmp_path}/a",
        ],
    )
    assert result.exit_code == 0, result.output
    assert "## What each stream is worth" in result.output
    keys = [section.key for section in read_analysis(tmp_path / "a")]
    assert {"worth", "calibration", "mistakes", "label_noise"} <= set(keys)
    assert "suppression" not in keys


def test_latex_shows_names_as_they_are():
    assert escape_latex("50 % of A_b & {c} −0.1\n~") == r"50 \% of A\_b \& \{c\} $-$0.1 \textasciitilde{}"
