"""Counts of heads against formulas, and the timing of their epochs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from emofuse.errors import TrainingError
from emofuse.profile.counting import count_flops
from emofuse.profile.head import HeadJob, count_head, count_training, measure_head
from emofuse.profile.timing import Repeats
from emofuse.specs import RunSpec, TrainSpec, parse_spec
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


STEPS, DIM, WIDTH, KERNELS = 5, 4, 8, (1, 3)
CHANNELS, HEIGHT, WIDE = 3, 7, 6
SHAPES = {"sequence": (STEPS, DIM), "map": (CHANNELS, HEIGHT, WIDE), "maps": (STEPS, CHANNELS, HEIGHT, WIDE)}
TEMPORAL = ("mean", "max", "mean_std", "attention", "lstm", "gru", "transformer")
SPATIAL = ("mean", "attention", "patches", "cnn")
STEMS = [
    *[("sequence", temporal, "mean") for temporal in TEMPORAL],
    *[("map", "mean", spatial) for spatial in SPATIAL],
    *[("maps", temporal, spatial) for temporal, spatial in (("lstm", "cnn"), ("attention", "patches"))],
]


def with_stem(temporal, spatial, kind="linear"):
    sizes = {"stem_width": WIDTH, "patch_kernels": list(KERNELS)}
    return run_of(head={"kind": kind, "temporal": temporal, "spatial": spatial, **sizes})


def temporal_products(temporal, dim) -> tuple[int, int]:
    """Multiplications of a row in the matrix products of a temporal stem, and the width of its vector."""
    tokens = STEPS + 1
    match temporal:
        case "attention":
            return STEPS * (dim * WIDTH + WIDTH + dim), dim
        case "lstm" | "gru":
            gates = 4 if temporal == "lstm" else 3
            return STEPS * gates * (dim * WIDTH + WIDTH * WIDTH), WIDTH
        case "transformer":
            hidden = 2 * WIDTH
            first = tokens * (4 * WIDTH * WIDTH + 2 * tokens * WIDTH + 2 * WIDTH * hidden)
            asking = 2 * WIDTH * WIDTH + 2 * tokens * WIDTH * WIDTH + 2 * tokens * WIDTH + 2 * WIDTH * hidden
            return STEPS * dim * WIDTH + first + asking, WIDTH
        case _:
            return 0, 2 * dim if temporal == "mean_std" else dim


def spatial_products(spatial) -> tuple[int, int]:
    """The same of a spatial stem, for one map."""
    positions = HEIGHT * WIDE
    match spatial:
        case "attention":
            return positions * (CHANNELS * WIDTH + WIDTH + CHANNELS), CHANNELS
        case "patches":
            wide = WIDTH * len(KERNELS)
            convolutions = sum(positions * CHANNELS * WIDTH * kernel**2 for kernel in KERNELS)
            return convolutions + 2 * wide * (wide // 4), wide
        case "cnn":
            sides = [(7, 6), (3, 3), (1, 1)]  # each pooled by two
            widths = [CHANNELS, WIDTH // 2, WIDTH, 2 * WIDTH]
            layers = [h * w * 9 * widths[i] * widths[i + 1] for i, (h, w) in enumerate(sides)]
            return sum(layers), 2 * WIDTH
        case _:
            return 0, CHANNELS


@pytest.mark.parametrize(("kind", "temporal", "spatial"), STEMS)
def test_the_flops_of_stems_are_two_a_multiplication_of_their_formulas(kind, temporal, spatial):
    maps, dim = (0, DIM) if kind == "sequence" else spatial_products(spatial)
    steps, dim = (0, dim) if kind == "map" else temporal_products(temporal, dim)
    expected = (STEPS if kind == "maps" else 1) * maps + steps + dim * CLASSES
    cost = count_head(with_stem(temporal, spatial), {"s": SHAPES[kind]}, CLASSES)
    assert cost.flops == 2 * expected


def plain_head(kind, temporal, spatial) -> nn.Module:
    """The same single head of torch's own layers, which the counter sees as everybody else's."""
    match kind, temporal, spatial:
        case "sequence", "lstm" | "gru", _:
            return PlainRecurrent(nn.LSTM if temporal == "lstm" else nn.GRU)
        case "map", _, "cnn":
            layers: list[nn.Module] = []
            for wide_in, wide_out in ((CHANNELS, WIDTH // 2), (WIDTH // 2, WIDTH), (WIDTH, 2 * WIDTH)):
                layers += [nn.Conv2d(wide_in, wide_out, 3, padding="same"), nn.ReLU()]
                layers += [nn.MaxPool2d(2)] if wide_out < 2 * WIDTH else []
            return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * WIDTH, CLASSES))
    raise AssertionError


class PlainRecurrent(nn.Module):
    def __init__(self, layer: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.layer, self.last = layer(DIM, WIDTH, batch_first=True), nn.Linear(WIDTH, CLASSES)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(rows)[0][:, -1])


@pytest.mark.parametrize(
    ("kind", "temporal", "spatial"), [("sequence", "lstm", ""), ("sequence", "gru", ""), ("map", "", "cnn")]
)
def test_stems_are_counted_like_the_same_layers_of_torch(kind, temporal, spatial):
    run, dims = with_stem(temporal or "mean", spatial or "mean"), {"s": SHAPES[kind]}
    plain = plain_head(kind, temporal, spatial)
    assert count_head(run, dims, CLASSES).flops == count_flops(lambda: plain(torch.randn(1, *SHAPES[kind])))
    rows = run.train.batch_size
    whole = count_flops(
        lambda: torch.autograd.grad(plain(torch.randn(rows, *SHAPES[kind])).sum(), list(plain.parameters()))
    )
    # A state of zeros and steps that nothing needs a gradient of are left out by one and not by the other.
    assert count_training(run, dims, CLASSES) == pytest.approx(whole / rows, rel=0.06)


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_is_counted_with_a_stem_before_it(kind):
    dims = {"s": SHAPES["sequence"], "lbp": 60}
    changes = {**HEADS[kind], "temporal": "lstm", "stem_width": WIDTH}
    vectors = count_head(run_of(head=HEADS[kind]), {"s": WIDTH, "lbp": 60}, CLASSES)
    found = count_head(run_of(head=changes), dims, CLASSES)
    stem, _ = temporal_products("lstm", DIM)
    assert found.flops == vectors.flops + 2 * stem
    assert found.parameters == vectors.parameters + 4 * WIDTH * (DIM + WIDTH + 2)


@pytest.mark.parametrize(("kind", "temporal", "spatial"), [("sequence", "gru", "mean"), ("maps", "lstm", "cnn")])
def test_a_head_with_a_stem_is_timed_and_trained(kind, temporal, spatial):
    run = with_stem(temporal, spatial).model_copy(update={"train": TrainSpec(batch_size=16)})
    found = measure_head(job(run, dims={"s": SHAPES[kind], "lbp": 60}))
    assert found.epoch.repeats == 3
    assert found.table_bytes == 4 * 90 * (math.prod(SHAPES[kind]) + 60)
    assert all(timing.median_ms > 0 for timing in found.latency)


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


@pytest.mark.parametrize("kind", ["logistic", "averaged_logistic", "kernel_ridge"])
def test_a_head_that_is_solved_is_timed_by_its_whole_solution(kind):
    head = {"kind": "kernel_ridge", "landmarks": 70} if kind == "kernel_ridge" else {"kind": kind}
    found = measure_head(job(run_of(head=head)))
    assert (found.epoch.batch_size, found.epoch.train_rows, found.epoch.repeats) == (70, 70, 3)
    assert found.train_flops_per_row is None
    kernels = 70 * (sum(DIMS.values()) + CLASSES)
    assert found.cost.flops == 2 * (kernels if kind == "kernel_ridge" else sum(DIMS.values()) * CLASSES)


@pytest.mark.parametrize("ensemble", [{"folds": 3}, {"seeds": [0, 1, 2]}], ids=["folds", "seeds"])
def test_the_cost_of_an_ensemble_is_that_of_all_its_heads(ensemble):
    plain = run_of(head=HEADS["concat"], train={"batch_size": 16})
    run = parse_spec(RunSpec, {**plain.model_dump(), "ensemble": ensemble}, "test")
    one, three = count_head(plain, DIMS, CLASSES), count_head(run, DIMS, CLASSES)
    assert (three.parameters, three.flops) == (3 * one.parameters, 3 * one.flops)
    assert count_training(run, DIMS, CLASSES) == 3 * count_training(plain, DIMS, CLASSES)
    found = measure_head(job(run))
    assert (found.cost, found.epoch.repeats) == (three, 3)
    assert found.epoch.train_rows == (60 if "folds" in ensemble else 70)


@pytest.mark.parametrize("kind", ["distribution", "regression", "multilabel"])
@pytest.mark.parametrize("head", ["late", "kernel_ridge"])
def test_a_head_of_any_target_is_timed_on_synthetic_rows(kind, head):
    target = {"kind": kind, "columns": list("abcde")}
    run = run_of(head=HEADS.get(head, head), train={"batch_size": 16}, target=target)
    assert measure_head(job(run)).epoch.median_s > 0
