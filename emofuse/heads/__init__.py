"""Fusion heads: features of several streams -> logits. One head a file."""

from __future__ import annotations

from collections.abc import Mapping

from emofuse.heads.concat import ConcatHead
from emofuse.specs import HeadSpec


def make_head(spec: HeadSpec, dims: Mapping[str, int], classes: int, *, seed: int = 0) -> ConcatHead:
    """A head with its initial weights.

    Args:
        spec: which head.
        dims: stream -> D, in the order in which the head joins them.
        classes: C.
        seed: of the initial weights (see `emofuse.heads.initial`).
    """
    return ConcatHead(
        dims, classes, embed_dim=spec.embed_dim, depth=spec.depth, width=spec.width, dropout=spec.dropout, seed=seed
    )
