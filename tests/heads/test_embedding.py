"""Embeddings of all streams at once: the same however they are cut into chunks; norms stay precise."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from emofuse.heads import embedding as embedding_module
from emofuse.heads import make_head
from emofuse.heads.embedding import Embeddings
from emofuse.heads.layers import products_in
from emofuse.heads.members import HeadBatch, HeadMember, Members
from emofuse.specs import ConcatHeadSpec

DIMS = {"a": 5, "b": 7, "c": 3}
GROUP = [
    HeadMember(("a", "b", "c"), fold=0),
    HeadMember(("b",), seed=1, fold=0),
    HeadMember(("c", "a"), seed=2, fold=1),
    HeadMember(("a", "b", "c"), seed=3, fold=2),
    HeadMember(("a",), seed=4, fold=2),
]
ROWS, EMBED = 12, 4


def random_batch(missing):
    generator = torch.Generator().manual_seed(0)
    valid = {name: torch.rand(3, ROWS, generator=generator) >= missing for name in DIMS}
    features = {
        name: torch.randn(3, ROWS, dim, generator=generator, dtype=torch.float64) * valid[name].unsqueeze(2)
        for name, dim in DIMS.items()
    }
    return HeadBatch(features, valid)


def gradients_and_state(missing):
    head = make_head(ConcatHeadSpec(embed_dim=EMBED, width=6, depth=1), GROUP, DIMS, 3).double()
    head(random_batch(missing)).square().sum().backward()
    return {name: tensor.grad for name, tensor in head.named_parameters()} | head.state_dict()


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("members", [1, 2, 3, 7])
def test_chunks_of_any_size_change_nothing(monkeypatch, members, missing):
    whole = gradients_and_state(missing)
    monkeypatch.setattr(embedding_module, "CHUNK_BYTES", members * ROWS * EMBED * 8)
    for name, tensor in gradients_and_state(missing).items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("most", "expected"), [(None, [10]), (4, [4, 4, 2]), (3, [3, 3, 3, 1]), (1, [1] * 10)])
def test_chunks_hold_every_member_once_and_in_order(most, expected):
    members = [Members(GROUP, stream) for stream in DIMS]
    chunks = list(embedding_module._chunks(members, most))
    assert [chunk.members.stop - chunk.members.start for chunk in chunks] == expected
    pieces = [piece for chunk in chunks for piece in chunk.pieces]
    assert [row for piece in pieces for row in range(piece.in_all.start, piece.in_all.stop)] == list(range(10))
    for piece in pieces:
        assert {member.fold for member in members[piece.stream].group[piece.in_stream]} == {piece.fold}
    tensors = [torch.tensor(each.indices) for each in members]
    assert torch.equal(torch.cat([chunk.of_streams(tensors) for chunk in chunks]), torch.cat(tensors))


def test_norms_are_computed_in_float32_where_products_are_in_bfloat16():
    members = {"a": Members([HeadMember(("a",))])}
    embeddings = Embeddings(members, {"a": 8}, 16)
    torch.nn.init.normal_(embeddings.of_a.linear.weight)
    features = torch.randn(1, 400, 8) + 4
    with products_in(torch.bfloat16, torch.device("cpu")):
        embedded = embeddings(HeadBatch({"a": features}, {"a": torch.ones(1, 400, dtype=torch.bool)}))["a"]
    projected = (features[0].bfloat16() @ embeddings.of_a.linear.weight[0].bfloat16().T).float()
    assert embedded.dtype == torch.float32
    torch.testing.assert_close(embedded[0], functional.batch_norm(projected, None, None, training=True))
    torch.testing.assert_close(embeddings.of_a.norm.running_mean[0], 0.1 * projected.mean(0))
