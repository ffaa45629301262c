"""The paper's head against plain definitions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from emofuse.heads import make_head
from emofuse.heads.concat import MaskedBatchNorm1d
from emofuse.specs import ConcatHeadSpec

DIMS = {"lbp": 5, "mobilenet_v3.small": 7, "type": 3}


def random_rows(rows, dims=None, seed=0, missing=0.3):
    generator = torch.Generator().manual_seed(seed)
    dims = dims or DIMS
    valid = {name: torch.rand(rows, generator=generator) >= missing for name in dims}
    features = {
        name: torch.randn(rows, dim, generator=generator) * valid[name].unsqueeze(1) for name, dim in dims.items()
    }
    return features, valid


def small_head(dims=None, seed=0, **options):
    spec = ConcatHeadSpec(**{"embed_dim": 4, "width": 6, **options})
    return make_head(spec, dims or DIMS, classes=3, seed=seed)


# ---------------------------------------------------------------------------------------------- masked batch norm


def pair(dim=4):
    """A masked and torch's own batch norm with the same, not trivial, parameters."""
    masked, plain = MaskedBatchNorm1d(dim), nn.BatchNorm1d(dim)
    with torch.no_grad():
        for norm in (masked, plain):
            norm.weight.copy_(torch.linspace(0.5, 2, dim))
            norm.bias.copy_(torch.linspace(-1, 1, dim))
    return masked, plain


@pytest.mark.parametrize("missing", [0.0, 0.5, 0.9])
def test_masked_batch_norm_equals_torch_on_the_valid_rows(missing):
    masked, plain = pair()
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        rows = torch.randn(40, 4, generator=generator) * 3 + 5
        valid = torch.rand(40, generator=generator) >= missing
        valid[:2] = True
        ours, theirs = rows.clone().requires_grad_(), rows[valid].clone().requires_grad_()
        upstream = torch.randn(40, 4, generator=generator)
        out, expected = masked(ours, valid), plain(theirs)
        (out * upstream)[valid].sum().backward()
        (expected * upstream[valid]).sum().backward()
        torch.testing.assert_close(out[valid], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.grad[valid], theirs.grad, atol=1e-5, rtol=1e-5)
        assert not ours.grad[~valid].any()
    torch.testing.assert_close(masked.weight.grad, plain.weight.grad, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(masked.bias.grad, plain.bias.grad, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(masked.running_mean, plain.running_mean)
    torch.testing.assert_close(masked.running_var, plain.running_var)
    masked.eval()
    plain.eval()
    torch.testing.assert_close(masked(rows, valid)[valid], plain(rows[valid]), atol=1e-5, rtol=1e-5)


def test_rows_without_the_stream_change_nothing_whatever_they_hold():
    masked, other = pair()[0], pair()[0]
    rows = torch.randn(10, 4)
    valid = torch.arange(10) < 6
    poisoned = rows.clone()
    poisoned[~valid] = float("nan")
    assert torch.equal(masked(rows, valid)[valid], other(poisoned, valid)[valid])
    assert torch.equal(masked.running_mean, other.running_mean)
    assert torch.equal(masked.running_var, other.running_var)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_valid_rows_use_the_running_statistics_and_leave_them(count):
    masked, plain = pair()
    masked(torch.randn(8, 4) + 2, torch.ones(8, dtype=torch.bool))
    plain.load_state_dict({**masked.state_dict(), "num_batches_tracked": torch.tensor(1)})
    mean, var = masked.running_mean.clone(), masked.running_var.clone()
    rows = torch.randn(5, 4, requires_grad=True)
    valid = torch.arange(5) < count
    out = masked(rows, valid)
    out.sum().backward()
    torch.testing.assert_close(out[valid], plain.eval()(rows)[valid])
    assert torch.equal(masked.running_mean, mean)
    assert torch.equal(masked.running_var, var)
    assert torch.isfinite(rows.grad).all()
    assert torch.isfinite(masked.weight.grad).all()


# ---------------------------------------------------------------------------------------------- the head


def functional_forward(head, features, valid, *, training):
    """The head row by row: a loop and torch's functions instead of modules."""
    embeddings = []
    for name, part in zip(head.streams, head.embeddings.values(), strict=True):
        embedding = part.missing.repeat(len(valid[name]), 1)
        keep = valid[name]
        projected = features[name][keep] @ part.linear.weight.T + part.linear.bias
        norm = part.norm
        embedding[keep] = functional.batch_norm(
            projected, norm.running_mean.clone(), norm.running_var.clone(), norm.weight, norm.bias, training=training
        )
        embeddings.append(embedding)
    hidden = torch.cat(embeddings, dim=1)
    for block in head.hidden:
        hidden = torch.relu(hidden @ block[0].weight.T + block[0].bias)
    return hidden @ head.output.weight.T + head.output.bias


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_head_equals_a_plain_forward(depth, training):
    head = small_head(depth=depth)
    with torch.no_grad():
        for part in head.embeddings.values():
            part.missing.normal_(generator=torch.Generator().manual_seed(3))
            part.norm.running_mean.uniform_(generator=torch.Generator().manual_seed(4))
    features, valid = random_rows(30)
    head.train(training)
    expected = functional_forward(head, features, valid, training=training)
    torch.testing.assert_close(head(features, valid), expected, atol=1e-5, rtol=1e-5)


def test_the_paper_s_head_has_the_paper_s_layers():
    head = make_head(ConcatHeadSpec(), {"lbp": 256, "resnet50": 2048}, classes=8)
    shapes = {name: tuple(tensor.shape) for name, tensor in head.named_parameters()}
    assert shapes["embeddings.of_lbp.linear.weight"] == (512, 256)
    assert shapes["embeddings.of_resnet50.linear.weight"] == (512, 2048)
    assert [shapes[f"hidden.{i}.0.weight"] for i in range(2)] == [(512, 1024), (512, 512)]
    assert shapes["output.weight"] == (8, 512)


def test_a_row_without_any_stream_has_logits_and_gradients():
    head = small_head()
    features, valid = random_rows(6, missing=2.0)
    logits = head(features, valid)
    assert logits.shape == (6, 3)
    logits.square().sum().backward()
    for part in head.embeddings.values():
        assert part.missing.grad.abs().sum() > 0
        assert not part.linear.weight.grad.any()


def test_the_vector_of_a_missing_stream_learns_from_the_rows_that_lack_it_only():
    head = small_head({"lbp": 5})
    features, valid = random_rows(8, {"lbp": 5}, missing=0.0)
    head(features, valid).sum().backward()
    assert not head.embeddings["of_lbp"].missing.grad.any()


def test_evaluation_gives_the_same_answer_for_any_batch():
    head = small_head()
    head(*random_rows(50))
    head.eval()
    features, valid = random_rows(20, seed=5)
    whole = head(features, valid)
    for row in range(20):
        one = head({k: v[row : row + 1] for k, v in features.items()}, {k: v[row : row + 1] for k, v in valid.items()})
        torch.testing.assert_close(one[0], whole[row], atol=1e-5, rtol=1e-5)
    empty = head({k: v[:0] for k, v in features.items()}, {k: v[:0] for k, v in valid.items()})
    assert empty.shape == (0, 3)


def test_dropout_is_in_the_hidden_layers_and_in_training_only():
    head = small_head(dropout=0.5)
    assert sum(isinstance(module, nn.Dropout) for module in head.modules()) == 2
    assert not any(isinstance(module, nn.Dropout) for module in small_head().modules())
    rows = random_rows(16)
    head.eval()
    assert torch.equal(head(*rows), head(*rows))


# ---------------------------------------------------------------------------------------------- initial weights


def test_streams_begin_the_same_whatever_other_streams_there_are():
    full, part = small_head(seed=7), small_head({"type": 3, "lbp": 5}, seed=7)
    for name in ("lbp", "type"):
        for ours, theirs in zip(
            full.embeddings[f"of_{name}"].parameters(), part.embeddings[f"of_{name}"].parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_initial_weights_follow_seed_and_name_and_spread_as_torch_s_own():
    wide = {"a": 400, "b": 400}
    first, again, other = small_head(wide, seed=1), small_head(wide, seed=1), small_head(wide, seed=2)
    weight = first.embeddings["of_a"].linear.weight
    assert torch.equal(weight, again.embeddings["of_a"].linear.weight)
    assert not torch.equal(weight, other.embeddings["of_a"].linear.weight)
    assert not torch.equal(weight, first.embeddings["of_b"].linear.weight)
    assert weight.abs().max() <= 1 / 20
    assert weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.05)
    assert abs(weight.mean().item()) < 0.002


def test_making_a_head_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    first = small_head().state_dict()
    torch.rand(1)
    second = small_head().state_dict()
    torch.set_rng_state(before)
    small_head()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_initial_weights_are_golden():
    """They are part of what a digest promises: change `TRAINING_VERSION` with them."""
    weight = small_head({"lbp": 5}, seed=0).embeddings["of_lbp"].linear.weight
    expected = [0.013822, -0.347650, -0.265445, 0.198105, -0.171562]
    torch.testing.assert_close(weight[0].detach(), torch.tensor(expected), atol=1e-6, rtol=0)
