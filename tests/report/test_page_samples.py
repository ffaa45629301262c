"""The samples of the page: which are listed, where their pictures come from, and what is said without them."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile

import numpy as np
import polars as pl
import pytest
from PIL import Image

from emofuse.datasets.manifest import Manifest
from emofuse.report import write_report
from emofuse.report.grouping import group_runs
from emofuse.report.page import pictures as pictures_of_page
from emofuse.report.page.pictures import find_manifest, read_pictures
from emofuse.report.page.samples import gather_samples, shown_matrices
from emofuse.report.records import read_records
from emofuse.results import read_predictions, run_dir

CLASSES = ("joy", "fear", "rage")
DATASET = {"name": "faces", "kind": "folder"}


@pytest.fixture
def runs(make_run):
    """Three configurations, of two streams alone and of both, with two seeds each; returns their results."""
    for seed in range(2):
        how = {"classes": CLASSES, "rows": 300, "epochs": 2, "seed": seed, "dataset": DATASET}
        make_run("lbp", ("lbp",), skill=0.3, **how)
        make_run("resnet50", ("resnet50",), skill=0.3, **how)
        make_run("both", ("lbp", "resnet50"), skill=0.7, **how)
    return group_runs(read_records(make_run.folder), "runs")


def write_manifest(folder, ids, root, **columns):
    table = pl.DataFrame({"sample_id": ids, "path": [f"{sample}.png" for sample in ids]}).with_columns(
        split=pl.lit("test"), label=pl.lit("joy"), problem=pl.lit(None, pl.String)
    )
    info = columns.pop("info", DATASET)
    Manifest(table.with_columns(**columns), CLASSES, root, info).write(folder / "features.manifest.parquet")


def png(colour, size=(300, 200)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def ids_of(make_run, results):
    return read_predictions(run_dir(make_run.folder, results.runs[0].digest)).sample_id.tolist()


def with_classes(ids):
    """The class of each sample: that of its number, as made-up runs have it."""
    return {sample: CLASSES[int(sample.rpartition("_")[2]) % len(CLASSES)] for sample in ids}


def picture(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri)))


def test_the_samples_of_a_cell_are_counted_over_runs_and_sum_to_the_matrix(make_run, runs):
    samples = gather_samples(runs, make_run.folder)
    for item in runs.configurations:
        counts = np.zeros_like(item.confusion)
        for cell, listed in samples.cells[item.label].items():
            confidences = [one.confidence for one in listed]
            assert confidences == sorted(confidences, reverse=True)
            assert {samples.true[one.sample] for one in listed} == {cell[0]}
            counts[cell] = sum(one.times for one in listed)
        full = counts < 20
        assert (counts[full] == item.confusion[full]).all()


def test_votes_are_the_answers_of_single_streams_and_rescued_samples_are_wrong_by_all(make_run, runs):
    samples = gather_samples(runs, make_run.folder)
    assert [vote.stream for vote in samples.votes] == ["lbp", "resnet50"]
    predictions = read_predictions(run_dir(make_run.folder, runs.configurations[0].runs[0].digest))
    other = read_predictions(run_dir(make_run.folder, runs.configurations[0].runs[1].digest))
    mean = (predictions.probs.astype(float) + other.probs) / 2
    for place, sample in enumerate(predictions.sample_id.tolist()):
        answer, confidence = samples.votes[0].answers[sample]
        assert answer == mean[place].argmax()
        assert confidence == pytest.approx(mean[place].max())
    assert samples.best == "both"
    for sample, answer, _ in samples.rescued:
        assert answer == samples.true[sample]
        assert all(vote.answers[samples.sample_id[sample]][0] != answer for vote in samples.votes)
    assert samples.rescued
    assert all(answer != samples.true[sample] for sample, answer, _ in samples.mistakes)


def test_without_usable_predictions_the_rest_is_listed_and_the_reason_is_said(make_run, runs):
    for run in runs.configurations[0].runs:
        (run_dir(make_run.folder, run.digest) / "predictions.npz").write_bytes(b"")
    samples = gather_samples(runs, make_run.folder)
    assert set(samples.cells) == {"resnet50", "both"}
    (problem,) = samples.problems
    assert problem.startswith("The samples of lbp cannot be listed: ")


def test_matrices_of_many_classes_are_figures_alone(runs, monkeypatch):
    assert len(shown_matrices(runs)) == 3
    monkeypatch.setattr("emofuse.report.page.samples.MOST_BUTTONS", 19)
    assert len(shown_matrices(runs)) == 2


def test_pictures_come_from_members_of_archives_and_show_the_face_that_a_row_means(make_run, runs, tmp_path):
    ids = ids_of(make_run, runs)
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for sample in ids:
            image = Image.new("RGB", (400, 400), "black")
            image.paste((250, 10, 10), (100, 100, 200, 150))
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            archive.writestr(f"{sample}.png", buffer.getvalue())
    box = {"face_left": 100, "face_top": 100, "face_width": 100, "face_height": 50}
    members = {"path": pl.lit("pictures.zip"), "member": pl.format("{}.png", "sample_id")}
    write_manifest(tmp_path, ids, tmp_path, **members, **{name: pl.lit(value) for name, value in box.items()})
    pictures = read_pictures(runs, make_run.folder, with_classes(ids[:3]))
    assert pictures.note == ""
    assert list(pictures.uris) == ids[:3]
    shown = picture(pictures.uris[ids[0]])
    assert shown.format == "WEBP"
    assert max(shown.size) <= 160
    assert shown.size[0] / shown.size[1] == pytest.approx(2, abs=0.05)
    assert np.asarray(shown.convert("RGB")).mean(axis=(0, 1)) == pytest.approx([250, 10, 10], abs=12)


def test_samples_without_a_picture_are_counted_with_the_reason(make_run, runs, tmp_path):
    ids = ids_of(make_run, runs)
    (tmp_path / "images").mkdir()
    for sample in ids[1:]:
        (tmp_path / "images" / f"{sample}.png").write_bytes(png("blue"))
    write_manifest(tmp_path, ids, tmp_path / "images")
    pictures = read_pictures(runs, make_run.folder, with_classes(ids))
    assert len(pictures.uris) == len(ids) - 1
    assert pictures.note == "1 listed sample has no picture: no such file."


def test_a_page_has_room_for_a_number_of_pictures_and_says_so(make_run, runs, tmp_path, monkeypatch):
    ids = ids_of(make_run, runs)
    for sample in ids:
        (tmp_path / f"{sample}.png").write_bytes(png("blue"))
    write_manifest(tmp_path, ids, tmp_path)
    monkeypatch.setattr("emofuse.report.page.pictures.MOST_PICTURES", 4)
    pictures = read_pictures(runs, make_run.folder, with_classes(ids))
    assert list(pictures.uris) == ids[:4]
    assert pictures.note.startswith(f"Pictures are shown for the first 4 of {len(ids)} listed samples.")


def test_a_dataset_that_is_gone_is_tried_a_few_times_only(make_run, runs, tmp_path, monkeypatch):
    ids = ids_of(make_run, runs)
    write_manifest(tmp_path, ids, tmp_path / "gone")
    read, tried = pictures_of_page._thumbnail, []
    monkeypatch.setattr(pictures_of_page, "_thumbnail", lambda *given: tried.append(1) or read(*given))
    pictures = read_pictures(runs, make_run.folder, with_classes(ids))
    assert pictures.uris == {}
    assert pictures.note.startswith(f"No pictures are shown, because they cannot be read from {tmp_path / 'gone'}: ")
    assert len(tried) == 5


@pytest.mark.parametrize("change", ["name", "samples", "damaged", "absent"])
def test_a_manifest_of_other_data_is_not_used(make_run, runs, tmp_path, change):
    ids = ids_of(make_run, runs)
    info = {"name": "others", "kind": "folder"} if change == "name" else DATASET
    write_manifest(tmp_path, ids[1:] if change == "samples" else ids, tmp_path, info=info)
    if change == "damaged":
        (tmp_path / "features.manifest.parquet").write_bytes(b"PAR1")
    if change == "absent":
        (tmp_path / "features.manifest.parquet").unlink()
    assert find_manifest(runs, make_run.folder, with_classes(ids)) is None
    pictures = read_pictures(runs, make_run.folder, with_classes(ids))
    assert pictures.note == "No pictures are shown, because the manifest of the dataset is not beside the runs."


def test_the_manifest_of_a_pipeline_beside_a_sweep_is_found(make_run, runs, tmp_path):
    ids = ids_of(make_run, runs)
    (tmp_path.parent / "pipeline").mkdir(exist_ok=True)
    write_manifest(tmp_path.parent / "pipeline", ids, tmp_path)
    assert find_manifest(runs, make_run.folder, with_classes(ids)) is None  # its labels are others
    write_manifest(tmp_path.parent / "pipeline", ids, tmp_path, label=pl.Series(with_classes(ids).values()))
    assert find_manifest(runs, make_run.folder, with_classes(ids)).table["sample_id"].to_list() == ids


@pytest.mark.usefixtures("blank_figures", "runs")
def test_pictures_are_left_out_on_request_and_the_page_stays_whole(make_run, runs, tmp_path):
    ids = ids_of(make_run, runs)
    for sample in ids:
        (tmp_path / f"{sample}.png").write_bytes(png("blue"))
    write_manifest(tmp_path, ids, tmp_path)
    pages = [
        write_report(make_run.folder, tmp_path / "report", images=images).page.read_text(encoding="utf-8")
        for images in (True, False)
    ]
    with_pictures, without = (page.count("data:image/webp;base64,") for page in pages)
    assert with_pictures > without == 1  # the script alone
    data = [json.loads(re.search(r'id="samples-data">(.*?)</script>', page).group(1)) for page in pages]
    assert data[0]["pictures"]
    assert data[1]["pictures"] == {}
    assert [each["note"] for each in data] == ["", "Pictures were left out when this page was made."]
    assert "Pictures were left out when this page was made." in pages[1].partition("<dialog")[0]
    assert data[0]["cells"] == data[1]["cells"]
