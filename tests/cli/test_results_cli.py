"""`emofuse results` on a small folder: two heads, two learning rates, two folds each; one run diverged."""

from __future__ import annotations

import csv
from dataclasses import replace

import polars as pl
import pytest
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.errors import ResultsError
from emofuse.specs import ConcatHeadSpec, FeaturesSpec, LinearHeadSpec, RunSpec, TrainSpec, digest
from emofuse.sweep.rows import ResultsFolder, RunRow
from emofuse.sweep.table import Condition, parse_conditions

RATES = (1e-4, 0.1 + 0.2)  # the second has no short name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep")
    rows = []
    for head in (ConcatHeadSpec(width=256), LinearHeadSpec()):
        for rate in RATES:
            run = RunSpec(
                name=f"{head.kind} {rate!r}",
                features=FeaturesSpec(streams=("lbp", "resnet50")),
                head=head,
                train=TrainSpec(learning_rate=rate),
            )
            rows += [_row(run, fold, score) for fold, score in enumerate(SCORES[head.kind, rate])]
    ResultsFolder(path).write(rows)
    return path


SCORES = {
    ("concat", RATES[0]): (0.5, 0.7),
    ("concat", RATES[1]): (0.4, None),
    ("linear", RATES[0]): (0.3, 0.35),
    ("linear", RATES[1]): (0.8, 0.2),
}


def _row(run: RunSpec, fold: int, score: float | None) -> RunRow:
    return RunRow(
        digest=digest({"run": run.model_dump(mode="json"), "fold": fold}),
        configuration=digest(run),
        name=run.name,
        settings={"head": run.head.kind, "learning_rate": run.train.learning_rate},
        spec=run.model_dump(mode="json"),
        fold=fold,
        seed=0,
        val_macro_f1=score,
        val_accuracy=score,
        val_loss=None if score is None else 1 - score,
        best_epoch=0 if score is None else 5,
        last_epoch=1 if score is None else 7,
        ended="diverged" if score is None else "epochs",
        parameters=1000,
        seconds=0.5,
        history=(),
        sweep="small",
        device="cpu",
        created="2026-01-01T00:00:00+00:00",
        versions={},
    )


def invoke(*arguments):
    return CliRunner().invoke(app, ["results", *map(str, arguments)])


def listed(*arguments) -> list[list[str]]:
    """Words of every printed line."""
    done = invoke(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return [line.split() for line in done.output.splitlines()]


def refused(*arguments) -> str:
    done = invoke(*arguments)
    assert isinstance(done.exception, ResultsError)
    return str(done.exception)


def test_the_best_runs_come_first_and_those_without_a_score_last(folder):
    lines = listed(folder, "--columns", "head,fold,val_macro_f1,ended")
    assert lines[0] == ["head", "fold", "val_macro_f1", "ended"]
    assert lines[1] == ["linear", "0", "0.8000", "epochs"]
    assert lines[2] == ["concat", "1", "0.7000", "epochs"]
    assert lines[8] == ["concat", "1", "-", "diverged"]
    assert lines[9] == ["runs:", "8"]


def test_the_scores_are_shown_unless_other_columns_are_asked_for(folder):
    header = listed(folder)[0]
    assert header == [
        "name",
        "fold",
        "seed",
        "val_macro_f1",
        "val_accuracy",
        "val_loss",
        "best_epoch",
        "ended",
        "seconds",
    ]
    assert {"digest", "streams", "width", "created"} < set(listed(folder, "--columns", "all")[0])


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (["head=concat"], 4),
        (["head=concat,fold=0"], 2),
        (["head=concat", "fold=0"], 2),
        (["head!=concat"], 4),
        (["learning_rate=1e-4"], 4),
        (["learning_rate=0.30000000000000004"], 4),
        (["learning_rate=0.3"], 0),
        (["streams=lbp+resnet50"], 8),
        (["val_macro_f1>=0.5"], 3),
        (["val_macro_f1 < 0.5"], 4),
        (["val_macro_f1=none"], 1),
        (["width=none"], 4),
        (["width!=none", "fold>0"], 2),
        (["ended=diverged"], 1),
    ],
)
def test_conditions(folder, where, count):
    options = [option for text in where for option in ("--where", text)]
    assert listed(folder, *options)[-1] == ["runs:", str(count)]


def test_a_run_is_found_by_the_first_digits_of_its_digest(folder):
    shown = listed(folder, "--columns", "digest,name", "--top", "1")[1][0]
    assert len(shown) == 16
    assert listed(folder, "--where", f"digest={shown}", "--columns", "digest")[-1] == ["runs:", "1"]


def test_sorting_by_any_column_and_turning_it_round(folder):
    seconds = [line[0] for line in listed(folder, "--columns", "fold", "--sort", "fold")[1:-1]]
    assert seconds == ["0"] * 4 + ["1"] * 4
    turned = [line[0] for line in listed(folder, "--columns", "head", "--sort", "-head")[1:-1]]
    assert turned == ["linear"] * 4 + ["concat"] * 4
    losses = [line[0] for line in listed(folder, "--columns", "val_loss", "--sort", "val_loss")[1:-1]]
    assert losses == ["0.2000", "0.3000", "0.5000", "0.6000", "0.6500", "0.7000", "0.8000", "-"]


def test_top_says_how_many_there_are(folder):
    lines = listed(folder, "--top", "3")
    assert (len(lines), lines[-1]) == (5, ["runs:", "3", "of", "8"])
    assert len(listed(folder, "--top", "0")) == 10


def test_configurations_have_mean_and_standard_error_over_folds(folder):
    lines = listed(
        folder, "--by", "configuration", "--columns", "head,learning_rate,runs,val_macro_f1,val_macro_f1_error,diverged"
    )
    assert lines[1] == ["concat", "0.0001", "2", "0.6000", "0.1732", "0"]
    assert lines[2] == ["linear", "0.30000000000000004", "2", "0.5000", "0.5196", "0"]
    assert lines[4] == ["concat", "0.30000000000000004", "2", "-", "-", "1"]
    assert lines[5] == ["configurations:", "4"]


def test_a_condition_on_runs_chooses_what_a_configuration_is_the_mean_of(folder):
    lines = listed(
        folder, "--by", "configuration", "--where", "fold=0,val_macro_f1>0.4", "--columns", "head,runs,val_macro_f1"
    )
    assert lines[1:] == [["linear", "1", "0.8000"], ["concat", "1", "0.5000"], ["configurations:", "2"]]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_holds_every_row_and_column_exactly(folder, tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    done = invoke(folder, "--export", path)
    assert done.output == f"{path}: 8 rows, 48 columns\n"
    frame = pl.read_csv(path) if ending == "csv" else pl.read_parquet(path)
    assert sorted(set(frame["learning_rate"])) == list(RATES)
    assert frame["val_macro_f1"].null_count() == 1
    assert frame.filter(pl.col("head") == "linear")["width"].null_count() == 4
    if ending == "parquet":
        assert frame.schema["fold"] == pl.Int64
        assert frame.schema["val_loss"] == pl.Float64


def test_an_export_of_what_is_listed(folder, tmp_path):
    path = tmp_path / "best.csv"
    invoke(folder, "--by", "configuration", "--top", "1", "--columns", "name,val_macro_f1", "--export", path)
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "val_macro_f1"], ["concat 0.0001", "0.6"]]
    assert list(tmp_path.iterdir()) == [path]


def test_faults_are_told(folder, tmp_path):
    assert refused(folder, "--sort", "val_f1").startswith("no such column: 'val_f1', did you mean 'val_macro_f1'?")
    assert "'hed', did you mean 'head'? (there are: digest, " in refused(folder, "--where", "hed=concat")
    assert "no such column: 'hed'" in refused(folder, "--by", "configuration", "--where", "hed=concat")
    assert "no such column: 'colour' (there are" in refused(folder, "--columns", "fold,colour")
    assert refused(folder, "--where", "fold").startswith("'fold' is no condition; write column=value")
    assert refused(folder, "--where", "head>concat") == "head>concat: only numbers are in an order"
    assert "results are exported to .csv or .parquet" in refused(folder, "--export", tmp_path / "rows.xlsx")
    assert "there is no folder" in refused(folder, "--export", tmp_path / "nowhere" / "rows.csv")
    assert "no such folder; make it with: emofuse sweep NAME" in refused(tmp_path / "nowhere")
    assert "no results in this folder" in refused(tmp_path)
    (tmp_path / "mine" / "runs").mkdir(parents=True)
    assert refused(tmp_path / "mine").endswith(f"Show their scores with: emofuse report {tmp_path / 'mine'}")


def test_conditions_are_parsed_with_spaces_and_without():
    assert parse_conditions(["a=b, c >= 1", "d!=x y"]) == [
        Condition("a", "=", "b"),
        Condition("c", ">=", "1"),
        Condition("d", "!=", "x y"),
    ]


def test_values_of_several_types_in_one_column_are_text(tmp_path):
    """A variant of one kind may be a number, the same name in another kind a word."""
    run = RunSpec(name="x", features=FeaturesSpec(streams=("lbp",)), head=LinearHeadSpec())
    rows = []
    for fold, value in enumerate((8, "fine", 2.5)):
        row = _row(run, fold, 0.5)
        rows.append(replace(row, spec={**row.spec, "features": {**row.spec["features"], "grain": value}}))
    ResultsFolder(tmp_path / "sweep").write(rows)
    lines = listed(tmp_path / "sweep", "--columns", "grain", "--sort", "fold")
    assert lines == [["grain"], ["8"], ["fine"], ["2.5"], ["runs:", "3"]]
    path = tmp_path / "rows.parquet"
    assert invoke(tmp_path / "sweep", "--sort", "fold", "--export", path).exit_code == 0
    assert pl.read_parquet(path)["grain"].to_list() == ["8", "fine", "2.5"]
