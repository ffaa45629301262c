"""Pipelines on votes, numbers and several labels, from a table of pictures to a report and to predictions."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.errors import SpecError
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.specs import PipelineSpec, parse_spec

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

ROWS = 150
STREAM = '''
from typing import ClassVar, Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.streams.base import Rows


class MeanStream:
    """Means of red, green and blue."""

    shape = (3,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = frozenset({"image"})
    flag_names = ()
    columns = ()

    def extract(self, samples):
        means = [sample.image.mean(axis=(0, 1)) / 255 for sample in samples]
        return Rows.ok(np.array(means, np.float32).reshape(-1, 3))

    def close(self):
        pass


class MeanSpec(CustomStreamSpec):
    version = 1
    uses_gpu: ClassVar[bool] = False
    kind: Literal["mean_colour"] = "mean_colour"

    def make(self, device):
        return MeanStream()
'''
TARGETS = {
    "regression": {"kind": "regression", "columns": ["valence", "arousal"]},
    "multilabel": {"kind": "multilabel", "columns": ["is_calm", "is_tense"]},
    "distribution": {"kind": "distribution", "columns": ["votes_joy", "votes_fear"]},
}
MAIN = {"regression": "mean_ccc", "multilabel": "macro_map", "distribution": "accuracy"}
PART = {"regression": "column", "multilabel": "label", "distribution": "class"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures in one colour each, whose valence is their red and whose arousal is their green."""
    folder = tmp_path_factory.mktemp("targets")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(ROWS):
        red, green = rng.random(2)
        colour = np.array([255 * red, 255 * green, 128], np.uint8)
        Image.fromarray(np.broadcast_to(colour, (32, 32, 3)).copy()).save(folder / f"{number:02d}.png")
        joy = rng.binomial(10, 1 / (1 + np.exp(8 - 16 * red)))
        lines.append(
            f"{number:02d}.png,{red:.3f},{10 * green:.3f},{int(green < 0.5)},{int(red < 0.3)},{joy},{10 - joy}"
        )
    head = "path,valence,arousal,is_calm,is_tense,votes_joy,votes_fear"
    (folder / "labels.csv").write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    (folder / "mean_colour.py").write_text(STREAM, encoding="utf-8")
    return folder


def pipeline(folder: Path, kind: str) -> Path:
    train = {"epochs": 40, "batch_size": 16, "learning_rate": 0.01}
    run = {"features": {"streams": ["mean_colour"]}, "target": TARGETS[kind], "head": {"embed_dim": 8, "width": 16}}
    spec = {
        "name": kind,
        "plugins": ["mean_colour.py"],
        "dataset": {"kind": "csv", "root": ".", "label_column": None, "split": {"kind": "stratified"}},
        "cache": {"block_rows": 32, "streams": [{"kind": "mean_colour"}]},
        "runs": [
            {"name": "network", "train": train, **run},
            {"name": "kernel ridge", **run, "head": {"kind": "kernel_ridge"}},
        ],
        "repeat": {"seeds": [0, 1]},
        "baseline": "kernel ridge",
    }
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path


def invoke(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def plain_spec(folder: Path) -> dict:
    """The pipeline of numbers with a stream of emofuse's own, so that no plugin file is loaded."""
    text = pipeline(folder, "regression").read_text(encoding="utf-8").replace("mean_colour", "lbp")
    return {key: value for key, value in yaml.safe_load(text).items() if key != "plugins"}


def test_runs_of_several_targets_are_refused_before_anything_is_trained(folder):
    spec = plain_spec(folder)
    spec["runs"][1]["target"] = TARGETS["multilabel"]
    with pytest.raises(SpecError, match=r"one target, got regression \['valence', 'arousal'\] for network; multilabel"):
        parse_spec(PipelineSpec, spec, "mixed.yaml")
    spec["runs"][1]["target"] = {"kind": "regression", "columns": ["valence"]}
    with pytest.raises(SpecError, match=r"regression \['valence'\] for kernel ridge. Give each target a pipeline"):
        parse_spec(PipelineSpec, spec, "mixed.yaml")


def test_metrics_of_another_target_are_refused_before_anything_is_trained(folder):
    spec = parse_spec(PipelineSpec, {**plain_spec(folder), "metrics": ["kappa"]}, "small.yaml")
    options = PipelineOptions(out=folder / "unused", device="cpu")
    with pytest.raises(SpecError, match="'kappa' scores a class, the target of the runs is a regression"):
        run_pipeline(spec, options, say=lambda _: None)
    assert not (folder / "unused").exists()


@pytest.mark.parametrize("kind", TARGETS)
def test_a_pipeline_goes_from_pictures_to_a_report_and_to_predictions(folder, kind, monkeypatch):
    monkeypatch.chdir(folder)
    out = folder / "out" / kind
    invoke("run", str(pipeline(folder, kind)), "--out", str(out), "--workers", "0", "--device", "cpu")
    summary = read_csv(out / "report" / "summary.csv")
    scores = {row["configuration"]: row for row in summary}
    assert float(scores["network"][f"{MAIN[kind]}_mean"]) > 0.6  # the picture says it all, but for the votes
    assert float(scores["kernel ridge"][f"{MAIN[kind]}_mean"]) > 0.6
    row = scores["network"]
    assert float(row[f"{MAIN[kind]}_95_low"]) <= float(row[f"{MAIN[kind]}_mean"])
    assert (out / "report" / f"per_{PART[kind]}.csv").is_file()

    invoke("report", str(out / "runs"), "--out", str(out / "again"), "--compare", "network=kernel ridge")
    numbers = json.loads((out / "again" / "report.json").read_text(encoding="utf-8"))
    assert [each["configuration"] for each in numbers["comparisons"]]
    assert 0 < numbers["comparisons"][0][f"{MAIN[kind]}_p"] <= 1

    (best, *_) = sorted((out / "runs").glob("*/run.json"))
    answer = invoke("predict", "--run", str(best.parent), str(folder / "03.png"), "--device", "cpu")
    for name in json.loads(best.read_text(encoding="utf-8"))["classes"]:
        assert name in answer
