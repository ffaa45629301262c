"""Integrated gradients: they sum to the score, and give what a head that is written out gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from emofuse.analysis.answers import read_tested
from emofuse.analysis.attributions import attribute_streams, names_of
from emofuse.analysis.cached_rows import open_run, rows_of_samples
from emofuse.analysis.facs import facs_name
from emofuse.analysis.gradients import integrated_gradients
from emofuse.errors import ResultsError
from emofuse.heads.members import HeadBatch
from emofuse.specs import RunSpec, parse_spec
from emofuse.streams.action_units import MEASUREMENTS
from emofuse.training.runs import train_runs
from emofuse.training.trained import HeadInputs, ScaledHead, TrainedHead


def open_first(planted, source, name):
    (tested,) = read_tested([source.chosen], source.runs)
    record, places = tested.repeats[0].parts[0]
    rows = rows_of_samples(planted.cache, tested.repeats[0].sample_id[places])
    return open_run(planted.cache, source.runs, record, rows), tested.repeats[0].label[places]


@pytest.mark.parametrize("name", ["network", "ridge", "folds"])
def test_contributions_sum_to_the_score_less_that_of_the_baseline(planted, source_of, name):
    run, label = open_first(planted, source_of(name), name)
    found = integrated_gradients(run.trained, run.inputs, label, steps=200)
    assert np.abs(found.scores).max() > 0.1
    assert found.error < 0.02 * np.abs(found.scores).max()


@pytest.mark.parametrize("kind", ["linear", "gated", "late", "attention", "logistic", "averaged_logistic"])
def test_every_kind_of_head_has_contributions(planted, tmp_path, kind):
    train = {} if "logistic" in kind else {"train": {"epochs": 2, "batch_size": 32}}
    plain = {"name": kind, "features": {"streams": ["a", "b"]}, "head": {"kind": kind}, **train}
    spec = parse_spec(RunSpec, {**plain, "split": {"kind": "official"}}, "test")
    ((record, _),) = train_runs(planted.cache, [spec], tmp_path, device="cpu")
    run = open_run(planted.cache, tmp_path, record, np.arange(20))
    found = integrated_gradients(run.trained, run.inputs, np.zeros(20, np.int64), steps=100)
    assert found.error < 0.02 * max(1.0, np.abs(found.scores).max())
    assert any(np.abs(values).max() > 1e-4 for values in found.values.values())


def test_a_gradient_changes_no_answer_of_the_heads(planted, source_of):
    run, label = open_first(planted, source_of("network"), "network")
    before = run.trained.answers(run.inputs)
    integrated_gradients(run.trained, run.inputs, label, steps=2)
    assert np.array_equal(run.trained.answers(run.inputs), before)


@pytest.mark.slow
def test_contributions_are_those_of_captum(planted, source_of):
    captum = pytest.importorskip("captum.attr")
    run, label = open_first(planted, source_of("network"), "network")
    seen, head = run.inputs[0], run.trained.heads[0].head.eval()
    names = list(seen.features)
    valid = {name: torch.from_numpy(seen.valid[name]).unsqueeze(0) for name in names}

    def score(*features):  # of all steps of the path at once, (steps x n, D)
        repeats = len(features[0]) // len(label)
        masks = {name: mask.repeat(1, repeats) for name, mask in valid.items()}
        batch = HeadBatch({name: each.unsqueeze(0) for name, each in zip(names, features, strict=True)}, masks, {})
        logits = head(batch)[0]
        target = torch.from_numpy(label).repeat(repeats)
        return logits.gather(1, target.unsqueeze(1)).squeeze(1) - logits.mean(dim=1)

    method = captum.IntegratedGradients(score)
    given = tuple(torch.from_numpy(seen.features[name]) for name in names)
    expected = method.attribute(given, n_steps=32, method="riemann_middle")
    found = integrated_gradients(run.trained, run.inputs, label, steps=32)
    for name, each in zip(names, expected, strict=True):
        assert found.values[name] == pytest.approx(each.detach().numpy(), abs=1e-4)


class Squares(nn.Module):
    """Logits (x^2, y) of streams of one value each."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        return torch.cat([batch.features["x"] ** 2, batch.features["y"]], dim=2)


def inputs(**values):
    features = {name: np.array(each, np.float32)[:, None] for name, each in values.items()}
    return HeadInputs(features, {name: np.ones(len(each), bool) for name, each in features.items()}, {})


def test_contributions_are_those_that_are_worked_out_by_hand():
    """The score of class 0 is x^2 - (x^2 + y) / 2 = (x^2 - y) / 2: x contributes x^2 / 2, and y contributes -y / 2."""
    trained = TrainedHead((ScaledHead(Squares(), {}),), None, None)
    found = integrated_gradients(trained, [inputs(x=[3.0, -1.0], y=[2.0, 4.0])], np.array([0, 0]))
    assert found.of_stream("x") == pytest.approx([4.5, 0.5])
    assert found.of_stream("y") == pytest.approx([-1.0, -2.0])
    assert found.error < 1e-5


def test_a_head_without_a_gradient_is_refused():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("logits", torch.zeros(1, 1, 2))

        def forward(self, batch):
            return self.logits.expand(1, batch.features["x"].shape[1], 2)

    trained = TrainedHead((ScaledHead(Constant(), {}),), None, None)
    with pytest.raises(ResultsError, match="heads of class Constant give no gradient"):
        integrated_gradients(trained, [inputs(x=[1.0])], np.array([0]))


def test_a_stream_contributes_to_the_class_that_it_tells(planted, source_of):
    source = source_of("network")
    (tested,) = read_tested([source.chosen], source.runs)
    found = attribute_streams(planted.cache, source.runs, tested)
    streams = list(tested.item.streams)
    assert found.rows == 150
    assert found.totals[0, streams.index("a")] > 3 * abs(found.totals[0, streams.index("noise")])
    assert found.totals[1, streams.index("b")] > 3 * abs(found.totals[1, streams.index("noise")])


def test_values_without_names_are_not_named(planted, source_of):
    source = source_of("network")
    (tested,) = read_tested([source.chosen], source.runs)
    assert names_of(planted.cache, tested, "a") == ()


def test_every_measurement_has_its_action_units():
    assert all("(AU " in facs_name(name) for name, _ in MEASUREMENTS)
    assert facs_name("lip_corner_lift") == "lip_corner_lift (AU 12)"
    assert facs_name("mouthSmileLeft") == "mouthSmileLeft (AU 12)"
    assert facs_name("r1_003") == "r1_003"
