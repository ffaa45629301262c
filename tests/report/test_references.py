"""Reference models stand beneath the configurations: scored, marked, and in nothing that compares or chooses."""

from __future__ import annotations

import csv
import json
import re

import pytest

from emofuse.errors import ResultsError
from emofuse.report import write_report
from emofuse.report.grouping import group_runs
from emofuse.results import run_dir, write_reference_notes

LOGISTIC, AVERAGED, KERNELS = "Logistic regression", "Averaged logistic regressions", "Kernel ridge regression"
FEATURES = ("lbp", "resnet50")


@pytest.fixture
def make(make_run):
    """Two configurations and three reference models, which are far better than all configurations."""

    def make(*, references=True):
        for seed in (0, 1):
            make_run("net", ("resnet50",), rows=400, epochs=3, seed=seed)
            make_run("both", FEATURES, rows=400, epochs=3, seed=seed, skill=0.7)
        if references:
            for name, head in ((KERNELS, "kernel_ridge"), (AVERAGED, "averaged_logistic"), (LOGISTIC, "logistic")):
                made = {"rows": 400, "epochs": 2, "skill": 0.9, "head": head, "reference": True}
                make_run(name, FEATURES, **made)

    make.run, make.folder = make_run, make_run.folder
    return make


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_they_are_no_configurations_and_stand_in_one_order(make):
    make()
    records = [make.run("net", ("resnet50",), seed=2)]
    results = group_runs([*records, *(make.run(n, reference=True, head=h) for n, h in (
        (KERNELS, "kernel_ridge"), (LOGISTIC, "logistic"), ("wide", "kernel_ridge"),
    ))], "runs")  # fmt: skip
    assert [item.label for item in results.configurations] == ["net"]
    assert [item.label for item in results.references] == [LOGISTIC, KERNELS, "wide"]
    assert results.runs == records
    assert results.ranked == results.configurations


@pytest.mark.usefixtures("blank_figures")
def test_they_have_a_table_beneath_the_scores_with_what_it_is_for(make, tmp_path):
    make()
    files = write_report(make.folder, tmp_path / "out")
    summary, page = files.summary_markdown.read_text("utf-8"), files.page.read_text("utf-8")
    lines = summary.splitlines()
    first, later = (
        next(i for i, line in enumerate(lines) if line.startswith(f"| {name}")) for name in ("net", LOGISTIC)
    )
    assert first < later
    assert lines[later - 2].startswith("| Reference model")
    rows = lines[later : later + 3]
    assert [line.split("|")[1].strip() for line in rows] == [LOGISTIC, AVERAGED, KERNELS]
    assert all("**" not in line for line in rows)  # never the best
    cells = [cell.strip() for cell in rows[0].split("|")[2:-1]]
    assert cells[:2] == ["lbp, resnet50", "1"]
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", cells[2])
    assert re.fullmatch(r"\+0\.\d{3}", cells[3])
    assert re.search(r"\*\*0\.\d{3}\*\*", lines[first] + lines[first + 1])  # a configuration still is
    for text in (summary, re.sub("<wbr>", "", page)):
        assert "Reference models are what one would do without a fusion network, on the same features" in text
        assert "Nothing is chosen by them" in text
    assert page.index("Scores on the test split.") < page.index("<h3>Reference models</h3>")
    assert page.index("<h3>Reference models</h3>") < page.index("Precision (P), recall")


@pytest.mark.usefixtures("svg_alone")
def test_nothing_that_compares_chooses_or_draws_sees_them(make, tmp_path):
    make(references=False)
    before = write_report(make.folder, tmp_path / "before")
    figures = {path.name: path.read_bytes() for path in before.figures.iterdir()}
    headline = re.search(r'<p class="lead">.*?</p>', before.page.read_text("utf-8")).group()
    make_again = [make.run(n, FEATURES, skill=0.99, rows=400, head="logistic", reference=True) for n in ("r", "s")]
    assert len(make_again) == 2
    after = write_report(make.folder, tmp_path / "after")
    assert after.comparisons_csv.read_bytes() == before.comparisons_csv.read_bytes()
    assert {path.name: path.read_bytes() for path in after.figures.iterdir()} == figures
    assert re.search(r'<p class="lead">.*?</p>', after.page.read_text("utf-8")).group() == headline
    ours, theirs = read(after.summary_csv), read(before.summary_csv)
    assert [row for row in ours if row["reference"] == "false"] == theirs
    with pytest.raises(ResultsError, match=r"no runs of the baseline 'r', there are: 'net', 'both'"):
        write_report(make.folder, tmp_path / "other", baseline="r")


@pytest.mark.usefixtures("blank_figures")
def test_plain_numbers_mark_them(make, tmp_path):
    make()
    files = write_report(make.folder, tmp_path / "out", metrics=["kappa"])
    for path, count in ((files.summary_csv, 1), (files.runs_csv, 1), (files.per_part_csv, 8), (files.metrics_csv, 1)):
        rows = read(path)
        of_references = [row for row in rows if row["reference"] == "true"]
        assert {row["configuration"] for row in of_references} == {LOGISTIC, AVERAGED, KERNELS}
        assert len(of_references) == 3 * count
        assert {row["configuration"] for row in rows if row["reference"] == "false"} == {"net", "both"}
    numbers = json.loads(files.numbers_json.read_text("utf-8"))
    assert {(row["configuration"], row["reference"]) for row in numbers["references"]} == {
        (name, True) for name in (LOGISTIC, AVERAGED, KERNELS)
    }
    assert {row["configuration"] for row in numbers["configurations"]} == {"net", "both"}
    assert any(note.startswith("Reference models are what one would do") for note in numbers["notes"])
    kernels = next(row for row in read(files.summary_csv) if row["configuration"] == KERNELS)
    low, mean, high = (float(kernels[f"accuracy_{end}"]) for end in ("95_low", "mean", "95_high"))
    assert low < mean < high
    assert LOGISTIC not in files.comparisons_csv.read_text("utf-8")


@pytest.mark.usefixtures("blank_figures")
def test_runs_without_any_have_no_such_table(make, tmp_path):
    make(references=False)
    files = write_report(make.folder, tmp_path / "out")
    assert "Reference model" not in files.summary_markdown.read_text("utf-8") + files.page.read_text("utf-8")
    assert {row["reference"] for row in read(files.summary_csv)} == {"false"}


@pytest.mark.usefixtures("blank_figures")
def test_what_could_not_be_solved_is_said_even_if_nothing_else_is_there(make, tmp_path):
    make(references=False)
    note = "Kernel ridge regression is left out, because it could not be solved: 9 GB."
    files = write_report(make.folder, tmp_path / "out", reference_notes=[note])
    assert f"- {note}" in files.summary_markdown.read_text("utf-8")
    assert note in files.page.read_text("utf-8")
    assert "Reference models on the test split" not in files.page.read_text("utf-8")


@pytest.mark.usefixtures("blank_figures")
def test_a_later_report_has_the_notes_that_were_kept_beside_the_runs(make, tmp_path):
    make()
    note = "The best single stream is lbp: its logistic regression has the lowest loss on the validation rows (1.000)."
    write_reference_notes(make.folder, [note])
    files = write_report(make.folder, tmp_path / "out")
    assert f"- {note}" in files.summary_markdown.read_text("utf-8")
    assert note in json.loads(files.numbers_json.read_text("utf-8"))["notes"]


@pytest.mark.usefixtures("blank_figures")
def test_their_notes_are_given_once_and_only_if_no_configuration_has_them(make, tmp_path):
    make.run("net", rows=400, epochs=3, change={"notes": ["Known."]})
    change = {"notes": ["Known.", "The chosen penalty is the weakest one that was tried."]}
    for name in (LOGISTIC, KERNELS):
        make.run(name, rows=400, epochs=2, head="logistic", reference=True, change=change)
    summary = write_report(make.folder, tmp_path / "out").summary_markdown.read_text("utf-8")
    assert summary.count("The chosen penalty is the weakest one that was tried.") == 1
    assert "Known." not in summary


@pytest.mark.usefixtures("blank_figures")
def test_predictions_that_are_gone_cost_the_interval_alone(make, tmp_path):
    make()
    lost = make.run("lost", FEATURES, rows=400, epochs=2, head="logistic", reference=True)
    (run_dir(make.folder, lost.digest) / "predictions.npz").unlink()
    summary = write_report(make.folder, tmp_path / "out").summary_markdown.read_text("utf-8")
    (line,) = (line for line in summary.splitlines() if line.startswith("| lost"))
    assert "[" not in line
    assert "lost has no interval and no comparison" in summary


def test_a_folder_of_reference_models_alone_is_no_report(make, tmp_path):
    make.run(LOGISTIC, head="logistic", reference=True)
    with pytest.raises(ResultsError, match=r"only reference models in this folder, and no configuration"):
        write_report(make.folder, tmp_path / "out")
