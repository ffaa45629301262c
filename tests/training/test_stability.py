"""Rounding decides nothing: the shipped configurations end alike alone and in their group, in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emofuse.cache.reader import open_cache
from emofuse.heads.arithmetic import multiplies_by_onednn
from emofuse.pipeline import expand_runs
from emofuse.specs import StratifiedSplit, read_pipeline_spec, read_sweep_spec
from emofuse.training.data import TrainingData
from emofuse.training.machine import Machine
from emofuse.training.planning import plan_runs
from emofuse.training.scoring import score_together
from emofuse.training.together import train_together
from emofuse.training.trained_runs import TrainedRun

CLASSES = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
DIMS = {"lbp": 512, "landmarks": 1404, "action_units": 30, "objects": 30}
CPU = torch.device("cpu")


@pytest.fixture(params=["demo, MKL", "faces, MKL", "demo, as installed"])
def case(request, monkeypatch):
    """A pipeline, and how far probabilities may be apart: sums depend on the shape of products, in oneDNN the most."""
    name, _, products = request.param.partition(", ")
    if products == "MKL":
        monkeypatch.setattr("emofuse.heads.arithmetic.multiplies_by_onednn", lambda: False)
    return name, 1e-2 if multiplies_by_onednn() and products != "MKL" else 1e-3


@pytest.fixture
def pipeline(case):
    return read_pipeline_spec(case[0])


@pytest.fixture
def cache(pipeline, tmp_path, write_cache):
    """Every stream of the pipeline tells a little of eight labels; a tenth of the rows has no face."""
    rng = np.random.default_rng(0)
    rows = 240
    labels = rng.integers(0, len(CLASSES), rows)
    streams = {}
    for stream in pipeline.cache.streams:
        dim = DIMS.get(stream.kind, 96)
        hints = rng.normal(size=(len(CLASSES), dim))[labels] * 1.5 / dim**0.5
        status = np.where(rng.random(rows) < 0.1 * (stream.kind in DIMS), 2, 1).astype(np.uint8)
        features = (
            np.abs(hints + rng.normal(size=(rows, dim)))
            if stream.kind == "lbp"
            else hints + rng.normal(size=(rows, dim))
        )
        streams[stream.name] = (stream.kind, features.astype(np.float32), status)
    return open_cache(write_cache(tmp_path / "features.zarr", CLASSES, labels, [""] * rows, streams))


def test_every_configuration_ends_with_the_same_epoch_and_answers_alone_and_in_its_group(case, pipeline, cache):
    runs = {run.name: run for run in expand_runs(pipeline) if run.train.seed == 0}
    specs = [
        head.model_copy(update={"split": StratifiedSplit(), "train": head.train.model_copy(update={"select": "loss"})})
        for run in runs.values()
        for head in run.heads()
    ]
    assert len(specs) >= 5
    data, machine = TrainingData.of(cache, StratifiedSplit()), Machine.of(CPU)
    groups = plan_runs(data, specs, machine=machine).groups
    assert max(len(group.members) for group in groups) >= 2
    for group in groups:
        members = [specs[index] for index in group.members]
        together = train_together(data, members, machine)
        alone = [each for member in members for each in train_together(data, [member], machine)]
        for ours, theirs in zip(together, alone, strict=True):
            assert ours.result.best_epoch == theirs.result.best_epoch, ours.spec.name
        scored = [
            list(
                score_together(
                    cache, data, [TrainedRun(each.spec, (each,)) for each in ended], [""] * len(ended), machine
                )
            )
            for ended in (together, alone)
        ]
        for ours, theirs in zip(*scored, strict=True):
            probs = ours.predictions.probs, theirs.predictions.probs
            assert np.array_equal(*(each.argmax(1) for each in probs)), ours.record.name
            np.testing.assert_allclose(*probs, atol=case[1])


@pytest.mark.parametrize("name", ["emoset118k", "demo"])
def test_the_paper_s_pipelines_choose_epochs_as_the_paper_does(name):
    assert {run.train.select for run in read_pipeline_spec(name).runs} == {"macro_f1"}


@pytest.mark.parametrize("name", ["paper_grid", "all_subsets"])
def test_the_searches_of_the_paper_s_streams_choose_epochs_as_the_paper_does(name):
    assert read_sweep_spec(name).base.train.select == "macro_f1"
