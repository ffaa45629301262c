"""Heads with plain operations give what the heads give; the cases follow from the registry, so no kind is forgotten."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

import pytest
import torch

from emofuse.heads.members import HeadBatch
from emofuse.onnx_export.plain import make_plain
from emofuse.specs import head_kinds
from emofuse.specs.heads import HEADS, NetworkHeadSpec
from emofuse.training.trained import load_head

ROWS = 7
SHAPES = {"vector": (5,), "steps": (6, 4), "map": (2, 13, 11), "film": (3, 2, 8, 8)}
SIZES = {"embed_dim": 8, "width": 6, "gate_dim": 3, "attention_heads": 2, "stem_width": 4}
NEEDED = {"stem_norm": {"spatial": "cnn"}}
"""The option without which another one has no effect."""


def cases():
    """Every kind of head with every value of each of its options, and with every depth up to 3 that it may have."""
    for spec in HEADS.declared_in(head_kinds):
        fields = spec.model_fields
        plain = {"kind": fields["kind"].default, **{name: size for name, size in SIZES.items() if name in fields}}
        options = {name: get_args(of.annotation) for name, of in fields.items() if get_origin(of.annotation) is Literal}
        del options["kind"]
        if "depth" in fields:
            options["depth"] = (1, 2) if plain["kind"] == "attention" else (0, 1, 3)
        yield pytest.param(spec, plain, id=plain["kind"])
        for name, values in options.items():
            for value in values:
                yield pytest.param(spec, plain | NEEDED.get(name, {}) | {name: value}, id=f"{plain['kind']}-{value}")


def random_batch(shapes):
    """Rows of which some lack a stream, and sequences of which some lack steps or have none."""
    generator = torch.Generator().manual_seed(0)
    valid = {name: torch.rand(1, ROWS, generator=generator) > 0.3 for name in shapes}
    steps = {
        name: torch.rand(1, ROWS, shape[0], generator=generator) > 0.3
        for name, shape in shapes.items()
        if len(shape) in {2, 4}
    }
    for of_stream in steps.values():
        of_stream[0, 2] = False
    features = {}
    for name, shape in shapes.items():
        there = valid[name].reshape(1, ROWS, *[1] * len(shape))
        if name in steps:
            there = there & steps[name].reshape(1, ROWS, shape[0], *[1] * (len(shape) - 1))
        features[name] = torch.randn(1, ROWS, *shape, generator=generator) * there
    return HeadBatch(features, valid, steps)


@pytest.mark.parametrize(("spec", "head"), list(cases()))
def test_a_head_of_plain_operations_gives_the_same_logits(save_run, spec, head):
    shapes = SHAPES if issubclass(spec, NetworkHeadSpec) else {"vector": (5,), "other": (3,)}
    folder = save_run(head, {name: ("custom", shape, shape) for name, shape in shapes.items()})
    trained = load_head(folder).heads[0].head
    batch = random_batch(shapes)
    with torch.inference_mode():
        torch.testing.assert_close(make_plain(trained)(batch), trained(batch), rtol=1e-5, atol=1e-5)
