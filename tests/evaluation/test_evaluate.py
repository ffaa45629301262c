"""`emofuse evaluate` from a trained run and other pictures to the report."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from emofuse.cache.reader import open_cache
from emofuse.cli import app
from emofuse.datasets import read_dataset
from emofuse.errors import DatasetError, IncompleteCacheError, ResultsError, SpecError, StaleCacheError
from emofuse.evaluation import EvaluationOptions, evaluate
from emofuse.evaluation.rows import read_other
from emofuse.extraction import BuildOptions, build_cache
from emofuse.predict import Predictor, find_model
from emofuse.results import ResultPaths, read_predictions
from emofuse.specs import CacheSpec, FolderSpec, RunSpec, parse_spec, read_label_map
from emofuse.training.runs import train_runs

STREAM = {"kind": "lbp", "region": "image", "region_px": 32}
CACHE = parse_spec(CacheSpec, {"name": "textures", "block_rows": 16, "streams": [STREAM]}, "textures.yaml")
HERE = BuildOptions(workers=0, device="cpu")
PERIODS = {"happiness": (2, 9), "anger": (9, 2), "sadness": (3, 3), "surprise": (9, 9)}


def picture(path, periods, rng):
    y, x = np.mgrid[:32, :32]
    waves = np.sin(2 * np.pi * x / periods[0]) + np.sin(2 * np.pi * y / periods[1])
    grey = 128 + 40 * waves + rng.normal(0, 12, (32, 32))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB").save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a pipeline with one configuration of two seeds, trained on textures with Ekman's names."""
    root, rng = tmp_path_factory.mktemp("ekman"), np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 4), ("test", 4)):
        for label, periods in PERIODS.items():
            for number in range(count):
                picture(root / "data" / split / label / f"{split}-{label}-{number}.png", periods, rng)
    manifest = read_dataset(FolderSpec(root=root / "data"))
    build_cache(root / "features.zarr", manifest, CACHE, HERE)
    specs = [
        parse_spec(
            RunSpec,
            {
                "name": "textures",
                "features": {"streams": ["lbp"]},
                "head": {"embed_dim": 8, "width": 8, "depth": 1},
                "train": {"epochs": 20, "batch_size": 16, "learning_rate": 0.01, "seed": seed},
            },
            "run",
        )
        for seed in (0, 1)
    ]
    train_runs(open_cache(root / "features.zarr"), specs, root / "runs", device="cpu")
    return root


@pytest.fixture(scope="module")
def mikels(tmp_path_factory):
    """Other textures with names of Mikels' emotions: two kinds of happiness, and awe without a counterpart."""
    root, rng = tmp_path_factory.mktemp("mikels"), np.random.default_rng(1)
    names = {"amusement": "happiness", "contentment": "happiness", "anger": "anger", "sadness": "sadness"}
    for label, same in names.items():
        for number in range(6):
            picture(root / label / f"{label}-{number}.png", PERIODS[same], rng)
    for number in range(3):
        picture(root / "awe" / f"awe-{number}.png", PERIODS["surprise"], rng)
    return root


@pytest.fixture
def options(trained, mikels, tmp_path):
    return EvaluationOptions(
        run=trained,
        out=tmp_path / "out",
        dataset=FolderSpec(root=mikels),
        label_map=read_label_map("mikels8_to_ekman6"),
        build=HERE,
    )


@pytest.fixture(scope="module")
def done(trained, mikels, tmp_path_factory):
    """A finished test and its folder."""
    out, lines = tmp_path_factory.mktemp("done"), []
    wanted = EvaluationOptions(
        run=trained,
        out=out,
        dataset=FolderSpec(root=mikels),
        label_map=read_label_map("mikels8_to_ekman6"),
        build=HERE,
        command="emofuse evaluate ...",
    )
    return evaluate(wanted, say=lines.append), ResultPaths(out), lines


def test_rows_are_scored_in_the_shared_classes_and_the_others_counted(done):
    result, _, lines = done
    record = result.record
    assert record.classes == ["anger", "happiness", "sadness"]
    assert record.rows["test"]["rows"] == 24
    assert record.metrics["test"]["accuracy"] == 1.0  # the textures are the same
    assert record.evaluation["left_out"] == {"awe": 3}
    assert "left out: 3 rows labelled awe" in lines
    assert "rows: 24 scored (all rows)" in lines
    assert "map: mikels8_to_ekman6, from Mikels 8 to Ekman 6, applied to the data" in lines
    assert any(line.startswith("Model: textures, the only configuration; of its 2 runs the one") for line in lines)


def test_predictions_are_those_of_predict_on_the_same_files(done, mikels, trained):
    result, paths, _ = done
    table = pl.read_csv(paths.predictions)
    assert table.height == 27
    assert table["scored"].sum() == 24
    row = table.filter(pl.col("label") == "contentment").row(0, named=True)
    with Predictor(trained) as predictor:
        (one,) = predictor.predict([mikels / row["path"]])
    shared = {name: one.probs[name] for name in ("anger", "happiness", "sadness")}
    for name, prob in shared.items():
        assert row[f"prob_{name}"] == pytest.approx(prob / sum(shared.values()), abs=1e-5)
    assert (row["counted_as"], row["predicted"]) == ("happiness", "happiness")
    saved = read_predictions(result.folder)
    assert saved.outputs.sum(axis=1) == pytest.approx(np.ones(24), abs=1e-6)


def test_the_report_says_that_the_data_is_foreign_and_what_the_map_does(done):
    result, _, _ = done
    page, summary = (path.read_text(encoding="utf-8") for path in (result.report.page, result.report.summary_markdown))
    for text in (page, summary):
        assert "This is a test on foreign data: one model trained on data" in text
        assert "mikels8_to_ekman6" in text.replace("\\_", "_")
        assert "Rows that are left out: 3 labelled awe." in text
        assert "amusement and contentment count as happiness" in text
    assert "TEST ON FOREIGN DATA" in page
    assert "The test split chose nothing" not in page
    rows = json.loads(result.report.numbers_json.read_text())["configurations"]
    assert rows[0]["accuracy_95_low"] is not None


@pytest.mark.usefixtures("blank_figures")
def test_a_second_call_extracts_nothing(done, options):
    _, paths, _ = done
    lines = []
    again = evaluate(type(options)(**{**vars(options), "out": paths.out, "images": False}), say=lines.append)
    assert "Pictures were left out when this page was made." in again.report.page.read_text(encoding="utf-8")
    assert f"cache: complete, nothing to do, {paths.cache}" in lines
    assert again.record.digest == done[0].record.digest


def test_a_cache_with_the_same_streams_is_used_as_it_is(done, options, tmp_path):
    _, paths, _ = done
    wanted = {**vars(options), "dataset": None, "cache": paths.cache, "out": tmp_path / "other"}
    result = evaluate(EvaluationOptions(**wanted))
    assert result.record.metrics["test"] == done[0].record.metrics["test"]
    assert not (tmp_path / "other" / "features.zarr").exists()


def test_an_ensemble_is_scored_by_its_mean(done, options, trained):
    _, paths, _ = done
    wanted = {**vars(options), "dataset": None, "cache": paths.cache, "ensemble": True}
    result = evaluate(EvaluationOptions(**wanted))
    assert len(result.record.evaluation["models"]) == 2
    assert "the mean outputs of 2 models trained on" in result.report.page.read_text(encoding="utf-8")
    assert len(find_model(trained, ensemble=True).folders) == 2


def test_test_rows_of_the_data_are_scored_unless_all_are_asked_for(trained, options):
    data = FolderSpec(root=trained / "data")
    wanted = {**vars(options), "dataset": data, "label_map": None}
    assert evaluate(EvaluationOptions(**wanted)).record.rows["test"]["rows"] == 16
    wanted["rows"] = "all"
    assert evaluate(EvaluationOptions(**wanted)).record.rows["test"]["rows"] == 72


def test_unreadable_files_are_left_out_and_counted(options, mikels, tmp_path):
    root = shutil.copytree(mikels, tmp_path / "broken")
    next((root / "anger").glob("*.png")).write_bytes(b"no picture")
    lines = []
    wanted = {**vars(options), "dataset": FolderSpec(root=root)}
    assert evaluate(EvaluationOptions(**wanted), say=lines.append).record.rows["test"]["rows"] == 23
    assert "left out: 1 rows whose files cannot be read" in lines


def test_labels_that_do_not_fit_are_an_error_before_anything_is_extracted(options):
    with pytest.raises(SpecError, match="maps that fit: mikels8_to_ekman6"):
        evaluate(EvaluationOptions(**{**vars(options), "label_map": None}))
    assert not ResultPaths(options.out).cache.exists()


def test_a_cache_of_other_features_is_refused(options, mikels, tmp_path):
    other = parse_spec(CacheSpec, {"name": "other", "streams": [{**STREAM, "region_px": 16}]}, "other.yaml")
    build_cache(tmp_path / "other.zarr", read_other(FolderSpec(root=mikels)), other, HERE)
    wanted = {**vars(options), "dataset": None, "cache": tmp_path / "other.zarr"}
    with pytest.raises(
        StaleCacheError, match=r"the model has learned from other features: 'lbp' was extracted otherwise"
    ):
        evaluate(EvaluationOptions(**wanted))


def test_an_unfinished_cache_is_refused(done, options, tmp_path):
    cache = shutil.copytree(done[1].cache, tmp_path / "half.zarr")
    shutil.copy(done[1].cache.with_name("features.manifest.parquet"), tmp_path / "half.manifest.parquet")
    chunks = [path for path in (cache / "streams" / "lbp" / "status").rglob("*") if path.is_file()]
    next(path for path in chunks if path.name != "zarr.json").unlink()
    with pytest.raises(IncompleteCacheError, match="'lbp' lacks 1 of 1 blocks"):
        evaluate(EvaluationOptions(**{**vars(options), "dataset": None, "cache": cache}))


def test_rows_without_any_counterpart_are_an_error(options, mikels, tmp_path):
    for label in ("awe", "amusement", "anger"):
        shutil.copytree(mikels / label, tmp_path / "few" / ("train" if label != "awe" else "test") / label)
    wanted = {**vars(options), "dataset": FolderSpec(root=tmp_path / "few")}
    with pytest.raises(DatasetError, match="no row of the other data can be scored: none has a readable file and a"):
        evaluate(EvaluationOptions(**wanted))


def test_test_rows_that_are_not_there_are_an_error(options):
    with pytest.raises(DatasetError, match="--rows test: the other data has no test rows"):
        evaluate(EvaluationOptions(**{**vars(options), "rows": "test"}))


def test_neither_data_nor_cache_is_an_error(options):
    with pytest.raises(SpecError, match="give the other data with --data, or a cache of it with --cache"):
        evaluate(EvaluationOptions(**{**vars(options), "dataset": None}))


def test_the_result_is_no_model(done):
    with pytest.raises(ResultsError, match="this is the evaluation of a model on other data, without the model"):
        find_model(done[0].folder)


def test_the_command_line(trained, mikels, tmp_path):
    kind = tmp_path / "kind.yaml"
    kind.write_text("kind: folder\n")
    arguments = [
        "evaluate",
        "--run",
        str(trained),
        "--data",
        str(mikels),
        "--map",
        "mikels8_to_ekman6",
        "--workers",
        "0",
    ]
    result = CliRunner().invoke(
        app, [*arguments, "--out", str(tmp_path / "out"), "--dataset", str(kind), "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    assert "Test on foreign data" in result.output
    assert (tmp_path / "out" / "report" / "index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dataset", "foldr", "--data", "."],
            "'foldr' is neither a kind of dataset nor a file, did you mean 'folder'",
        ),
        (["--map", "mikels", "--data", "."], "no such file, and no label map of this name"),
    ],
)
def test_wrong_arguments_are_one_clear_error(trained, tmp_path, arguments, message):
    result = CliRunner().invoke(app, ["evaluate", "--run", str(trained), *arguments])
    assert isinstance(result.exception, SpecError)
    assert message in str(result.exception)


def test_data_or_cache_is_required(trained):
    result = CliRunner().invoke(app, ["evaluate", "--run", str(trained)])
    assert result.exit_code == 2
    assert "give the other dataset, or --cache with a cache of it" in " ".join(result.output.replace("│", "").split())


def test_predict_takes_the_folder_of_a_pipeline_and_averages_its_seeds(trained, mikels):
    image = next((mikels / "anger").glob("*.png"))
    one, mean = (
        CliRunner().invoke(app, ["predict", str(image), "--run", str(trained), "--json", *option])
        for option in ([], ["--ensemble"])
    )
    assert (one.exit_code, mean.exit_code) == (0, 0)
    assert (
        "Model: textures, the only configuration; of its 2 runs the one with the lowest validation loss" in one.stderr
    )
    assert "Model: the mean of the 2 runs of textures (seeds 0, 1)" in mean.stderr
    probs = [json.loads(result.stdout.splitlines()[-1])["probs"] for result in (one, mean)]
    assert probs[0] != probs[1]


def test_groups_of_the_data_are_drawn_as_a_whole_and_are_not_those_of_the_training(trained, mikels, tmp_path):
    root = tmp_path / "people"
    for path in mikels.rglob("*.png"):
        person = f"p{path.stem[-1]}"
        (root / path.parent.name / person).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.parent.name / person)
    result = evaluate(
        EvaluationOptions(
            run=trained,
            out=tmp_path / "out",
            dataset=FolderSpec(root=root, group="parent"),
            label_map=read_label_map("mikels8_to_ekman6"),
            build=HERE,
        )
    )
    assert read_predictions(result.folder).group is not None
    page = result.report.page.read_text(encoding="utf-8")
    assert "groups of test images as there are (6 with 24 images)" in page
    assert "keeps the rows of a group together" not in page
