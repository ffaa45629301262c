"""The head as an ONNX graph: every kind of head, stem, variant and target, against torch by onnxruntime."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from emofuse.errors import ResultsError
from emofuse.onnx_export import check as checks
from emofuse.onnx_export import export_onnx
from emofuse.onnx_export.check import OnnxModel, check_outputs
from emofuse.onnx_export.graph import ModelGraph
from emofuse.predict import find_model
from emofuse.predict.models import load_model
from emofuse.training.trained import load_head

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

VECTORS = {"one": ("custom", (5,), (5,)), "two.half": ("custom", (4,), (4,))}
SEQUENCE = {"clip": ("custom", (6, 4), (6, 4)), "one": ("custom", (5,), (5,))}
MAP = {"map": ("custom", (2, 13, 11), (2, 13, 11))}
MAPS_OVER_TIME = {"film": ("custom", (3, 2, 8, 8), (3, 2, 8, 8))}
SMALL = {"embed_dim": 8, "width": 6, "depth": 1}
HEADS = {
    "concat": {"kind": "concat", **SMALL},
    "deep": {"kind": "concat", **SMALL, "depth": 3},
    "linear": {"kind": "linear"},
    "gated": {"kind": "gated", **SMALL, "gate_dim": 3},
    "late": {"kind": "late", **SMALL},
    "attention": {"kind": "attention", "embed_dim": 8, "attention_heads": 2, "depth": 2, "width": 6},
    "logistic": {"kind": "logistic"},
    "averaged_logistic": {"kind": "averaged_logistic"},
    "rbf": {"kind": "kernel_ridge", "kernel": "rbf"},
    "cosine": {"kind": "kernel_ridge", "kernel": "cosine"},
    "linear kernel": {"kind": "kernel_ridge", "kernel": "linear"},
}


def export(folder, tmp_path, **how):
    return export_onnx(find_model(folder), tmp_path / "model.onnx", **how)


@pytest.mark.parametrize("head", HEADS)
def test_every_kind_of_head_gives_what_torch_gives(save_run, tmp_path, head):
    exported = export(save_run(HEADS[head], VECTORS), tmp_path)
    assert exported.path.is_file()
    assert exported.difference <= checks.HEAD_TOLERANCE
    assert exported.rows == 1 + 2 + 17


@pytest.mark.parametrize("temporal", ["mean", "max", "mean_std", "attention", "lstm", "gru", "transformer"])
def test_sequences_may_be_shorter_than_those_of_the_training(save_run, tmp_path, temporal):
    folder = save_run({"kind": "concat", **SMALL, "temporal": temporal, "stem_width": 4}, SEQUENCE)
    export(folder, tmp_path)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4, 6, 4)).astype(np.float32)
    vector = rng.normal(size=(4, 5)).astype(np.float32)
    there = np.ones((4, 6), np.bool_)
    there[:, 3:] = False
    there[1] = False  # a row without a step
    whole = {"clip": features, "clip.present": np.ones(4, np.bool_), "clip.steps": there}
    rest = {"one": vector, "one.present": np.ones(4, np.bool_)}
    short = {**whole, "clip": features[:, :3], "clip.steps": there[:, :3]}
    written = OnnxModel(tmp_path / "model.onnx")
    outputs = written.outputs({**whole, **rest})
    np.testing.assert_allclose(written.outputs({**short, **rest}), outputs, atol=1e-5)
    status = {name: np.ones(4, np.uint8) for name in ("clip", "one")}
    masks = {"clip": there.astype(np.uint8), "one": None}
    expected = load_head(folder).outputs({"clip": features, "one": vector}, status, masks)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize("spatial", ["mean", "attention", "patches", "cnn"])
@pytest.mark.parametrize("streams", [MAP, MAPS_OVER_TIME], ids=["map", "maps over time"])
def test_maps_pass_their_stems(save_run, tmp_path, spatial, streams):
    head = {"kind": "concat", **SMALL, "spatial": spatial, "temporal": "gru", "stem_width": 4}
    assert export(save_run(head, streams), tmp_path).difference <= checks.HEAD_TOLERANCE


@pytest.mark.parametrize("kind", ["concat", "linear"])
@pytest.mark.parametrize("streams", [MAP, MAPS_OVER_TIME], ids=["map", "maps over time"])
def test_maps_pass_a_cnn_with_batch_norm(save_run, tmp_path, kind, streams):
    sizes = SMALL if kind == "concat" else {}
    head = {"kind": kind, **sizes, "spatial": "cnn", "stem_norm": "batch", "temporal": "mean", "stem_width": 4}
    assert export(save_run(head, streams), tmp_path).difference <= checks.HEAD_TOLERANCE


@pytest.mark.parametrize("head", ["linear", "late", "attention", "gated"])
def test_other_heads_take_sequences(save_run, tmp_path, head):
    folder = save_run({**HEADS[head], "temporal": "attention", "stem_width": 4}, SEQUENCE)
    assert export(folder, tmp_path).difference <= checks.HEAD_TOLERANCE


@pytest.mark.parametrize(
    ("head", "target"),
    [
        *((head, target) for head in ("concat", "late") for target in ("regression", "multilabel", "distribution")),
        ("averaged_logistic", "multilabel"),
        ("linear kernel", "regression"),
    ],
)
def test_outputs_are_probabilities_or_values_in_their_units(save_run, tmp_path, target, head):
    exported = export(save_run(HEADS[head], VECTORS, target=target), tmp_path)
    assert exported.output == ("values" if target == "regression" else "probs")


@pytest.mark.parametrize("bins", [128, 256, 512])
def test_variants_are_part_of_the_graph(save_run, tmp_path, bins):
    streams = {"lbp": ("lbp", (512,), (bins,)), "action_units": ("action_units", (30,), (20,))}
    folder = save_run(HEADS["concat"], streams, features={"lbp_bins": bins, "action_units": 20})
    export(folder, tmp_path)
    inputs = {each.name: each for each in onnx.load(str(tmp_path / "model.onnx")).graph.input}
    assert inputs["lbp"].type.tensor_type.shape.dim[1].dim_value == 512
    assert inputs["action_units"].type.tensor_type.shape.dim[1].dim_value == 30


@pytest.mark.parametrize("streams", [VECTORS, SEQUENCE, MAP], ids=["vectors", "sequence", "map"])
def test_principal_components_are_part_of_the_graph(save_run, tmp_path, streams):
    head = {"kind": "concat", **SMALL, "temporal": "attention", "spatial": "attention", "stem_width": 4}
    assert export(save_run(head, streams, pca=2), tmp_path).difference <= checks.HEAD_TOLERANCE


def test_an_ensemble_is_averaged_in_the_graph(save_run, tmp_path):
    folder = save_run(HEADS["concat"], VECTORS, heads=3)
    export(folder, tmp_path)
    assert len(ModelGraph(load_head(folder)).heads) == 3


def test_several_runs_are_averaged_in_the_graph(save_run, tmp_path):
    for seed in (0, 1):
        folder = save_run(HEADS["concat"], VECTORS, seed=seed)
    model = find_model(folder, ensemble=True)
    exported = export_onnx(model, tmp_path / "model.onnx")
    assert len(load_model(model).heads) == 2
    assert exported.difference <= checks.HEAD_TOLERANCE
    runs = {entry.key: entry.value for entry in onnx.load(str(exported.path)).metadata_props}["runs"]
    assert len(json.loads(runs)) == 2


def test_a_stream_without_a_fit_counts_as_missing(save_run, tmp_path):
    export(save_run(HEADS["concat"], VECTORS, fitted=False), tmp_path)
    written = OnnxModel(tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    present = {"one.present": np.ones(2, np.bool_), "two.half.present": np.ones(2, np.bool_)}
    rows = {"one": rng.normal(size=(2, 5)).astype(np.float32), "two.half": np.zeros((2, 4), np.float32)}
    np.testing.assert_allclose(*written.outputs({**rows, **present}), atol=1e-7)


def test_the_file_says_what_it_is(save_run, tmp_path):
    folder = save_run(HEADS["concat"], VECTORS)
    exported = export(folder, tmp_path)
    written = onnx.load(str(exported.path))
    metadata = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(metadata["classes"]) == ["anger", "fear", "joy"]
    assert set(json.loads(metadata["streams"])) == set(VECTORS)
    assert [each.name for each in written.graph.input] == ["one", "one.present", "two.half", "two.half.present"]
    assert list(exported.inputs) == ["one", "one.present", "two.half", "two.half.present"]
    assert exported.inputs["one"] == "features of stream one (custom) as extracted, float32 batch x 5"


def test_a_file_that_differs_is_refused_and_a_former_one_stays(save_run, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"former")
    original = OnnxModel.outputs
    monkeypatch.setattr(OnnxModel, "outputs", lambda self, arrays: original(self, arrays) + np.float32(1e-3))
    message = (
        r"the ONNX graph differs from the model by 0.001 on generated rows \(allowed: 1e-05\), so no file was written"
    )
    with pytest.raises(ResultsError, match=message):
        export(save_run(HEADS["concat"], VECTORS), tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == b"former"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "runs"]


@pytest.mark.parametrize("wrong", [np.full((2, 3), np.nan, np.float32), np.zeros((2, 2), np.float32)])
def test_outputs_that_are_no_numbers_or_of_another_shape_differ(wrong):
    with pytest.raises(ResultsError, match="the ONNX graph differs from the model"):
        check_outputs("rows", wrong, np.zeros((2, 3), np.float32), 1e-5)


def test_a_head_that_cannot_be_traced_is_an_error(save_run, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no symbolic function for aten::magic")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(
        ResultsError, match=re.escape("cannot be written as ONNX: no symbolic function for aten::magic")
    ):
        export(save_run(HEADS["concat"], VECTORS), tmp_path)


def test_a_file_that_onnxruntime_refuses_is_an_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ResultsError, match="onnxruntime cannot load the ONNX graph, so no file was written: "):
        OnnxModel(tmp_path / "model.onnx")


def test_a_variant_that_is_no_matrix_is_refused(save_run, tmp_path, monkeypatch):
    from emofuse.streams.texture import LbpSpec

    monkeypatch.setattr(LbpSpec, "derive", classmethod(lambda _, stored, choice: np.sqrt(np.abs(stored))[:, :256]))
    folder = save_run(HEADS["concat"], {"lbp": ("lbp", (512,), (256,))})
    with pytest.raises(ResultsError, match="stream 'lbp': what heads see of a stream of kind 'lbp' is no linear map"):
        export(folder, tmp_path)


def test_without_onnx_the_message_names_the_extra(save_run, tmp_path, monkeypatch):
    from emofuse.errors import StreamError

    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(
        StreamError, match=r"ONNX files need onnx, which is not installed: pip install 'emofuse\[onnx\]'"
    ):
        export(save_run(HEADS["concat"], VECTORS), tmp_path)
