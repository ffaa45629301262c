"""`emofuse report` from its options to its files."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from emofuse.cli.report import report
from emofuse.errors import ResultsError
from emofuse.results import Predictions, RunRecord, read_predictions, read_record, write_run

CLASSES = ["joy", "fear"]


@pytest.fixture
def app():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("report")(report)
    return app


@pytest.fixture
def runs(tmp_path):
    """Two configurations; `good` names three of four test rows right, `poor` two."""
    for number, (name, confusion) in enumerate({"poor": [[1, 1], [1, 1]], "good": [[2, 0], [1, 1]]}.items()):
        accuracy = sum(np.diag(confusion)) / 4
        scores = dict.fromkeys(("precision", "recall", "f1", "specificity"), accuracy)
        metrics = {
            "accuracy": accuracy,
            "macro": scores,
            "weighted": scores,
            "per_class": [{"label": label, **scores, "support": 2} for label in CLASSES],
            "confusion": confusion,
        }
        weights = {"kind": "random", "name": None, "sha256": None, "seed": 0}
        stream = {"kind": "backbone", "digest": "1" * 64, "dim": 3, "used_dim": 3, "weights": weights}
        options = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-4, "weight_decay": 0.0, "label_smoothing": 0.0}
        record = RunRecord(
            digest=f"{number}" * 64,
            name=name,
            spec={
                "name": name,
                "features": {"streams": ["resnet50"], "neutral_label": None},
                "head": {"kind": "concat", "embed_dim": 8, "depth": number, "width": 8, "dropout": 0.0},
                "train": {**options, "optimizer": "adam", "select": "macro_f1", "patience": None, "seed": 0},
                "split": {"kind": "official"},
            },
            cache_spec={},
            classes=CLASSES,
            dataset={"name": "made-up", "kind": "folder"},
            streams={"resnet50": stream},
            rows={split: {"rows": 4, "missing": {"resnet50": {}}} for split in ("train", "val", "test")},
            metrics={"test": metrics},
            history=[{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "val_macro_f1": 0.5}],
            best_epoch=1,
            parameters=10,
            versions={"emofuse": "0.1.0"},
            machine={"platform": "Linux", "device": "cpu"},
            seconds=1.0,
            created=f"2026-01-0{number + 1}T00:00:00+00:00",
        )
        predicted = [0, 1, 0, 1] if name == "poor" else [0, 0, 0, 1]
        probs = np.eye(2, dtype=np.float32)[predicted]
        predictions = Predictions(np.array(["a", "b", "c", "d"]), np.array([0, 0, 1, 1]), probs)
        write_run(tmp_path / "runs", record, predictions, {"bias": np.zeros(1, dtype=np.float32)})
    return tmp_path / "runs"


def call(app, *arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_report_prints_the_summary_and_the_files(app, runs):
    done = call(app, runs)
    assert done.exit_code == 0
    assert "RANDOM WEIGHTS" in done.stdout
    assert re.search(r"^\| poor +\| +1 \| +0\.500 \[0\.000, 1\.000\] \| +– \|", done.stdout, re.MULTILINE)
    assert re.search(
        r"^\| good +\| +1 \| +\*\*0\.750\*\* \[0\.250, 1\.000\] \| +\+0\.250 \|", done.stdout, re.MULTILINE
    )
    assert re.search(r"^\| good .* \| +0 \| +1 \| +1\.000 \|$", done.stdout, re.MULTILINE)
    out = runs / "report"
    tables = ("summary.md", "summary.csv", "per_class.md", "per_class.csv", "runs.csv", "comparisons.csv")
    tables = (*tables, "report.json")
    parts = ("index.html", *tables, "figures", "tables")
    assert done.stdout.splitlines()[-10:] == [str(out / part) for part in parts]
    assert all((out / part).exists() for part in parts)


def test_a_report_within_the_runs_is_not_taken_for_a_run(app, runs):
    assert call(app, runs).stdout == call(app, runs).stdout


def test_report_takes_folder_title_and_baseline(app, runs, tmp_path):
    done = call(app, runs, "--out", tmp_path / "mine", "--title", "My title", "--baseline", "good")
    assert done.exit_code == 0
    assert done.stdout.startswith("# My title\n")
    assert re.search(r"^\| poor .* −0\.250 \|", done.stdout, re.MULTILINE)
    assert "<h1>My title</h1>" in (tmp_path / "mine" / "index.html").read_text(encoding="utf-8")
    assert not (runs / "report").exists()


def test_report_compares_two_configurations_once(app, runs):
    """A third one, which answers as `poor`; the comparisons with the baseline are there without being asked for."""
    poor = read_record(runs / ("0" * 16))
    spec = {**poor.spec, "name": "third", "head": {**poor.spec["head"], "depth": 2}}
    write_run(runs, replace(poor, digest="2" * 64, name="third", spec=spec), read_predictions(runs / ("0" * 16)), {})
    done = call(app, runs, "--baseline", "poor", "--compare", "good=third", "--compare", "poor=good")
    assert done.exit_code == 0
    assert re.search(r"^\| good +\| third +\| +\+0\.250 \[", done.stdout, re.MULTILINE)
    assert "the family is the 3 comparisons of this table" in done.stdout
    with pytest.raises(ResultsError, match=r"a comparison is written as A=B, got 'good'$"):
        call(app, runs, "--compare", "good")


def test_report_of_a_folder_without_runs_says_what_to_do(app, tmp_path):
    message = f"{tmp_path}: no runs in this folder; train first: emofuse run NAME"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        call(app, tmp_path)
    message = f"{tmp_path / 'absent'}: no such folder of runs; train first: emofuse run NAME"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        call(app, tmp_path / "absent")


def test_report_takes_the_folder_of_a_pipeline_too(app, runs, tmp_path):
    (tmp_path / "results" / "mine").mkdir(parents=True)
    runs.rename(tmp_path / "results" / "mine" / "runs")
    done = call(app, tmp_path / "results" / "mine")
    assert str(tmp_path / "results" / "mine" / "runs" / "report" / "index.html") in done.stdout
    message = f"{tmp_path / 'results'}: no runs in this folder, but below it. Name one of them: "
    with pytest.raises(ResultsError, match=f"^{re.escape(message + str(tmp_path / 'results' / 'mine'))}$"):
        call(app, tmp_path / "results")


def test_a_file_in_the_place_of_the_report_is_said_before_anything_is_computed(app, runs, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "report"):
        with pytest.raises(ResultsError, match=r"results cannot be written there, .*notes\.txt is a file"):
            call(app, runs, "--out", out)


def test_report_of_an_unknown_baseline_names_the_known_ones(app, runs):
    message = f"{runs}: no runs of the baseline 'best', there are: 'poor', 'good'"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        call(app, runs, "--baseline", "best")
