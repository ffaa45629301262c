"""Saved runs of any head and shape, with random weights: an export needs no training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emofuse.heads import load_head_weights, make_head
from emofuse.heads.kernel_ridge import KernelRidgeHead
from emofuse.heads.members import HeadMember
from emofuse.metrics.targets import target_metrics
from emofuse.results import Predictions, RunRecord, write_run
from emofuse.scaling import feature_axis, shape_after
from emofuse.specs import KernelRidgeHeadSpec, RunSpec, parse_spec
from emofuse.training.targets import LINKS

CLASSES = ["anger", "fear", "joy"]


def _random_head(spec, dims, link, seed):
    torch.manual_seed(seed)
    if isinstance(spec, KernelRidgeHeadSpec):
        head = KernelRidgeHead(spec.kernel, {name: shape[0] for name, shape in dims.items()}, 9, len(CLASSES))
        head.coefficients.data.normal_()
        head.bias.data.normal_()
        for support in head.support.values():
            support.features.normal_()
            support.valid.copy_(torch.rand(1, 9) > 0.2)
            support.gamma.fill_(0.1)
    else:
        head = make_head(spec, [HeadMember(tuple(dims), seed=seed)], dims, len(CLASSES), link)
        for name, tensor in head.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("running_mean", "missing", "log_weight", "nothing.weight")):
                tensor.normal_()
    arrays = {name: tensor[0].detach().numpy() for name, tensor in head.state_dict().items()}
    load_head_weights(spec, dims, len(CLASSES), arrays, link)  # they fit
    return arrays


@pytest.fixture
def save_run(tmp_path):
    """Writes a run and gives its folder: `streams` has name -> (kind, stored shape, shape that heads see)."""

    def save(head, streams, *, target="class", heads=1, features=None, fitted=True, name="model", seed=0, pca=None):
        columns = {"kind": target, **({"columns": CLASSES} if target != "class" else {})}
        data = {
            "name": name,
            "features": {"streams": list(streams), **(features or {})},
            "head": head,
            "train": {"seed": seed},
            "target": columns,
            **({"ensemble": {"seeds": list(range(heads))}} if heads > 1 else {}),
        }
        spec = parse_spec(RunSpec, data, "run")
        seen_of = {stream: tuple(seen) for stream, (_, _, seen) in streams.items()}
        dims = {stream: shape_after(seen, feature_axis(seen), pca) if pca else seen for stream, seen in seen_of.items()}
        rng, arrays = np.random.default_rng(seed), {}
        for number in range(heads):
            place = "" if heads == 1 else f"heads.{number}."
            arrays |= {
                f"{place}head.{key}": value
                for key, value in _random_head(spec.head, dims, LINKS[target], seed + number).items()
            }
            for stream, seen in seen_of.items():
                width = seen[feature_axis(seen)]
                start = f"{place}scaling.{stream}"
                arrays[f"{start}.center"] = rng.normal(0, 3, width).astype(np.float32)
                arrays[f"{start}.scale"] = rng.uniform(0.5, 4, width).astype(np.float32)
                arrays[f"{start}.limit"] = np.where(np.arange(width) == 1, 0, 2.5).astype(np.float32)
                if pca:
                    arrays[f"{start}.components"] = rng.normal(size=(pca, width)).astype(np.float32)
                    arrays[f"{start}.offset"] = rng.normal(size=pca).astype(np.float32)
                    arrays[f"{start}.variances"] = np.full(pca, 0.1, np.float32)
            if target == "regression":
                arrays[f"{place}target.center"] = np.float32([1, 2, 3])
                arrays[f"{place}target.scale"] = np.float32([1, 20, 0.5])
        probs = rng.dirichlet(np.ones(3), 12).astype(np.float32)
        labels = np.arange(12) % 3
        truth = labels if target == "class" else (probs > 0.3).astype(np.float32)
        scores = target_metrics(target, truth, probs, CLASSES)
        rows = {"rows": 12, "missing": {stream: {} for stream in streams}}
        described = {"fold": None, "seed": 0, "best_epoch": 1, "history": [], "fitted": dict.fromkeys(streams, fitted)}
        record = RunRecord(
            digest=f"{abs(hash((name, seed))):016x}".ljust(64, "0")[:64],
            name=name,
            spec=spec.model_dump(mode="json"),
            cache_spec={"name": "c", "streams": [{"kind": "hog", "name": "unused"}]},
            classes=CLASSES,
            dataset={"name": "faces", "kind": "folder", "notes": ["A note of the reader."]},
            streams={
                stream: {
                    "kind": kind,
                    "digest": stream * 8,
                    "dim": int(np.prod(stored)),
                    "used_dim": int(np.prod(seen)),
                    **({"used_shape": list(seen)} if len(seen) > 1 else {}),
                    "weights": None,
                    "fitted": fitted,
                }
                for stream, (kind, stored, seen) in streams.items()
            },
            rows=dict.fromkeys(("train", "val", "test"), rows),
            metrics=dict.fromkeys(("train", "val", "test"), scores),
            history=[{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "val_macro_f1": 0.5}],
            best_epoch=1,
            parameters=10,
            versions={"emofuse": "0.1.0"},
            machine={"platform": "x", "device": "cpu"},
            seconds=1.0,
            created="2026-01-01T00:00:00+00:00",
            notes=["A note of training."],
            heads=[described] * heads if heads > 1 else [],
        )
        ids = np.array([f"s{row}" for row in range(12)])
        target_values = None if target == "class" else truth
        label = labels if target == "class" else np.full(12, -1)
        return write_run(tmp_path / "runs", record, Predictions(ids, label, probs, None, target_values), arrays)

    return save
