"""Fusion heads: features of several streams -> logits. One head a file, each for K heads side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from emofuse.heads.attention import AttentionHead
from emofuse.heads.concat import ConcatHead
from emofuse.heads.gated import GatedHead
from emofuse.heads.initial import initialise
from emofuse.heads.lanes import Lane
from emofuse.heads.late import LateHead
from emofuse.heads.linear import LinearHead
from emofuse.specs import (
    AttentionHeadSpec,
    ConcatHeadSpec,
    GatedHeadSpec,
    HeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
)


def make_head(spec: HeadSpec, group: Sequence[Lane], dims: Mapping[str, int], classes: int) -> nn.Module:
    """K heads of one kind as one module, with their initial weights: `head(batch, noise) -> logits (K, B, C)`.

    Args:
        spec: which head; its dropout is the lanes' affair.
        group: K lanes, ordered by fold. `[Lane(streams)]` is a single head.
        dims: stream -> D of every stream of some lane; others are left out.
        classes: C.
    """
    head = make_empty_head(spec, group, dims, classes)
    initialise(head)
    return head


def make_empty_head(spec: HeadSpec, group: Sequence[Lane], dims: Mapping[str, int], classes: int) -> nn.Module:
    """The same with whatever the memory holds for weights; also on torch's `meta` device."""
    dims = {stream: dim for stream, dim in dims.items() if any(stream in lane.streams for lane in group)}
    match spec:
        case ConcatHeadSpec():
            return ConcatHead(group, dims, classes, embed_dim=spec.embed_dim, depth=spec.depth, width=spec.width)
        case LinearHeadSpec():
            return LinearHead(group, dims, classes)
        case GatedHeadSpec():
            return GatedHead(
                group,
                dims,
                classes,
                embed_dim=spec.embed_dim,
                gate_dim=spec.gate_dim,
                depth=spec.depth,
                width=spec.width,
            )
        case LateHeadSpec():
            return LateHead(group, dims, classes, embed_dim=spec.embed_dim, depth=spec.depth, width=spec.width)
        case AttentionHeadSpec():
            return AttentionHead(
                group,
                dims,
                classes,
                embed_dim=spec.embed_dim,
                depth=spec.depth,
                attention_heads=spec.attention_heads,
                width=spec.width,
            )
