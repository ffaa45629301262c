"""What every head must do: the conformance check, and where it begins."""

from __future__ import annotations

import pytest
import torch

from emofuse.heads import make_empty_head, make_head
from emofuse.heads.members import HeadBatch, HeadMember, Members, owners, shrink
from emofuse.specs import AttentionHeadSpec, ConcatHeadSpec, GatedHeadSpec, LateHeadSpec, LinearHeadSpec
from emofuse.testing import check_head

DIMS = {"lbp": 5, "mobilenet_v3.small": 7, "type": 3}
ALL = tuple(DIMS)
GROUP = [HeadMember(ALL, seed=1), HeadMember(("type",), seed=2), HeadMember(("type", "lbp"), seed=1, dropout=0.5)]
HEADS = {
    "concat": ConcatHeadSpec(embed_dim=4, width=6),
    "concat without hidden layers": ConcatHeadSpec(embed_dim=4, depth=0),
    "linear": LinearHeadSpec(),
    "gated": GatedHeadSpec(embed_dim=4, gate_dim=3, width=6),
    "late": LateHeadSpec(embed_dim=4, width=6),
    "attention": AttentionHeadSpec(embed_dim=4, attention_heads=2, width=6),
    "attention of two layers": AttentionHeadSpec(embed_dim=4, attention_heads=2, width=6, depth=2),
}
every_head = pytest.mark.parametrize("spec", HEADS.values(), ids=list(HEADS))


def random_batch(rows, dims=DIMS, seed=0, missing=0.3, folds=1):
    generator = torch.Generator().manual_seed(seed)
    valid = {name: torch.rand(folds, rows, generator=generator) >= missing for name in dims}
    features = {
        name: torch.randn(folds, rows, dim, generator=generator) * valid[name].unsqueeze(2)
        for name, dim in dims.items()
    }
    return HeadBatch(features, valid)


def rows_of(batch, rows):
    return HeadBatch(
        {name: x[:, rows] for name, x in batch.features.items()}, {name: v[:, rows] for name, v in batch.valid.items()}
    )


def trained_a_little(spec, group=GROUP):
    """Weights and running statistics that are not those of the beginning."""
    head = make_head(spec, group, DIMS, 3)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        head(random_batch(30, seed=seed)).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return head


# ---------------------------------------------------------------------------------------------- conformance


@every_head
@pytest.mark.parametrize("rows", [0, 1, 9])
@pytest.mark.parametrize("missing", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("training", [True, False])
def test_logits_are_finite_for_any_batch_also_where_every_stream_is_missing(spec, rows, missing, training):
    head = trained_a_little(spec).train(training)
    logits = head(random_batch(rows, missing=missing))
    assert logits.shape == (3, rows, 3)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    assert all(tensor.grad is None or tensor.grad.isfinite().all() for tensor in head.parameters())


@every_head
def test_evaluation_gives_a_row_the_same_answer_in_any_batch(spec):
    head = trained_a_little(spec).eval()
    batch = random_batch(20, seed=5)
    whole = head(batch)
    for row in range(20):
        one = head(rows_of(batch, slice(row, row + 1)))
        torch.testing.assert_close(one[:, 0], whole[:, row], atol=1e-5, rtol=1e-5)


@every_head
def test_a_member_sees_its_own_streams_only(spec):
    head = trained_a_little(spec)
    batch, other = random_batch(20, seed=5), random_batch(20, seed=6)
    changed = HeadBatch(
        batch.features | {"mobilenet_v3.small": other.features["mobilenet_v3.small"]},
        batch.valid | {"mobilenet_v3.small": other.valid["mobilenet_v3.small"]},
    )
    before, after = head(batch), head(changed)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1:], after[1:])


@every_head
def test_no_member_has_a_gradient_from_another_members_loss(spec):
    head = trained_a_little(spec)
    own = owners(head)
    head(random_batch(20))[1].square().sum().backward()
    for name, tensor in head.named_parameters():
        others = [row for row, member in enumerate(own[name].indices) if member != 1]
        assert tensor.grad is None or not tensor.grad[others].any(), name


@every_head
def test_folds_see_rows_of_their_own(spec):
    """Three folds with other rows each are three heads called one by one."""
    group = [
        HeadMember(ALL, fold=0),
        HeadMember(ALL, fold=1),
        HeadMember(("lbp",), fold=1),
        HeadMember(("lbp", "type"), fold=2),
    ]
    head = make_head(spec, group, DIMS, 3)
    batch = random_batch(12, folds=3)
    together = head(batch)
    for position, member in enumerate(group):
        alone = make_head(spec, [HeadMember(member.streams)], DIMS, 3)
        own = HeadBatch(
            {name: batch.features[name][member.fold : member.fold + 1] for name in member.streams},
            {name: batch.valid[name][member.fold : member.fold + 1] for name in member.streams},
        )
        torch.testing.assert_close(alone(own)[0], together[position], atol=1e-5, rtol=1e-5)


@every_head
def test_every_saved_tensor_has_its_members(spec):
    head = make_head(spec, GROUP, DIMS, 3)
    own = owners(head)
    assert own.keys() == head.state_dict().keys()
    for name, tensor in head.state_dict().items():
        assert len(tensor) == len(own[name])


@every_head
@pytest.mark.parametrize("left", [[0, 2], [1], [2]])
@pytest.mark.parametrize("training", [True, False])
def test_a_head_that_shrinks_goes_on_with_the_members_that_are_left(spec, left, training):
    head = trained_a_little(spec).train(training)
    batch = random_batch(20)
    before = head(batch).detach()
    shrink(head, left)
    torch.testing.assert_close(head(batch), before[left], atol=1e-6, rtol=1e-6)
    for name, tensor in head.state_dict().items():
        assert len(tensor) == len(owners(head)[name]), name
    head(batch).sum().backward()


def test_members_out_of_the_order_of_folds_are_refused():
    with pytest.raises(ValueError, match=r"members must be ordered by fold, got folds \[1, 0\]"):
        Members([HeadMember(ALL, fold=1), HeadMember(ALL, fold=0)])


def test_late_fusion_averages_the_streams_that_a_row_has():
    spec = HEADS["late"]
    head = make_head(spec, [HeadMember(("lbp", "type"))], DIMS, 3).eval()
    with torch.no_grad():
        head.heads["of_lbp"].log_weight.fill_(1.0)
        head.heads["of_type"].log_weight.fill_(-0.5)
    batch = random_batch(30)
    each = {}
    for stream in ("lbp", "type"):
        embedding = head.embeddings(batch)[stream]
        each[stream] = head.heads[f"of_{stream}"](embedding, None)[0][0]
    probs = head(batch).exp()[0]
    weights = {"lbp": torch.tensor(1.0).exp(), "type": torch.tensor(-0.5).exp()}
    for row in range(30):
        there = [stream for stream in each if batch.valid[stream][0, row]]
        total = sum(weights[stream] for stream in there)
        expected = sum(weights[stream] * each[stream][row] for stream in there) / total if there else None
        if expected is None:
            expected = torch.softmax(head.nothing.weight[0], dim=0)
        torch.testing.assert_close(probs[row], expected)
    torch.testing.assert_close(probs.sum(1), torch.ones(30))


def test_the_paper_s_head_has_the_paper_s_layers():
    head = make_empty_head(ConcatHeadSpec(), [HeadMember(("lbp", "resnet50"))], {"lbp": 256, "resnet50": 2048}, 8)
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in head.named_parameters()}
    assert shapes["embeddings.of_lbp.linear.weight"] == (512, 256)
    assert shapes["embeddings.of_resnet50.linear.weight"] == (512, 2048)
    assert shapes["join.of_lbp.weight"] == shapes["join.of_resnet50.weight"] == (512, 512)
    assert [shapes[f"hidden.linear.{index}.weight"] for index in range(2)] == [(512, 512), (8, 512)]


# ---------------------------------------------------------------------------------------------- initial weights


def tensor_of(head, name, member):
    own = owners(head)[name].indices
    return head.state_dict()[name][own.index(member)]


@every_head
def test_a_member_begins_the_same_whoever_stands_beside_it(spec):
    together = make_head(spec, GROUP, DIMS, 3)
    for position, member in enumerate(GROUP):
        alone = make_head(spec, [member], DIMS, 3)
        for name, tensor in alone.state_dict().items():
            assert torch.equal(tensor[0], tensor_of(together, name, position)), name


def test_streams_begin_the_same_whatever_other_streams_there_are_but_for_the_scale_of_a_joint_layer():
    full = make_head(HEADS["concat"], [HeadMember(ALL)], DIMS, 3)
    part = make_head(HEADS["concat"], [HeadMember(("lbp",))], DIMS, 3)
    state = full.state_dict()
    for name, tensor in part.state_dict().items():
        scale = 3**0.5 if name.startswith("join.") else 1.0
        torch.testing.assert_close(tensor, state[name] * scale)


def test_initial_weights_follow_seed_and_name_and_spread_as_torch_s_own():
    wide = {"a": 400, "b": 400}
    head = make_head(HEADS["concat"], [HeadMember(("a", "b"), seed=seed) for seed in (1, 1, 2)], wide, 3)
    weight, other = head.embeddings.of_a.linear.weight, head.embeddings.of_b.linear.weight
    assert torch.equal(weight[0], weight[1])
    assert not torch.equal(weight[0], weight[2])
    assert not torch.equal(weight[0], other[0])
    assert weight.abs().max() <= 1 / 20
    assert weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.05)
    assert abs(weight.mean().item()) < 0.002


def test_making_a_head_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    for spec in HEADS.values():
        make_head(spec, GROUP, DIMS, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_golden():
    """They are part of what a digest promises: change `TRAINING_VERSION` with them."""
    head = make_head(HEADS["concat"], [HeadMember(("lbp",))], {"lbp": 5}, 3)
    expected = [0.013822, -0.347650, -0.265445, 0.198105, -0.171562]
    torch.testing.assert_close(
        head.embeddings.of_lbp.linear.weight[0, 0].detach(), torch.tensor(expected), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("kind", ["concat", "linear", "gated", "late", "attention"])
def test_a_head_of_the_package_keeps_the_contract_that_is_checked_of_others(kind):
    check_head(HEADS[kind])
