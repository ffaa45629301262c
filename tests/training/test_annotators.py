"""Runs on the labels of one of several annotators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from emofuse.cache.reader import Cache, open_cache
from emofuse.results import read_predictions, run_dir
from emofuse.specs import RunSpec, parse_spec
from emofuse.training.runs import train_runs

CLASSES = ("calm", "fear", "joy")


@pytest.fixture
def cache(tmp_path, write_cache):
    """Ninety rows whose features follow the perceived emotion; the intended one differs in each tenth row."""
    rng = np.random.default_rng(0)
    perceived = rng.integers(0, 3, 90)
    intended = np.where(np.arange(90) % 10 == 0, (perceived + 1) % 3, perceived)
    features = (3 * np.eye(3)[perceived].repeat(2, 1) + rng.normal(size=(90, 6))).astype(np.float32)
    splits = (["train", "train", "train", "val", "test"] * 18)[:90]
    streams = {"net": ("backbone", features, np.ones(90, np.uint8))}
    info = {"name": "clips", "kind": "csv", "label_column": "intended"}
    opened = open_cache(write_cache(tmp_path / "a.zarr", CLASSES, intended, splits, streams, info=info))
    names = pl.Series("perceived", [CLASSES[label] for label in perceived])
    names[3] = None
    manifest = replace(opened.manifest, table=opened.manifest.table.with_columns(names))
    return Cache(opened.path, opened.layout, manifest, opened.streams)


def run_of(target):
    plain = {"name": "a", "features": {"streams": ["net"]}, "head": {"kind": "logistic"}, "target": target}
    return parse_spec(RunSpec, plain, "test")


def test_a_run_learns_and_is_scored_on_the_labels_of_the_named_column_and_says_so(cache, tmp_path):
    runs = [run_of({"kind": "class", "column": "perceived"}), run_of({"kind": "class"})]
    (perceived, _), (intended, _) = train_runs(cache, runs, tmp_path / "runs", device="cpu")
    assert perceived.digest != intended.digest
    assert perceived.notes[0] == (
        "The labels are those of column 'perceived'; the label of the manifest (column 'intended') is the same in 80 "
        "of 89 rows."
    )
    assert intended.notes[0] == (
        "The labels are the label of the manifest (column 'intended'), not those of column 'perceived' (the same in 80 "
        "of 89 rows)."
    )
    assert perceived.spec["target"] == {"kind": "class", "column": "perceived"}
    for record, column in ((perceived, "perceived"), (intended, "label")):
        saved = read_predictions(run_dir(tmp_path / "runs", record.digest))
        assert record.classes == list(CLASSES)
        truth = dict(cache.manifest.table.select("sample_id", column).iter_rows())
        assert [CLASSES[label] for label in saved.label] == [truth[sample_id] for sample_id in saved.sample_id.tolist()]
    assert perceived.metrics["test"]["accuracy"] > intended.metrics["test"]["accuracy"]


def test_a_run_says_which_column_weights_its_rows(cache, tmp_path):
    weights = pl.Series("trust", np.linspace(0.1, 1, 90))
    manifest = replace(cache.manifest, table=cache.manifest.table.with_columns(weights))
    weighted = run_of({"kind": "class"}).model_copy(update={"weight_column": "trust"})
    trusted = Cache(cache.path, cache.layout, manifest, cache.streams)
    ((record, _),) = train_runs(trusted, [weighted], tmp_path / "runs", device="cpu")
    assert "Training weights rows by column 'trust'; scores count all rows alike." in record.notes
