"""The whole job on a small generated dataset: every step once, and nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import emofuse
from emofuse.cli import app
from emofuse.errors import DatasetError, DeviceError, SpecError, TrainingError
from emofuse.extraction import BuildOptions
from emofuse.pipeline import PipelineOptions, expand_runs, run_pipeline
from emofuse.predict import Predictor, find_images
from emofuse.results import ResultPaths
from emofuse.results.progress import read_calls
from emofuse.specs import PipelineSpec, parse_spec
from emofuse.status import Status
from emofuse.training import references

SPEC = {
    "name": "small",
    "dataset": {"kind": "demo", "images": 64, "seed": 3},
    "cache": {"block_rows": 16, "streams": [{"kind": "lbp"}, {"kind": "action_units"}]},
    "runs": [
        {"name": "LBP", "features": {"streams": ["lbp"]}, "train": {"epochs": 3}, "head": {"embed_dim": 8, "width": 8}},
        {
            "name": "LBP + FAUs",
            "features": {"streams": ["lbp", "action_units"]},
            "train": {"epochs": 3},
            "head": {"embed_dim": 8, "width": 8},
        },
    ],
    "repeat": {"seeds": [0, 1]},
}


pytestmark = pytest.mark.usefixtures("blank_figures_of_module", "face")


@pytest.fixture(scope="module")
def small(session_face):
    """Makes the pipeline's spec, with changes, for the detector that is installed."""
    cache = {**SPEC["cache"], "face": session_face}
    return lambda **changes: parse_spec(PipelineSpec, {**SPEC, "cache": cache, **changes}, "small.yaml")


def options(out) -> PipelineOptions:
    return PipelineOptions(out=out, build=BuildOptions(workers=0), device="cpu")


@pytest.fixture(scope="module")
def done(tmp_path_factory, small):
    """A finished pipeline: its folder and summary. Tests that change it work on what they add."""
    out = tmp_path_factory.mktemp("pipeline")
    lines: list[str] = []
    return out, run_pipeline(small(), options(out), say=lines.append), lines


def test_one_call_goes_from_nothing_to_a_report(done):
    out, summary, lines = done
    assert (summary.build.rows, summary.trained, len(summary.records)) == (64, 4, 4)
    assert summary.report_written
    assert all(path.exists() for path in summary.report)
    assert lines[0].startswith("dataset: 64 rows, 8 labels")
    assert lines[1].startswith("cache: 64 rows computed")
    assert lines[2].startswith("cache: a face in ")
    assert lines[3].startswith("run 1/4: LBP, test accuracy 0.")
    assert lines[-1] == f"report: written, {ResultPaths(out).report / 'index.html'}"


def test_a_device_that_is_not_there_is_an_error_before_anything_is_made(tmp_path, small):
    with pytest.raises(DeviceError, match="'cuda:99' was asked for"):
        run_pipeline(small(), replace(options(tmp_path / "out"), device="cuda:99"), say=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_the_folder_says_what_was_planned_and_how_the_call_ended(done):
    out, _, _ = done
    (call,) = read_calls(out)
    assert (call.kind, call.planned, call.ended) == ("pipeline", 4, "done")


def test_a_second_call_does_nothing(done, small):
    out, first, _ = done
    own = [path for path in out.rglob("*") if path.is_file() and path.parent.name != "progress"]
    before = {path: path.stat().st_mtime_ns for path in own if "manifest" not in path.name}
    second = run_pipeline(small(), options(out), say=lambda _: None)
    assert (second.build.rows, second.trained, second.report_written) == (0, 0, False)
    assert [record.digest for record in second.records] == [record.digest for record in first.records]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_changed_run_is_trained_and_the_others_are_not(done, small):
    out, _, _ = done
    runs = [SPEC["runs"][0], {**SPEC["runs"][1], "train": {"epochs": 4}}]
    summary = run_pipeline(small(runs=runs), options(out), say=lambda _: None)
    assert (summary.build.rows, summary.trained, summary.report_written) == (0, 2, True)


def test_a_pipeline_shows_no_images_where_its_file_or_the_call_says_so_even_if_all_runs_are_done(done, small):
    out, _, _ = done

    def run(call=None, **changes):
        given = replace(options(out), images=call)
        summary = run_pipeline(small(**changes), given, say=lambda _: None)
        page = summary.report.page.read_text(encoding="utf-8")
        return summary.trained, summary.report_written, page.count("data:image/webp;base64,") > 1  # once in a script

    without = {"report": {"images": False}}
    assert run(**without) == (0, True, False)
    assert run(call=False) == (0, False, False)
    assert run(call=True, **without) == (0, True, True)


def test_an_interrupted_report_is_written_again(done, small):
    out, _, _ = done
    stamp = ResultPaths(out).report / "inputs.sha256"
    run_pipeline(small(), options(out), say=lambda _: None)
    stamp.write_bytes(stamp.read_bytes()[:10])
    assert run_pipeline(small(), options(out), say=lambda _: None).report_written
    assert not run_pipeline(small(), options(out), say=lambda _: None).report_written


def test_corrupt_images_cost_their_rows_and_nothing_else(done):
    out, _, _ = done
    cache = emofuse.open_cache(ResultPaths(out).cache)
    truth = json.loads((ResultPaths(out).generated_dataset / "demo.json").read_text())
    corrupt = sum(sample["damage"] is not None for sample in truth["samples"])
    assert corrupt >= 2
    assert cache.streams["lbp"].counts()["unreadable"] == corrupt
    assert cache.streams["lbp"].counts()["pending"] == 0


def test_unreadable_rows_are_in_no_score_and_are_told_on_the_terminal_and_in_the_report(done):
    out, summary, lines = done
    cache = emofuse.open_cache(ResultPaths(out).cache)
    unreadable = int((cache.streams["lbp"].read()[1] == Status.UNREADABLE).sum())
    page = (ResultPaths(out).report / "index.html").read_text()
    for record in summary.records:
        assert sum(part["rows"] for part in record.rows.values()) == 64 - unreadable
        (note,) = (note for note in record.notes if "cannot be read" in note)
        assert note.startswith(
            f"{unreadable} of 64 labelled rows are left out, because their pictures cannot be read: "
        )
        assert any(line.startswith("note: ") and note[:-1] in line for line in lines)
        assert note[:-1] in page


REFERENCES = [
    "Logistic regression (all 2 streams)",
    "Averaged logistic regressions (all 2 streams)",
    "Kernel ridge regression (all 2 streams)",
    "Logistic regression (streams of the baseline)",
    "Kernel ridge regression (streams of the baseline)",
]
BEST_SINGLE = ("Logistic regression (best single stream: ", "Kernel ridge regression (best single stream: ")
"""Two more, unless it is the stream of the baseline; 64 pictures do not decide which of the two is best."""


def test_reference_models_stand_beneath_the_runs(done):
    _, summary, lines = done
    assert [record.name for record in summary.references][:5] == REFERENCES
    assert all(record.name.startswith(BEST_SINGLE) for record in summary.references[5:])
    said = [line.partition(", test")[0] for line in lines if line.startswith("reference: ")]
    assert sorted(said) == sorted(f"reference: {record.name}" for record in summary.references)
    assert any(line.startswith("note: The best single stream is ") for line in lines)
    assert {record.name for record in summary.records} == {"LBP", "LBP + FAUs"}
    text = summary.report.summary_markdown.read_text(encoding="utf-8")
    assert text.index("| LBP + FAUs") < text.index(f"| {REFERENCES[0]}")
    assert "FAUs" in summary.report.comparisons_csv.read_text(encoding="utf-8")
    assert "regression" not in summary.report.comparisons_csv.read_text(encoding="utf-8")


def test_a_further_comparison_is_a_new_report_of_the_same_runs(done, tmp_path, small):
    copy = tmp_path / "out"
    shutil.copytree(done[0], copy)
    changes = {"compare": [["LBP + FAUs", "LBP"]], "baseline": "LBP + FAUs"}
    summary = run_pipeline(small(**changes), options(copy), say=lambda _: None)
    assert (summary.trained, summary.report_written) == (0, True)
    assert not run_pipeline(small(**changes), options(copy), say=lambda _: None).report_written
    assert run_pipeline(small(baseline="LBP + FAUs"), options(copy), say=lambda _: None).report_written


def test_runs_to_compare_are_named_as_they_are(small):
    with pytest.raises(SpecError, match=r"compare\[0\]: 'LPB' is not the name of a run, did you mean 'LBP'\?"):
        small(compare=[["LPB", "LBP + FAUs"]])


def test_without_references_the_runs_are_the_same_and_none_is_solved(done, tmp_path, small):
    out, first, _ = done
    copy = tmp_path / "out"
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns("runs", "report"))
    lines: list[str] = []
    summary = run_pipeline(small(references=False), options(copy), say=lines.append)
    assert summary.references == ()
    assert not any(line.startswith("reference") for line in lines)
    assert [record.digest for record in summary.records] == [record.digest for record in first.records]
    assert [record.metrics for record in summary.records] == [record.metrics for record in first.records]
    assert len(list(ResultPaths(copy).runs.glob("*/run.json"))) == 4
    assert "Reference models" not in summary.report.page.read_text(encoding="utf-8")


@pytest.mark.parametrize("cores", [1, 2])
def test_references_are_the_same_beside_the_runs_and_after_them(done, tmp_path, small, monkeypatch, cores):
    monkeypatch.setattr(emofuse.pipeline, "cores_of", lambda _: cores)
    copy = tmp_path / "again"
    shutil.copytree(done[0], copy, ignore=shutil.ignore_patterns("runs", "report"))
    lines: list[str] = []
    summary = run_pipeline(small(), options(copy), say=lines.append)
    same = {record.digest: record.metrics for record in done[1].references}
    assert {record.digest: record.metrics for record in summary.references} == same
    said = [line.partition(":")[0] for line in lines if line.startswith(("run ", "reference"))]
    assert said.index("reference") == 4  # behind the four runs
    assert set(said[4:]) == {"reference"}


def test_references_that_cannot_be_solved_are_said_and_fail_nothing(done, tmp_path, small, monkeypatch):
    copy = tmp_path / "out"
    shutil.copytree(done[0], copy, ignore=shutil.ignore_patterns("runs", "report"))
    monkeypatch.setattr(references, "train_runs", lambda *_, **__: (_ for _ in ()).throw(MemoryError("2 TB")))
    lines: list[str] = []
    summary = run_pipeline(small(), options(copy), say=lines.append)
    assert (len(summary.records), summary.references) == (4, ())
    note = f"{', '.join(REFERENCES[:-1])} and {REFERENCES[-1]} are left out, because they could not be solved: 2 TB."
    assert f"note: {note}" in lines
    assert note in summary.report.summary_markdown.read_text(encoding="utf-8")


def test_the_mark_of_references_is_not_for_users(small):
    runs = [{**SPEC["runs"][0], "reference": True}]
    with pytest.raises(SpecError, match=r"runs\[0\]\.reference: is for the models that emofuse adds"):
        small(runs=runs)


def test_outer_folds_test_every_row_of_the_dataset_once(done, tmp_path, small):
    shutil.copytree(done[0], tmp_path / "pipeline", ignore=shutil.ignore_patterns("runs", "report"))
    lines: list[str] = []
    runs = [{**SPEC["runs"][0], "train": {"epochs": 1}}]
    spec = small(runs=runs, repeat={}, test={"folds": 2}, references="off")
    summary = run_pipeline(spec, options(tmp_path / "pipeline"), say=lines.append)
    assert "test: every row is tested once in 2 outer folds; the dataset's own split plays no part" in lines
    readable = sum(rows["rows"] for rows in summary.records[0].rows.values())
    assert sum(record.rows["test"]["rows"] for record in summary.records) == readable > 60
    (row,) = json.loads(summary.report.numbers_json.read_text())["configurations"]
    assert (row["outer_folds"], row["test_images"]) == (2, readable)
    again = run_pipeline(spec, options(tmp_path / "pipeline"), say=lines.append)
    assert (again.trained, again.report_written) == (0, False)


def test_repeats_are_every_split_seed_with_every_seed(small):
    runs = list(expand_runs(small(repeat={"seeds": [4, 5], "split_seeds": [7, 8]})))
    assert [(run.name, run.split.seed, run.train.seed) for run in runs[:4]] == [
        ("LBP", 7, 4),
        ("LBP", 7, 5),
        ("LBP", 8, 4),
        ("LBP", 8, 5),
    ]


def test_a_wrong_path_is_told_and_makes_nothing(tmp_path, small):
    spec = small(dataset={"kind": "folder"})
    wrong = PipelineOptions(out=tmp_path / "out", data=tmp_path / "nowhere", build=BuildOptions(workers=0))
    with pytest.raises(DatasetError, match="nowhere"):
        run_pipeline(spec, wrong, say=lambda _: None)
    assert not (tmp_path / "out").exists()


# --- predict ---------------------------------------------------------------------------------------------------------


def run_folder(done, name):
    out, summary, _ = done
    record = next(record for record in summary.records if record.name == name)
    return ResultPaths(out).runs / record.digest[:16], record


def test_predicting_the_test_images_gives_the_saved_probabilities(done):
    from emofuse.results import ResultPaths, read_predictions

    folder, _ = run_folder(done, "LBP + FAUs")
    saved = read_predictions(folder)
    cache = emofuse.open_cache(ResultPaths(done[0]).cache)
    paths = {row["sample_id"]: cache.manifest.root / row["path"] for row in cache.manifest.table.iter_rows(named=True)}
    with Predictor(folder) as predictor:
        predictions = list(predictor.predict([paths[name] for name in saved.sample_id.tolist()]))
    for prediction, probs in zip(predictions, saved.probs, strict=True):
        if prediction.problem is None:
            ours = [prediction.probs[label] for label in cache.classes]
            np.testing.assert_allclose(ours, probs, atol=2e-5)
            assert prediction.label == cache.classes[int(np.argmax(probs))]


@pytest.mark.parametrize("name", ["LBP", "LBP + FAUs"])
def test_a_face_gets_its_strongest_action_units_first(done, name):
    from skimage import data
    from skimage.io import imsave

    folder, _ = run_folder(done, name)
    path = done[0] / "astronaut.png"
    imsave(path, data.astronaut())
    with Predictor(folder) as predictor:
        (prediction,) = predictor.predict([path])
    assert prediction.face is True
    assert len(prediction.action_units) == 30
    strength = [abs(unit.activation) for unit in prediction.action_units]
    assert strength == sorted(strength, reverse=True)
    lift = next(unit for unit in prediction.action_units if unit.name == "lip_corner_lift")
    assert lift.value == pytest.approx(-0.18, abs=0.03)
    assert sum(prediction.probs.values()) == pytest.approx(1, abs=1e-5)
    assert list(prediction.probs.values()) == sorted(prediction.probs.values(), reverse=True)


def test_predict_as_text_and_as_json(done, tmp_path):
    from skimage import data
    from skimage.io import imsave

    folder, record = run_folder(done, "LBP")
    imsave(tmp_path / "a_face.png", data.astronaut())
    imsave(tmp_path / "b_no_face.png", data.coffee())
    (tmp_path / "c_broken.jpg").write_bytes(b"\xff\xd8 no image")
    text = CliRunner().invoke(app, ["predict", str(tmp_path), "--run", str(folder)])
    assert text.exit_code == 1
    assert "face: found" in text.output
    assert "face: not found" in text.output
    assert "c_broken.jpg\n  cannot be read: " in text.output
    assert "without: lbp (no_detection)" in text.output
    images = [str(tmp_path / name) for name in ("b_no_face.png", "a_face.png")]
    done_json = CliRunner().invoke(app, ["predict", *images, "--run", str(folder), "--json"])
    assert done_json.exit_code == 0, done_json.output
    assert [json.loads(line)["path"] for line in done_json.stdout.splitlines()[-2:]] == images
    row = json.loads(done_json.stdout.splitlines()[-1])
    assert set(row["probs"]) == set(record.classes)
    assert row["face"] is True
    assert len(row["action_units"]) == 30


def test_a_run_whose_streams_look_at_no_face_is_predicted_without_a_face_detector(tmp_path):
    network = {"kind": "backbone", "model": "mobilenet_v3_small", "weights": {"kind": "random"}}
    spec = {
        "name": "scenes",
        "dataset": {"kind": "demo", "images": 32, "seed": 3},
        "cache": {"streams": [network]},
        "runs": [{"name": "scenes", "features": {"streams": ["mobilenet_v3_small"]}, "head": {"kind": "linear"}}],
    }
    summary = run_pipeline(parse_spec(PipelineSpec, spec, "scenes.yaml"), options(tmp_path / "out"), say=str)
    paths = ResultPaths(tmp_path / "out")
    image = next(emofuse.open_cache(paths.cache).manifest.root.rglob("*.jpg"))
    run = paths.runs / summary.records[0].digest[:16]
    code = (
        "import sys; from emofuse.cli import app; "
        f"command = ['predict', {str(image)!r}, '--run', {str(run)!r}]; "
        "app([*command, '--json'], standalone_mode=False); app(command, standalone_mode=False); "
        "sys.exit('mediapipe' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    as_json, *as_text = done.stdout.splitlines()
    row = json.loads(as_json)
    assert (row["face"], row["action_units"], row["missing"], row["problem"]) == (None, [], {}, None)
    assert not any("face:" in line for line in as_text)


def test_predict_refuses_features_the_head_was_not_trained_on(done, tmp_path):
    from emofuse.errors import StaleCacheError

    folder, _ = run_folder(done, "LBP")
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    record = json.loads((copy / "run.json").read_text())
    record["streams"]["lbp"]["digest"] = "0" * 64
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(StaleCacheError, match="trained on other 'lbp' features"):
        Predictor(copy)


def test_images_are_found_below_a_folder_and_a_wrong_path_is_told(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.jpg", "b/a.PNG", "b/notes.txt"):
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / "b" / "a.PNG", tmp_path / "z.jpg"]
    with pytest.raises(DatasetError, match="no such image or folder"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image in this folder"):
        find_images(tmp_path / "empty")


def test_predict_lists_a_folder_by_the_rule_of_datasets_and_says_what_is_left_out(tmp_path):
    names = ("a.avif", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "@eaDir/a.png/T.jpg", "b.heic", "pipe/c.jpe")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    told = []
    assert find_images(tmp_path, say=told.append) == [tmp_path / "a.avif", tmp_path / "pipe/c.jpe"]
    assert [line.removeprefix(f"{tmp_path}: ") for line in told] == [
        "pictures of formats that are not decoded, and clips, left out: 1 (1 .heic), first b.heic",
        "left by a system, a network storage or an archive, left out: 1, first @eaDir",
    ]
    os.mkfifo(tmp_path / "fifo.jpg")
    with pytest.raises(DatasetError, match="is neither a file nor a folder"):
        find_images(tmp_path / "fifo.jpg")


def test_a_split_that_the_runs_lack_is_an_error_before_extraction(tmp_path):
    root, out = tmp_path / "faces", tmp_path / "out"
    for split, count in (("train", 8), ("test", 3)):
        for label in ("happy", "sad"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 30), (20 * number, 90, 50)).save(root / split / label / f"{number}.png")

    def spec(**run):
        runs = [{"name": "A", "features": {"streams": ["lbp"]}, "train": {"epochs": 1}, **run}]
        cache = {"streams": [{"kind": "lbp", "without_face": "whole_image"}]}
        data = {"name": "mine", "dataset": {"kind": "folder", "root": str(root)}, "cache": cache, "runs": runs}
        return parse_spec(PipelineSpec, data, "mine.yaml")

    with pytest.raises(TrainingError, match=r"no labelled row has split 'val'.*kind: holdout.*fold: \{count: 5\}"):
        run_pipeline(spec(), options(out), say=lambda _: None)
    assert not out.exists()
    summary = run_pipeline(spec(split={"kind": "holdout", "val": 0.25}), options(out), say=lambda _: None)
    (record,) = summary.records
    assert sum(row["support"] for row in record.metrics["test"]["per_class"]) == 6
    assert run_pipeline(spec(fold={"count": 4}), options(out), say=lambda _: None).trained == 1
    ensemble = run_pipeline(spec(ensemble={"folds": 4}), options(out), say=lambda _: None)
    assert (ensemble.trained, len(ensemble.records[0].heads)) == (1, 4)
