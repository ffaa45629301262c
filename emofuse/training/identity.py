"""The identity of a run: a digest of all that changes its weights and scores, apart from the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emofuse.specs import RunSpec, digest
from emofuse.specs.runs import settled
from emofuse.training.targets import WITH_CLASSES

if TYPE_CHECKING:
    from emofuse.training.data import TrainingData

TRAINING_VERSION = 4  # raised whenever this code gives other weights for the same spec and rows: part of every digest


def run_digest(data: TrainingData, spec: RunSpec, rows: str, groups: str | None, *, keeps_groups: bool) -> str:
    """Return the identity of a run: everything that changes its weights and scores, except the machine.

    It covers the spec without its name, the digests of its streams, ids, splits, targets and weights of all rows,
    the rows without a readable picture, the groups that its folds keep together, and how far rows are shuffled if
    they are streamed. The rows are hashed only once.

    Args:
        data: the rows and features that the run sees.
        spec: the run.
        rows: the digest of the rows.
        groups: the digest of their groups; None without groups.
        keeps_groups: whether the split keeps groups together.

    Raises:
        SpecError: a stream that is not in the cache.
    """
    variants = data.features.of(spec.features)
    features = settled(spec.features, {variant.stream: variant.kind for variant in variants})
    window = data.window(spec)
    identity = {
        "version": TRAINING_VERSION,
        "spec": {**spec.model_dump(mode="json", exclude={"name"}), "features": features.model_dump(mode="json")},
        "streams": {variant.stream: data.features.digest(variant) for variant in variants},
        "rows": rows,
    }
    unreadable = data.unreadable(spec)
    if unreadable.any():
        identity["unreadable"] = np.flatnonzero(unreadable).tolist()
    leaves_out = spec.head.kind == "kernel_ridge"  # its penalty is chosen by leave-one-out predictions
    grouped_folds = any(head.fold and head.fold.grouped for head in spec.heads())
    if groups and (grouped_folds or (leaves_out and keeps_groups)):
        identity["groups"] = groups
    if spec.features.neutral_label is not None and data.target.kind not in WITH_CLASSES:
        identity["neutral"] = digest(data.class_labels.tolist())
    if window is None and any(head.fold for head in spec.heads()):
        identity["batches"] = "of each fold"  # former versions cut batches of the rows of all folds
    if spec.head.kind == "kernel_ridge" and spec.train.logit_adjustment:
        identity["logits"] = "adjusted"  # former versions did not
    if spec.train.views > 1:
        identity["augment"] = {variant.stream: data.features.augment(variant) for variant in variants}
    return digest(identity | ({"window": [window.block_rows, window.blocks]} if window else {}))
