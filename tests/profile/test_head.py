"""Counts of heads against formulas, and the timing of their epochs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emofuse.errors import TrainingError
from emofuse.profile.head import HeadJob, count_head, count_training, measure_head
from emofuse.profile.timing import Repeats
from emofuse.specs import RunSpec, parse_spec
from emofuse.training.costs import head_cost
from emofuse.training.machine import Machine

DIMS = {"lbp": 60, "resnet50": 90}
CLASSES = 5
QUICK = Repeats(most=3, least=2, seconds=0.1, warm_up=1)


def run_of(**changes) -> RunSpec:
    data = {"name": "small", "features": {"streams": list(DIMS)}, **changes}
    return parse_spec(RunSpec, data, "test")


def products(kind) -> int:
    """Multiplications of a row in every matrix product of the head below."""
    embed, width = 16, 24
    projections = sum(DIMS.values()) * embed
    match kind:
        case "linear":
            return sum(DIMS.values()) * CLASSES
        case "concat":
            return projections + 2 * embed * width + width * width + width * CLASSES
        case "gated":
            gates = 2 * embed * 8 + 2 * 8
            return projections + gates + 2 * embed * width + width * width + width * CLASSES
        case "late":
            return projections + 2 * (embed * width + width * width + width * CLASSES)
        case _:  # one layer, which asks with one token of three
            tokens = 3
            attention = embed * embed + 2 * tokens * embed * embed + 2 * tokens * embed + embed * embed
            return projections + attention + 2 * embed * width + embed * CLASSES


HEADS = {
    "linear": {"kind": "linear"},
    "concat": {"kind": "concat", "embed_dim": 16, "depth": 2, "width": 24},
    "gated": {"kind": "gated", "embed_dim": 16, "gate_dim": 8, "depth": 2, "width": 24},
    "late": {"kind": "late", "embed_dim": 16, "depth": 2, "width": 24},
    "attention": {"kind": "attention", "embed_dim": 16, "depth": 1, "attention_heads": 2, "width": 24},
}


@pytest.mark.parametrize("kind", HEADS)
def test_the_flops_of_a_head_are_two_a_multiplication_of_its_formula(kind):
    assert count_head(run_of(head=HEADS[kind]), DIMS, CLASSES).flops == 2 * products(kind)


def test_the_parameters_and_bytes_of_the_paper_s_head():
    cost = count_head(run_of(), DIMS, CLASSES)
    embeddings = sum(dim * 512 + 2 * 512 + 512 for dim in DIMS.values())  # projection, norm, missing
    layers = 2 * 512 * 512 + 512 + 512 * 512 + 512 + 512 * CLASSES + CLASSES
    assert cost.parameters == embeddings + layers
    assert cost.model_bytes == 4 * (cost.parameters + 2 * 2 * 512)  # running mean and variance of two norms


@pytest.mark.parametrize("kind", HEADS)
def test_training_takes_what_the_plan_of_a_sweep_reckons(kind):
    """But for sums of a norm, which may be done as products: few beside those of wide features."""
    run, dims = run_of(head=HEADS[kind]), {"lbp": 600, "resnet50": 900}
    planned = head_cost(run.head, tuple(dims.items()), CLASSES, 64, Machine(torch.device("cpu")))
    assert count_training(run, dims, CLASSES) == pytest.approx(planned.flops_per_row, rel=0.01)


def test_training_is_three_times_the_forward_pass_less_the_gradient_of_features():
    run, dims = run_of(head=HEADS["concat"]), {"lbp": 600, "resnet50": 900}
    forward = count_head(run, dims, CLASSES).flops
    expected = 3 * forward - 2 * sum(dims.values()) * 16
    assert count_training(run, dims, CLASSES) == pytest.approx(expected, rel=0.01)


def job(run, **changes) -> HeadJob:
    fields = {"run": run, "dims": DIMS, "classes": CLASSES, "cache": None, "rows": 70, "batches": (1, 8)}
    return HeadJob(**{**fields, "repeats": QUICK, "device": "cpu", **changes})


def test_a_head_is_timed_for_each_batch_and_trained_on_as_many_rows_as_asked_for():
    found = measure_head(job(run_of(head=HEADS["concat"], train={"batch_size": 16, "patience": 1, "epochs": 2})))
    assert [timing.batch for timing in found.latency] == [1, 8]
    for timing in found.latency:
        assert 0 < timing.median_ms <= timing.p95_ms
        assert 2 <= timing.repeats <= 3
    epoch = found.epoch
    assert (epoch.source, epoch.train_rows, epoch.val_rows, epoch.batch_size) == ("synthetic", 70, 20, 16)
    assert 0 < epoch.median_s <= epoch.p95_s
    assert epoch.repeats == 3  # however few epochs the run asks for
    assert found.table_bytes == 4 * 90 * sum(DIMS.values())
    assert 0 < found.start.rss_bytes <= found.inference.rss_bytes <= found.training.rss_bytes
    assert found.training.cuda_bytes is None


def test_on_a_cache_its_own_training_rows_make_an_epoch(tmp_path, write_cache):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 60)
    status = np.ones(60, np.uint8)
    streams = {
        name: (kind, rng.normal(size=(60, dim)).astype(np.float32), status)
        for name, kind, dim in (("lbp", "lbp", 512), ("resnet50", "backbone", 90))
    }
    splits = ["train", "train", "train", "val", "test"] * 12
    names = tuple(f"label{number}" for number in range(CLASSES))
    path = write_cache(tmp_path / "features.zarr", names, labels, splits, streams)
    found = measure_head(job(run_of(head=HEADS["concat"]), dims={"lbp": 256, "resnet50": 90}, cache=path))
    assert (found.epoch.source, found.epoch.train_rows, found.epoch.val_rows) == (f"cache {path}", 36, 12)
    assert found.table_bytes == 4 * 60 * (256 + 90)


def test_a_training_that_diverges_at_once_cannot_be_timed():
    run = run_of(head=HEADS["concat"], train={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"the training diverged in epoch \d with learning_rate 1e\+30, so that no"):
        measure_head(job(run))
