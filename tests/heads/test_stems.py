"""Stems: every member equals plain PyTorch layers on its own rows and steps, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from emofuse.errors import TrainingError
from emofuse.heads import make_head
from emofuse.heads.dropout import Noise
from emofuse.heads.members import HeadBatch, HeadMember, Members, owners, shrink
from emofuse.heads.stems import Stem, StemChoice
from emofuse.scaling import Scaling
from emofuse.specs import (
    AttentionHeadSpec,
    ConcatHeadSpec,
    GatedHeadSpec,
    KernelRidgeHeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
    RunSpec,
    TrainSpec,
    parse_spec,
)
from emofuse.training.engine import train_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member

GROUP = [
    HeadMember(("s",), seed=1, fold=0),
    HeadMember(("s", "v"), seed=2, fold=0),
    HeadMember(("v",), seed=1, fold=1),
    HeadMember(("s",), seed=1, fold=1),
]
ROWS, STEPS, DIM = 6, 5, 4
WIDTH, KERNELS = 8, (1, 3)
SHAPES = {"sequence": (STEPS, DIM), "map": (3, 7, 6), "maps": (STEPS, 2, 5, 5)}
TEMPORAL = ("mean", "max", "mean_std", "attention", "lstm", "gru", "transformer")
SPATIAL = ("mean", "attention", "patches", "cnn")
CASES = [
    *[("sequence", temporal, "mean") for temporal in TEMPORAL],
    *[("map", "mean", spatial) for spatial in SPATIAL],
    *[("maps", temporal, spatial) for temporal in TEMPORAL for spatial in ("mean", "cnn")],
    *[("maps", "lstm", spatial) for spatial in ("attention", "patches")],
]
every_stem = pytest.mark.parametrize(("kind", "temporal", "spatial"), CASES)


def random_input(shape, seed=0, dtype=torch.float64):
    """Features (F, B, *shape) and steps (F, B, T); the first row has no step, the second all of them."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, ROWS, *shape, generator=generator, dtype=dtype)
    if len(shape) not in {2, 4}:
        return features, None
    steps = torch.rand(2, ROWS, STEPS, generator=generator) > 0.4
    steps[:, 0], steps[:, 1] = False, True
    return features, steps


def make_stem_of(shape, choice):
    """A stem with initial weights in float64."""
    members = Members(GROUP, "s")
    stem = Stem(members, "s", shape, choice).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in stem.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.3)
    return stem, members


# ------------------------------------------------------------------------------------------------------ the oracle


def load(layer, **tensors):
    layer = layer.double()
    with torch.no_grad():
        for name, tensor in tensors.items():
            getattr(layer, name).copy_(tensor)
    return layer


def linear_of(own, member):
    weight = own.weight[member]
    return load(nn.Linear(weight.shape[1], weight.shape[0]), weight=weight, bias=own.bias[member])


def conv_of(own, member):
    out, channels, kernel, _ = own.weight[member].shape
    conv = nn.Conv2d(channels, out, kernel, padding="same")
    return load(conv, weight=own.weight[member], bias=own.bias[member])


def pooled_by_attention(own, member, tokens):
    scores = linear_of(own.score, member)(torch.tanh(linear_of(own.hidden, member)(tokens)))
    return (torch.softmax(scores, dim=0) * tokens).sum(0)


def plain_spatial(part, choice, member, image):
    """One vector of one map (C, H, W)."""
    match choice.spatial:
        case "mean":
            return image.mean((1, 2))
        case "attention":
            return pooled_by_attention(part.pool, member, image.flatten(1).T)
        case "patches":
            patches = torch.cat([torch.relu(conv_of(conv, member)(image)) for conv in part.convolutions])
            attention = torch.relu(linear_of(part.squeeze, member)(patches.mean((1, 2))))
            attention = torch.sigmoid(linear_of(part.excite, member)(attention))
            return (patches * attention[:, None, None]).mean((1, 2))
        case "cnn":
            values = image.unsqueeze(0)
            for conv, norm in zip(part.convolutions, part.norms, strict=True):
                plain = load(nn.GroupNorm(norm.groups, norm.weight.shape[1]), weight=norm.weight[member])
                with torch.no_grad():
                    plain.bias.copy_(norm.bias[member])
                values = torch.relu(plain(conv_of(conv, member)(values)))
                if min(values.shape[2:]) >= 2:
                    values = nn.MaxPool2d(2)(values)
            return nn.AdaptiveAvgPool2d(tuple(min(3, side) for side in values.shape[2:]))(values).flatten()


def plain_encoder(part, member, tokens):
    """`nn.TransformerEncoderLayer`, pre-norm, on the learned token and the steps that are there."""
    for layer in part.layers:
        dim = tokens.shape[1]
        plain = nn.TransformerEncoderLayer(
            dim, 4, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        ).double()
        zeros = torch.zeros(dim, dtype=torch.float64)
        with torch.no_grad():
            plain.self_attn.in_proj_weight.copy_(
                torch.cat([layer.query.weight[member], layer.key.weight[member], layer.value.weight[member]])
            )
            plain.self_attn.in_proj_bias.copy_(torch.cat([layer.query.bias[member], zeros, layer.value.bias[member]]))
            pairs = [
                (plain.self_attn.out_proj, layer.mix),
                (plain.linear1, layer.up),
                (plain.linear2, layer.down),
                (plain.norm1, layer.norm),
                (plain.norm2, layer.hidden_norm),
            ]
            for theirs, ours in pairs:
                theirs.weight.copy_(ours.weight[member])
                theirs.bias.copy_(ours.bias[member])
        tokens = plain(tokens.unsqueeze(0))[0]
    return functional.layer_norm(tokens[0], tokens[0].shape, part.norm.weight[member], part.norm.bias[member])


def plain_temporal(part, choice, member, steps, places):
    """One vector of the steps (T', D) that are there; `places` are where they stood."""
    if not len(steps) and choice.temporal != "transformer":
        return torch.zeros(part.dim, dtype=torch.float64)
    match choice.temporal:
        case "mean":
            return steps.mean(0)
        case "max":
            return steps.amax(0)
        case "mean_std":
            varies = steps.detach().std(0, correction=0) > 1e-6  # the derivative of a deviation of 0 is infinite
            deviation = torch.where(
                varies, torch.where(varies, steps, torch.randn_like(steps)).std(0, correction=0), 0.0
            )
            return torch.cat([steps.mean(0), deviation])
        case "attention":
            return pooled_by_attention(part, member, steps)
        case "lstm" | "gru":
            kind = nn.LSTM if choice.temporal == "lstm" else nn.GRU
            plain = load(
                kind(steps.shape[1], choice.width),
                weight_ih_l0=part.input.weight[member],
                bias_ih_l0=part.input.bias[member],
                weight_hh_l0=part.state.weight[member],
                bias_hh_l0=part.state.bias[member],
            )
            return plain(steps)[0][-1]
        case "transformer":
            tokens = linear_of(part.input, member)(steps) + part.positions.weight[member].view(-1, part.dim)[places]
            return plain_encoder(part, member, torch.cat([part.asking.weight[member][None], tokens]))


def plain_stem(stem, choice, member, values, steps):
    """One vector of one row (*shape), with the weights of one member."""
    if steps is None:
        return plain_spatial(stem.spatial, choice, member, values)
    places = torch.nonzero(steps).flatten()
    there = values[places]
    if values.dim() == 4:
        empty = torch.zeros(0, stem.temporal.input.weight.shape[2] if hasattr(stem.temporal, "input") else 1)
        maps = [plain_spatial(stem.spatial, choice, member, image) for image in there]
        there = torch.stack(maps) if maps else empty.double()
    return plain_temporal(stem.temporal, choice, member, there, places)


@every_stem
def test_every_member_equals_plain_layers_on_the_steps_that_are_there(kind, temporal, spatial):
    choice = StemChoice(temporal, spatial, WIDTH, KERNELS)
    stem, members = make_stem_of(SHAPES[kind], choice)
    features, steps = random_input(SHAPES[kind])
    features.requires_grad_()
    vectors = stem(features, steps)
    assert vectors.shape == (2 if stem.shared else 3, ROWS, stem.dim)
    own = vectors if not stem.shared else vectors[members.folds]
    for member, fold in enumerate(members.folds.tolist()):
        for row in range(ROWS):
            values = features.detach()[fold, row].requires_grad_()
            plain = plain_stem(stem, choice, member, values, None if steps is None else steps[fold, row])
            torch.testing.assert_close(own[member, row], plain, rtol=1e-9, atol=1e-12)
            if plain.requires_grad and plain.grad_fn is not None:
                expected = torch.autograd.grad(plain.square().sum(), values, allow_unused=True)[0]
                ours = torch.autograd.grad(own[member, row].square().sum(), features, retain_graph=True)[0][fold, row]
                expected = torch.zeros_like(ours) if expected is None else expected
                torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-11)


@every_stem
def test_steps_that_are_not_there_change_no_bit(kind, temporal, spatial):
    stem, _ = make_stem_of(SHAPES[kind], StemChoice(temporal, spatial, WIDTH, KERNELS))
    features, steps = random_input(SHAPES[kind])
    if steps is None:
        pytest.skip("a map has no steps")
    other = features.clone()
    other[~steps] = 1e6
    assert torch.equal(stem(features, steps), stem(other, steps))


# ------------------------------------------------------------------------------------------------- within every head

HEADS = {
    "concat": ConcatHeadSpec(embed_dim=4, width=6),
    "linear": LinearHeadSpec(),
    "gated": GatedHeadSpec(embed_dim=4, gate_dim=3, width=6),
    "late": LateHeadSpec(embed_dim=4, width=6),
    "attention": AttentionHeadSpec(embed_dim=4, attention_heads=2, width=6),
}


def with_stems(head, temporal, spatial):
    changes = {"temporal": temporal, "spatial": spatial, "stem_width": WIDTH, "patch_kernels": KERNELS}
    return type(head).model_validate(head.model_dump() | changes)


def batch_of(kind, seed=0):
    features, steps = random_input(SHAPES[kind], seed)
    generator = torch.Generator().manual_seed(seed)
    valid = {name: torch.rand(2, ROWS, generator=generator) > 0.3 for name in ("s", "v")}
    vectors = torch.randn(2, ROWS, 3, generator=generator, dtype=torch.float64)
    features[~valid["s"]] = 0
    if steps is not None:
        steps &= valid["s"].unsqueeze(2)
        features[~steps] = 0
    return HeadBatch(
        {"s": features, "v": vectors * valid["v"].unsqueeze(2)}, valid, {} if steps is None else {"s": steps}
    )


@pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))
@every_stem
def test_a_head_with_stems_equals_each_of_its_members_alone_and_shrinks(head, kind, temporal, spatial):
    spec = with_stems(head, temporal, spatial)
    dims = {"s": SHAPES[kind], "v": 3}
    group = [HeadMember(member.streams, member.seed, member.fold, 0.3 * (head.kind != "linear")) for member in GROUP]
    together, batch = make_head(spec, group, dims, 3).double(), batch_of(kind)
    noise = Noise(0, ROWS, torch.device("cpu"))
    logits = together(batch, noise)
    logits.square().sum().backward()
    for index, member in enumerate(group):
        alone = make_head(spec, [HeadMember(member.streams, member.seed, 0, member.dropout)], dims, 3).double()
        fold = slice(member.fold, member.fold + 1)
        parts = (batch.features, batch.valid, batch.steps)
        own = HeadBatch(*({name: tensor[fold] for name, tensor in part.items()} for part in parts))
        answer = alone(own, noise)
        torch.testing.assert_close(answer[0], logits[index], rtol=1e-9, atol=1e-12)
        answer.square().sum().backward()
        gradients = dict(together.named_parameters())
        for name, tensor in alone.named_parameters():
            row = owners(together)[name].rows_of([index])[0]
            ours = gradients[name].grad
            if tensor.grad is not None:
                torch.testing.assert_close(ours[row], tensor.grad[0], rtol=1e-9, atol=1e-11, msg=name)
    del logits, answer  # their graphs remember how many members there were
    before = together.eval()(batch).detach()
    for left, members in (([0, 2], [0, 2]), ([1], [2])):  # no member of the last one has the stem's stream
        shrink(together, left)
        after = together(batch)
        torch.testing.assert_close(after, before[members], rtol=1e-9, atol=1e-12)
        torch.autograd.grad(after.sum(), tuple(together.parameters()))  # every weight is part of the graph
        del after


def test_defaults_of_stems_are_not_written_and_others_are_read_back():
    assert "temporal" not in ConcatHeadSpec().model_dump()
    spec = parse_spec(
        RunSpec, {"name": "x", "features": {"streams": ["s"]}, "head": {"kind": "late", "temporal": "gru"}}, "x"
    )
    assert spec.head.model_dump()["temporal"] == "gru"
    assert type(spec).model_validate(spec.model_dump()) == spec


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="kernel sizes must be odd and at least 1, got 2"):
        ConcatHeadSpec(patch_kernels=(1, 2))


def test_initial_weights_of_recurrent_stems_spread_as_torch_s_own():
    head = make_head(ConcatHeadSpec(temporal="lstm", stem_width=64), [HeadMember(("s",))], {"s": (3, 5)}, 3)
    weight = head.embeddings.of_s.stem.temporal.input.weight
    assert weight.abs().max() <= 1 / 8
    assert weight.std().item() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.05)


def test_a_head_without_stems_refuses_streams_that_are_no_vectors():
    with pytest.raises(TrainingError, match=r"a kernel_ridge head takes only vectors, got s \(5, 4\)"):
        make_head(KernelRidgeHeadSpec(), [HeadMember(("s",))], {"s": (5, 4)}, 3)


@pytest.mark.parametrize(("kind", "temporal", "spatial"), [("sequence", "lstm", "mean"), ("maps", "mean", "cnn")])
def test_training_a_group_with_stems_equals_each_member_alone_whatever_stands_in_masked_steps(kind, temporal, spatial):
    rng = np.random.default_rng(0)
    shape, rows = SHAPES[kind], 60
    features = torch.from_numpy(rng.normal(size=(rows, *shape)).astype(np.float32))
    steps = torch.from_numpy(rng.random((rows, STEPS)) > 0.3)
    steps[:, 0] = True
    valid = torch.from_numpy(rng.random(rows) > 0.2)
    channels = shape[-1] if len(shape) == 2 else shape[-3]
    labels = torch.from_numpy(rng.integers(0, 3, rows))
    ones = np.ones(channels, np.float32)
    scaling = {"s": Scaling(0.1 * ones, 2 * ones, 3 * ones)}
    part = rng.integers(0, 2, rows)
    folds = [Fold(np.flatnonzero(part != fold), np.flatnonzero(part == fold), scaling) for fold in range(2)]
    head = with_stems(HEADS["concat"], temporal, spatial)
    trains = [TrainSpec(epochs=2, batch_size=16, seed=seed, learning_rate=1e-2) for seed in (1, 2, 1)]
    members = [Member(("s",), head, train, fold) for train, fold in zip(trains, (0, 0, 1), strict=True)]
    machine = Machine(torch.device("cpu"), torch.float64)

    def train(garbage, some):
        there = features.clone()
        there[~steps], there[~valid] = garbage, garbage
        table = FeatureTable({"s": there}, {"s": valid}, labels, 3, steps={"s": steps})
        return train_group(table, folds, some, machine)

    together, other = train(0.0, members), train(float("nan"), members)
    for member, ours, theirs in zip(members, together, other, strict=True):
        (alone,) = train(float("nan"), [member])
        assert ours.weights.keys() == alone.weights.keys()
        for name, array in ours.weights.items():
            assert np.array_equal(array, theirs.weights[name])
            np.testing.assert_allclose(alone.weights[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("shape", [(5, 4), (3, 6, 5), (5, 3, 4, 4)])
def test_scaling_of_a_shape_is_that_of_its_vectors_in_steps_that_are_there(shape):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, *shape)).astype(np.float32)
    steps = rng.random((30, 5)) > 0.3 if shape[0] == 5 else None
    rows = np.arange(0, 30, 2)
    scaling = Scaling.fit(features, rows, steps=steps)
    chosen = features[rows] if steps is None else features[rows][steps[rows]]
    flat = np.moveaxis(chosen, -3, -1).reshape(-1, 3) if len(shape) >= 3 else chosen.reshape(-1, 4)
    np.testing.assert_allclose(scaling.center, flat.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scaling.scale, flat.std(0), rtol=1e-5)
    assert np.isfinite(scaling.apply(features, np.ones(30, bool), steps)).all()
