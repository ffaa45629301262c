from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from emofuse.cli import app


def emofuse(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def pipeline(tmp_path, face, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for row in range(12):
        path = tmp_path / "images" / ("joy" if row % 2 else "fear") / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), (row, 0, 0)).save(path)
    stream = "{kind: lbp, without_face: whole_image, region_px: 16}"
    (tmp_path / "tiny.yaml").write_text(
        f"dataset: {{kind: folder, root: {tmp_path}/images, split: {{kind: stratified}}}}\n"
        f"cache: {{block_rows: 4, face: {{detector: {face['detector']}}}, streams: [{stream}]}}\n"
        "runs: [{name: texture, features: {streams: [lbp]}, split: {kind: stratified}}]\n"
        "repeat: {seeds: [0, 1]}\n"
    )
    return tmp_path / "tiny.yaml"


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_build_is_told_beforehand(pipeline, tmp_path):
    before = files_of(tmp_path)
    result = emofuse("cache", "build", pipeline, "--workers", 0, "--device", "cpu", "--dry-run")
    lines = result.stdout.splitlines()
    path = "emofuse-runs/tiny/features.zarr"
    assert lines[0] == f"{path}: 12 images to extract in 3 blocks: lbp"
    assert lines[1].startswith(f"{path}: about 0:0")
    assert "MB to write, " in lines[2]
    assert files_of(tmp_path) == before


def test_a_pipeline_is_told_beforehand(pipeline, tmp_path):
    before = files_of(tmp_path)
    result = emofuse("run", pipeline, "--workers", 0, "--device", "cpu", "--dry-run")
    lines = result.stdout.splitlines()
    assert lines[0] == f"dataset: 12 rows, 2 labels, from {tmp_path}/images"
    assert lines[1] == "cache: 12 images to extract in 3 blocks: lbp"
    assert lines[4] == ("runs: 2 of 1 configurations; those that are done already are read and not trained again")
    assert files_of(tmp_path) == before


def test_the_trainings_of_ensembles_and_second_trainings_are_counted_beforehand(pipeline):
    text = pipeline.read_text()
    pipeline.write_text(
        text.replace("split: {kind: stratified}}]", "split: {kind: stratified}, ensemble: {folds: 3}}]")
    )
    assert "runs: 2 of 1 configurations (6 trainings of heads);" in emofuse("run", pipeline, "--dry-run").stdout
    pipeline.write_text(text.replace("split: {kind: stratified}}]", "split: {kind: stratified}, refit: train_val}]"))
    assert "runs: 2 of 1 configurations (4 trainings of heads);" in emofuse("run", pipeline, "--dry-run").stdout


def test_a_dataset_that_is_to_be_generated_is_not_generated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = emofuse("run", "demo", "--dry-run")
    assert result.stdout.startswith("dataset: 640 images to generate in emofuse-runs/demo/dataset; they must be there")
    result = emofuse("run", "clips_demo", "--dry-run")
    assert result.stdout.startswith("dataset: 576 clips to generate in emofuse-runs/clips_demo/dataset; they must be")
    result = emofuse("cache", "build", "demo", "--data", "images", "--spec", "demo", "--dry-run")
    assert result.stdout == "images: its images are not generated yet; they must be there for an estimate\n"
    assert files_of(tmp_path) == set()
