"""`emofuse sweep` from a YAML file, as a user calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from emofuse.cli import app, main
from emofuse.errors import CacheError, ResultsError, SpecError
from emofuse.sweep.rows import ResultsFolder

SWEEP = {
    "title": "A small question",
    "base": {"head": {"embed_dim": 4, "width": 4, "depth": 1}, "train": {"epochs": 3, "batch_size": 16}},
    "factors": {"streams": "all", "learning_rate": [1.0e-3, 1.0e-2], "batch_size": [16, 32]},
    "folds": 2,
    "references": "off",
}
PIPELINE = {
    "dataset": {"kind": "demo", "images": 64, "seed": 3},
    "cache": {"block_rows": 16, "streams": [{"kind": "lbp"}]},
    "runs": [{"name": "LBP", "features": {"streams": ["lbp"]}}],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    features = rng.normal(size=(120, 3)).astype(np.float32) + labels[:, None]
    present = np.ones(120, np.uint8)
    streams = {name: ("backbone", features[:, : index + 1], present) for index, name in enumerate(("one", "two"))}
    splits = rng.choice(["train", "val", "test"], 120).tolist()
    return write_cache(tmp_path_factory.mktemp("cache") / "features.zarr", ("calm", "glad"), labels, splits, streams)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "question.yaml"
    path.write_text(yaml.safe_dump(SWEEP))
    return path


def invoke(*arguments):
    return CliRunner().invoke(app, ["sweep", *map(str, arguments), "--device", "cpu"])


@pytest.mark.usefixtures("blank_figures")
def test_a_sweep_prints_its_steps_and_the_table_of_the_choice(cache, sweep_file, tmp_path):
    done = invoke(sweep_file, "--cache", cache)
    assert done.exit_code == 0, (done.output, done.exception)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("search: 12 configurations, 24 heads trained in ")
    assert lines[1] == "final runs: 3, scored on the test rows of the split"
    assert lines[2].startswith("final run 1/3: ")
    notes = [line for line in lines if line.startswith("note: ")]
    assert lines[5 : 5 + len(notes)] == notes
    assert lines[5 + len(notes)] == "report: written, emofuse-runs/question/report/index.html"
    assert lines[7 + len(notes)].startswith("| Configuration")
    assert "24 of 24 runs" in done.stderr
    assert len(ResultsFolder(tmp_path / "emofuse-runs" / "question").rows()) == 24

    again = invoke(sweep_file, "--cache", cache)
    assert again.stdout.startswith(
        "search: 12 configurations, 24 heads, all trained before or elsewhere: nothing to do\n"
    )
    assert again.stdout.splitlines()[6 + len(notes) :] == lines[6 + len(notes) :]
    page = tmp_path / "emofuse-runs" / "question" / "report" / "index.html"
    left_out = "Pictures were left out when this page was made."
    assert left_out not in page.read_text(encoding="utf-8")
    assert "report: written" in invoke(sweep_file, "--cache", cache, "--no-images").stdout
    assert left_out in page.read_text(encoding="utf-8")


def test_a_sweep_with_outer_folds_is_repeated_inside_them(cache, tmp_path):
    nested = {**SWEEP, "test": {"folds": 2}, "final": {"best_of": []}, "references": "off"}
    nested["factors"] = {"streams": "all", "learning_rate": [1.0e-2]}
    (tmp_path / "nested.yaml").write_text(yaml.safe_dump(nested))
    planned = invoke("nested.yaml", "--cache", cache, "--dry-run")
    assert "All of this is repeated inside each of 2 outer folds. The first of them:" in planned.stdout
    done = invoke("nested.yaml", "--cache", cache)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "test: every row is tested once in 2 outer folds; the dataset's own split plays no part" in done.stdout
    assert "outer fold 2 of 2" in done.stdout
    assert "| Chosen " in done.stdout
    assert "Accuracy, pooled" in done.stdout


def test_a_plan_is_printed_and_nothing_is_trained(cache, sweep_file, tmp_path):
    done = invoke(sweep_file, "--cache", cache, "--dry-run", "--memory-gb", "1")
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stdout.startswith(
        "A small question: 12 configurations, 24 heads, then at most 3 final runs (3 chosen, "
    )
    assert done.stdout.splitlines()[1] == "0 of 24 heads trained before"
    assert "24 heads in 2 structures" in done.stdout
    assert not (tmp_path / "emofuse-runs").exists()


def test_without_a_cache_that_of_the_pipeline_is_built_and_used(tmp_path, face):
    pipeline = {**PIPELINE, "cache": {**PIPELINE["cache"], "face": face}}
    (tmp_path / "pictures.yaml").write_text(yaml.safe_dump(pipeline))
    (tmp_path / "question.yaml").write_text(yaml.safe_dump({**SWEEP, "pipeline": "pictures.yaml"}))
    refused = invoke("question.yaml", "--dry-run")
    assert isinstance(refused.exception, CacheError)
    assert "a plan needs the cache, which does not exist yet" in str(refused.exception)

    done = invoke("question.yaml", "--workers", "0")
    assert done.exit_code == 0, (done.output, done.exception)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("dataset: 64 rows")
    assert lines[1].startswith("cache: 64 rows computed")
    assert lines[2].startswith("cache: a face in ")
    assert lines[3].startswith("search: 4 configurations, 8 heads trained in ")
    assert (tmp_path / "emofuse-runs" / "pictures" / "features.zarr").is_dir()

    again = invoke("question.yaml", "--workers", "0")
    assert "cache: complete, nothing to do" in again.stdout
    assert "all trained before or elsewhere: nothing to do" in again.stdout
    assert "8 of 8 heads trained before, nothing to train" in invoke("question.yaml", "--dry-run").stdout


def test_a_dataset_of_links_with_bad_rows_is_swept_if_the_options_say_so(tmp_path):
    for number in range(24):
        picture = tmp_path / f"elsewhere/{number}.png"
        picture.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (10 * number, 20, 200)).save(picture)
        link = tmp_path / "mine" / ("calm", "glad")[number % 2] / f"{number}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(picture)
    (tmp_path / "mine/calm/lost.png").symlink_to(tmp_path / "nowhere.png")
    pipeline = {
        "dataset": {"kind": "folder", "split": {"kind": "stratified", "train": 0.6, "val": 0.2, "test": 0.2}},
        "cache": {"block_rows": 16, "streams": [{"kind": "lbp", "without_face": "whole_image"}]},
        "runs": PIPELINE["runs"],
    }
    (tmp_path / "pictures.yaml").write_text(yaml.safe_dump(pipeline))
    (tmp_path / "question.yaml").write_text(yaml.safe_dump({**SWEEP, "pipeline": "pictures.yaml"}))
    options = ("question.yaml", "--data", tmp_path / "mine", "--workers", "0")
    assert "path leaves the root: 25" in str(invoke(*options).exception)
    assert "missing file: 1" in str(invoke(*options, "--follow-links").exception)
    done = invoke(*options, "--follow-links", "--on-bad-rows", "keep")
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stdout.startswith("dataset: 25 rows, 2 labels")


def test_faults_are_told(cache, sweep_file, tmp_path):
    nowhere = invoke(sweep_file)
    assert isinstance(nowhere.exception, SpecError)
    assert "it names no pipeline with a cache; name a cache with --cache" in str(nowhere.exception)
    both = invoke(sweep_file, "--cache", cache, "--data", tmp_path)
    assert both.exit_code == 2
    assert "a cache needs no dataset" in both.stderr
    for option in (("--follow-links",), ("--on-bad-rows", "keep")):
        assert "a cache needs no dataset" in invoke(sweep_file, "--cache", cache, *option).stderr
    assert isinstance(invoke("all_subset").exception, SpecError)
    assert "did you mean 'all_subsets'?" in str(invoke("all_subset").exception)


@pytest.mark.parametrize("command", [["sweep", "question.yaml"], ["run", "pictures.yaml"]])
def test_a_folder_that_cannot_be_is_told_before_anything_is_done(sweep_file, tmp_path, monkeypatch, command):
    (tmp_path / "pictures.yaml").write_text(yaml.safe_dump(PIPELINE))
    sweep_file.write_text(yaml.safe_dump({**SWEEP, "pipeline": "pictures.yaml"}))
    (tmp_path / "taken").write_text("mine")
    before = sorted(tmp_path.iterdir())
    for out in ("taken", "taken/below/it"):
        done = CliRunner().invoke(app, [*command, "--out", out])
        assert isinstance(done.exception, ResultsError)
        assert str(done.exception) == (
            f"{out}: results cannot be written there, {tmp_path / 'taken'} is a file. Name another folder with --out"
        )
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    done = CliRunner().invoke(app, [*command, "--out", "new/folder"])
    assert str(done.exception) == (
        f"new/folder: results cannot be written there, {tmp_path} is read-only. Name another with --out"
    )
    assert sorted(tmp_path.iterdir()) == before


def test_what_the_system_refuses_is_one_line(cache, sweep_file, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(28, "No space left on device", "rows/1.jsonl")

    monkeypatch.setattr(ResultsFolder, "write", refuse)
    monkeypatch.setattr("sys.argv", ["emofuse", "sweep", str(sweep_file), "--cache", str(cache), "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "OSError: rows/1.jsonl: the disk is full. Free some space and run the same command again: finished work is kept"
    )
    monkeypatch.setenv("EMOFUSE_DEBUG", "1")
    with pytest.raises(OSError, match="No space left"):
        main()


def test_ctrl_c_leaves_quietly_and_the_same_command_goes_on(cache, tmp_path):
    long = {**SWEEP, "base": {**SWEEP["base"], "train": {"epochs": 4000, "batch_size": 16}}}
    (tmp_path / "question.yaml").write_text(yaml.safe_dump(long))
    command = [sys.executable, "-c", "from emofuse.cli import main; main()", "sweep", "question.yaml"]
    process = subprocess.Popen(
        [*command, "--cache", str(cache), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    claims = tmp_path / "emofuse-runs" / "question" / "claims"
    end = time.monotonic() + 600
    while not list(claims.glob("*.json")):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == ("Interrupted. Finished work is kept; the same command continues from there.")
    assert list(claims.glob("*.json")) == []


@pytest.mark.parametrize("told_by", ["option", "sweep", "pipeline"])
def test_a_sweep_shows_no_images_where_the_call_its_file_or_its_pipeline_says_so(tmp_path, monkeypatch, told_by):
    """Only the options are looked at: the tests of pipelines and of stamps look at pages."""
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**PIPELINE, "report": {"images": told_by != "pipeline"}}))
    question = {**SWEEP, "pipeline": str(tmp_path / "small.yaml"), "report": {"images": told_by != "sweep"}}
    (tmp_path / "question.yaml").write_text(yaml.safe_dump(question))
    shown = []

    def stop(_cache, spec, _folder, options, **_):
        shown.append(options.shows_images(spec))
        raise ResultsError("enough")

    monkeypatch.setattr("emofuse.cli.sweep._build", lambda *_, **__: None)
    monkeypatch.setattr("emofuse.sweep.run.run_sweep", stop)
    invoke(tmp_path / "question.yaml", *(["--no-images"] if told_by == "option" else []))
    invoke(tmp_path / "question.yaml", "--images")
    assert shown == [False, True]
