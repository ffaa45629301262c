"""`emofuse check-statistics` from its options to its table."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from emofuse.cache.reader import open_cache
from emofuse.cli.check_statistics import check_statistics
from emofuse.errors import CacheError, ResultsError, SpecError
from emofuse.results import list_runs
from emofuse.specs import FeaturesSpec, RunSpec, TrainSpec
from emofuse.training.runs import train_run

_SPEC = importlib.util.spec_from_file_location("report_conftest", Path(__file__).parents[1] / "report" / "conftest.py")
_RUNS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_RUNS)


@pytest.fixture
def call():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("check-statistics")(check_statistics)

    def call(*arguments):
        return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)

    return call


@pytest.fixture
def make_run(tmp_path):
    return _RUNS.RunMaker(tmp_path / "runs")


def test_saved_repeats_are_tested_and_the_rates_printed(call, make_run):
    for seed in range(4):
        make_run("a", seed=seed, rows=300)
        make_run("b", seed=seed, rows=300)
    done = call(make_run.folder, "--configuration", "a")
    assert done.exit_code == 0
    assert "differ in their training seeds alone (a)." in done.stdout
    assert re.search(r"^McNemar +one run each +6 +\d +0\.\d{3} +\[0\.\d{3}, [01]\.\d{3}\]$", done.stdout, re.MULTILINE)
    assert re.search(r"^bootstrap over images and repeats, accuracy +several runs each +3 ", done.stdout, re.MULTILINE)
    both = call(make_run.folder)
    assert re.search(r"^McNemar +one run each +12 ", both.stdout, re.MULTILINE)


def test_a_rate_above_the_level_is_named(call, make_run):
    for seed in range(12):
        make_run("a", seed=seed, rows=2000, skill=0.2 if seed % 2 else 0.9)
    assert "More often wrong than 5 %: bootstrap over images, accuracy (one run each)" in call(make_run.folder).stdout


def test_too_few_repeats_need_a_cache_to_train_on(call, make_run):
    make_run("a")
    with pytest.raises(ResultsError, match=r"Name the cache to train more: --cache PATH$"):
        call(make_run.folder)


def test_a_configuration_is_trained_with_more_seeds_apart_from_the_other_runs(call, write_cache, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    features = (rng.normal(size=(60, 4)) + labels[:, None]).astype(np.float32)
    streams = {"resnet50": ("backbone", features, np.ones(60, np.uint8))}
    random = {"kind": "random", "name": None, "sha256": None, "seed": 0}
    splits = ["train", "train", "train", "val", "test"] * 12
    path = tmp_path / "features.zarr"
    write_cache(path, ("joy", "fear"), labels, splits, streams, weights={"resnet50": random})
    spec = RunSpec(name="a", features=FeaturesSpec(streams=("resnet50",)), train=TrainSpec(epochs=2))
    train_run(open_cache(path), spec, tmp_path / "runs")
    done = call(tmp_path / "runs", "--cache", path, "--seeds", 4)
    assert "training a with 4 seeds on 1 split" in done.stderr
    assert re.search(r"^McNemar +one run each +6 ", done.stdout, re.MULTILINE)
    assert len(list_runs(tmp_path / "runs")) == 1
    assert len(list_runs(tmp_path / "check-statistics")) == 4


def test_a_pipeline_needs_its_cache_and_a_name_that_it_has(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CacheError, match="there is no cache to train on; build it first: emofuse run demo"):
        call("demo")
    with pytest.raises(SpecError, match="configuration: 'nothing' is not the name of a run"):
        call("demo", "--configuration", "nothing")
