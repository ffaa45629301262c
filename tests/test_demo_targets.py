"""Pipelines on the votes and moods of the demo, from images to the report."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import emofuse
from emofuse.datasets.demo.truth import CLASSES
from emofuse.errors import DatasetError, SpecError
from emofuse.extraction import BuildOptions
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.results import ResultPaths, read_predictions, run_dir
from emofuse.specs import PipelineSpec, parse_spec

pytestmark = pytest.mark.usefixtures("blank_figures_of_module", "face")

VOTES = {"kind": "distribution", "columns": [f"votes_{name}" for name in CLASSES]}
MOODS = {"kind": "regression", "columns": ["valence", "arousal"], "range": [-1, 1]}
HEADS = {
    "ridge": {"head": {"kind": "kernel_ridge"}},
    "network": {"head": {"embed_dim": 8, "width": 8}, "train": {"epochs": 3, "learning_rate": 1e-3}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, session_face):
    """Runs a pipeline on 64 images of the demo with this target; gives its summary, lines and folder."""
    out = tmp_path_factory.mktemp("targets")

    def of(target, **changes):
        spec = {
            "name": "small",
            "dataset": {"kind": "demo", "images": 64, "seed": 3},
            "cache": {"block_rows": 16, "streams": [{"kind": "lbp"}], "face": session_face},
            "runs": [
                {"name": name, "features": {"streams": ["lbp"]}, "target": target, **options} | changes
                for name, options in HEADS.items()
            ],
        }
        lines: list[str] = []
        options = PipelineOptions(out=out, build=BuildOptions(workers=0), device="cpu")
        return run_pipeline(parse_spec(PipelineSpec, spec, "small.yaml"), options, say=lines.append), lines, out

    return of


def test_valence_and_arousal_are_learned_and_reported_in_their_unit(run):
    summary, lines, out = run(MOODS)
    assert "target: valence, arousal (regression, loss mse), in 62 of 64 rows" in lines
    assert not any("accuracy" in line for line in lines)
    paths = ResultPaths(out)
    for record in summary.records:
        assert record.classes == ["valence", "arousal"]
        assert set(record.metrics["test"]["columns"]) == {"valence", "arousal"}
        saved = read_predictions(run_dir(paths.runs, record.digest))
        manifest = emofuse.open_cache(paths.cache).manifest.table
        truth = {row["sample_id"]: (row["valence"], row["arousal"]) for row in manifest.iter_rows(named=True)}
        np.testing.assert_allclose(saved.target, [truth[name] for name in saved.sample_id.tolist()], atol=1e-6)
    page = (paths.report / "index.html").read_text()
    assert "CCC" in page
    assert "confusion" not in re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL).lower()


def test_votes_are_learned_as_distributions_and_scored_against_the_majority(run):
    summary, lines, out = run(VOTES)
    assert any(line.startswith("target: votes of votes_amusement, ") for line in lines)
    for record in summary.records:
        assert record.classes == list(CLASSES)
        assert {"accuracy", "distribution"} <= set(record.metrics["test"])
    assert json.loads((ResultPaths(out).report / "report.json").read_text())


def test_weights_and_columns_that_do_not_exist_are_errors_before_extraction(run, tmp_path, monkeypatch):
    monkeypatch.setattr("emofuse.extraction.opened.build_cache", lambda *_: pytest.fail("extracted"))
    with pytest.raises(SpecError, match="weight_column: there is no column 'trust'"):
        run(MOODS, weight_column="trust")
    with pytest.raises(SpecError, match="no column 'valense', did you mean 'valence'"):
        run({**MOODS, "columns": ["valense"]})
    with pytest.raises(DatasetError, match=r"column 'valence' must be from 0 to 1, as `target.range` says"):
        run({**MOODS, "range": [0, 1]})
