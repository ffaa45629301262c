"""Describe the target of a run, and which labels it uses if a dataset has those of several annotators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emofuse.datasets.targets import read_targets
from emofuse.specs.targets import ClassTarget, MultilabelTarget, TargetSpec

if TYPE_CHECKING:
    import polars as pl

    from emofuse.datasets.manifest import Manifest


def describe_target(manifest: Manifest, target: TargetSpec, weight_column: str | None = None) -> str | None:
    """Return the target in one line; None for the only labels of a manifest and equal weights.

    Args:
        manifest: the manifest of the rows.
        target: what is learned.
        weight_column: the column of the weights of rows.

    Raises:
        SpecError: a column that the manifest does not have.
        DatasetError: a column whose values are not what the target needs.
    """
    what = describe_labels(manifest, target)
    if not isinstance(target, ClassTarget):
        has_target = read_targets(manifest, target, weight_column).labels >= 0
        loss = "binary cross_entropy" if isinstance(target, MultilabelTarget) else target.loss
        what = f"{target} ({target.kind}, loss {loss}), in {has_target.sum()} of {len(manifest)} rows"
    if weight_column is not None:
        what = f"{what or 'the label of the manifest'}; rows are weighted by column {weight_column!r}"
    return what


def describe_labels(manifest: Manifest, target: TargetSpec) -> str | None:
    """Return which labels are the target, and how often the others are the same; None if there is only one kind.

    Args:
        manifest: the manifest of the rows.
        target: what is learned.
    """
    if not isinstance(target, ClassTarget):
        return None
    of_manifest = "the label of the manifest"
    if column := manifest.info.get("label_column"):
        of_manifest += f" (column {column!r})"
    label = manifest.table["label"]
    if target.column is not None and target.column != "label":
        other = manifest.table[target.column].cast(str).str.strip_chars()
        same = "" if not manifest.classes else f"; {of_manifest} is the same in {_agreement(label, other)}"
        return f"the labels are those of column {target.column!r}{same}"
    others = label_columns(manifest)
    if not others:
        return None
    listed = " and ".join(f"{name!r} (the same in {_agreement(label, manifest.table[name])})" for name in others)
    return f"the labels are {of_manifest}, not those of column {listed}"


def label_columns(manifest: Manifest) -> list[str]:
    """Return the attributes that hold several of the labels of the manifest and no other word."""
    import polars as pl

    names = []
    for name in manifest.attributes:
        if manifest.table[name].dtype != pl.String:
            continue
        words = set(manifest.table[name].str.strip_chars().replace("", None).drop_nulls().unique())
        if len(words) > 1 and words <= set(manifest.classes):
            names.append(name)
    return names


def _agreement(label: pl.Series, other: pl.Series) -> str:
    both = label.is_not_null() & other.is_not_null()
    return f"{int((label == other).filter(both).sum())} of {int(both.sum())} rows"
