"""The lists of samples of a page for numbers and several labels, and the errors behind them."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image

from emofuse.datasets.manifest import Manifest
from emofuse.report import write_report
from emofuse.report.grouping import group_runs
from emofuse.report.page import gather_value_samples
from emofuse.report.page.pictures import find_manifest
from emofuse.report.records import read_records
from emofuse.report.row_errors import find_suspects, row_errors
from emofuse.results import read_predictions, run_dir

DATASET = {"name": "faces", "kind": "folder"}


def make_runs(make_run, kind):
    """Two streams alone and their fusion, with two seeds each; returns their results."""
    for seed in range(2):
        how = {"target": kind, "rows": 300, "epochs": 2, "seed": seed, "dataset": DATASET}
        make_run("both", ("lbp", "resnet50"), skill=0.8, **how)  # all have one validation loss: the first is the best
        make_run("resnet50", ("resnet50",), skill=0.4, **how)
        make_run("lbp", ("lbp",), skill=0.3, **how)
    return group_runs(read_records(make_run.folder), "runs")


def write_manifest(folder, ids, **columns):
    table = pl.DataFrame({"sample_id": ids, "path": [f"{sample}.png" for sample in ids]}).with_columns(
        split=pl.lit("test"), label=pl.lit(None, pl.String), problem=pl.lit(None, pl.String), **columns
    )
    Manifest(table, (), folder, DATASET).write(folder / "features.manifest.parquet")


def test_the_error_of_numbers_counts_columns_alike_and_that_of_labels_is_their_log_loss():
    target = np.array([[0.0, 0.0], [2.0, 200.0]])  # deviations of 1 and 100
    outputs = np.array([[1.0, 0.0], [2.0, 300.0]])
    assert row_errors("regression", target, outputs) == pytest.approx([0.5, 0.5])
    flat = row_errors("regression", np.array([[1.0], [1.0]]), np.array([[3.0], [1.0]]))
    assert flat == pytest.approx([2.0, 0.0])
    losses = row_errors("multilabel", np.array([[1.0, 0.0]]), np.array([[0.5, 0.2]]))
    assert losses == pytest.approx([-(np.log(0.5) + np.log(0.8)) / 2])


def test_a_number_may_be_wrong_where_all_models_err_far_in_one_direction():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(200, 2))
    outputs, other = true + 0.1 * rng.normal(size=true.shape), true + 0.2 * rng.normal(size=true.shape)
    given = true.copy()
    given[7, 1] += 3  # a wrong value, which both models contradict
    outputs[9, 0] -= 3  # a mistake of one model
    found = find_suspects("regression", given, outputs, [other])
    assert [(each.row, each.part) for each in found] == [(7, 1)]
    assert found[0].margin > 10
    assert {(each.row, each.part) for each in find_suspects("regression", given, outputs)} >= {(7, 1), (9, 0)}


def test_a_label_may_be_wrong_where_its_probability_is_that_of_the_other_rows():
    probs = np.array([[0.9, 0.5], [0.8, 0.5], [0.1, 0.5], [0.2, 0.5], [0.95, 0.5], [0.05, 0.5]])
    has = np.array([[1, 1], [1, 1], [0, 1], [0, 1], [0, 1], [1, 1]], float)
    found = find_suspects("multilabel", has, probs)
    assert [(each.row, each.part) for each in found] == [(4, 0), (5, 0)]  # a label that all rows have says nothing
    assert [each.margin for each in found] == pytest.approx([0.9, 0.9])


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_lists_are_of_the_mean_answers_of_the_best_configuration(make_run, kind):
    results = make_runs(make_run, kind)
    samples = gather_value_samples(results, make_run.folder)
    best = next(item for item in results.configurations if item.label == "both")
    parts = [read_predictions(run_dir(make_run.folder, run.digest)) for run in best.runs]
    order = np.argsort(parts[0].sample_id)
    mean = np.mean([part.outputs[np.argsort(part.sample_id)] for part in parts], axis=0)
    assert samples.best == "both"
    assert samples.outputs == pytest.approx(mean)
    errors = row_errors(kind, parts[0].target[order].astype(float), mean.astype(float))
    assert [each.row for each in samples.largest] == np.argsort(-errors, kind="stable")[:12].tolist()
    assert samples.single == "resnet50"
    gains = row_errors(kind, samples.target, samples.votes["resnet50"]) - errors
    assert [each.row for each in samples.gained] == np.argsort(-gains, kind="stable")[:12].tolist()
    assert samples.counts["gained"] == (gains > 0).sum()
    assert len(samples.suspects) == min(12, samples.counts["suspects"])


def test_classes_have_no_such_lists_and_a_single_stream_gains_nothing(make_run, tmp_path):
    make_run("a", ("lbp",), rows=100, epochs=2)
    assert gather_value_samples(group_runs(read_records(make_run.folder), "runs"), make_run.folder) is None
    make_run.folder = tmp_path / "single"
    make_run("a", ("lbp",), rows=100, epochs=2, target="regression")
    samples = gather_value_samples(group_runs(read_records(make_run.folder), "runs"), make_run.folder)
    assert samples.gained == []
    assert len(samples.largest) == 10


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("kind", ["regression", "multilabel"])
@pytest.mark.usefixtures("blank_figures")
def test_the_page_shows_the_lists_with_pictures_and_its_files_have_their_numbers(make_run, tmp_path, kind):
    results = make_runs(make_run, kind)
    ids = read_predictions(run_dir(make_run.folder, results.runs[0].digest)).sample_id.tolist()
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "blue").save(buffer, "PNG")
    for sample in ids:
        (tmp_path / f"{sample}.png").write_bytes(buffer.getvalue())
    write_manifest(tmp_path, ids)
    files = write_report(make_run.folder, tmp_path / "report")
    page = files.page.read_text(encoding="utf-8")
    gallery = page[page.index('<h2 id="gallery">') :]
    gallery = gallery[: gallery.index("</section>")]
    assert '<a href="#gallery">Samples</a>' in page
    titles = re.findall(r"<h3>(.*?)</h3>", gallery)
    assert titles[:2] == ["Largest errors", "Samples that fusion improved most"]
    assert gallery.count('<li class="card">') == gallery.count('<img src="data:image/webp;base64,')
    truth = {"regression": "True values", "multilabel": "Labels"}[kind]
    assert gallery.count(f"<div>{truth}: <b>") == gallery.count("Answer: <b>") >= 24
    assert "right-answer" not in gallery
    assert "✓" not in gallery
    first = gather_value_samples(results, make_run.folder).largest[0]
    with (tmp_path / "report" / "samples.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert rows[0]["list"] == "largest_errors"
    assert rows[0]["sample_id"] in gallery
    assert first.note in gallery
    column = results.classes[0]
    assert {f"true_{column}", f"answer_{column}", f"answer_{column}_of_lbp"} <= rows[0].keys()
    without = write_report(make_run.folder, tmp_path / "report", images=False).page.read_text(encoding="utf-8")
    assert "Pictures were left out when this page was made." in without
    assert without.count("data:image/webp") == 1  # of the script


@pytest.mark.usefixtures("blank_figures")
def test_names_of_columns_and_samples_are_escaped_in_the_lists(make_run, tmp_path):
    for name, streams in (("b", ("lbp", "resnet50")), ("a", ("lbp",))):
        make_run(name, streams, rows=60, epochs=2, target="regression", classes=("<b>joy</b>",))
    page = write_report(make_run.folder, tmp_path / "report").page.read_text(encoding="utf-8")
    assert "<b>joy</b>" not in page
    assert "&lt;b&gt;joy&lt;/b&gt;" in page[page.index('<h2 id="gallery">') :]


def test_the_manifest_of_a_pipeline_beside_counts_if_it_has_the_true_values(make_run, tmp_path):
    results = make_runs(make_run, "regression")
    truth = gather_value_samples(results, make_run.folder).values_by_rank()
    (tmp_path.parent / "values").mkdir()
    columns = {
        name: pl.Series([values[place] for values in truth.values()]) for place, name in enumerate(results.classes)
    }
    write_manifest(tmp_path.parent / "values", list(truth), **columns)
    assert find_manifest(results, make_run.folder, truth) is not None
    other = {**columns, results.classes[0]: columns[results.classes[0]] + 0.1}
    write_manifest(tmp_path.parent / "values", list(truth), **other)
    assert find_manifest(results, make_run.folder, truth) is None
    write_manifest(tmp_path.parent / "values", list(truth))
    assert find_manifest(results, make_run.folder, truth) is None
