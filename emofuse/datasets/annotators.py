"""Say which labels a run learns, where a dataset has those of several annotators (intended and perceived emotion)."""

from __future__ import annotations

import polars as pl

from emofuse.datasets.manifest import COLUMNS, Manifest
from emofuse.specs.targets import ClassTarget, TargetSpec


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
        other = manifest.table[target.column].cast(pl.String).str.strip_chars()
        same = "" if not manifest.classes else f"; {of_manifest} is the same in {_agreement(label, other)}"
        return f"the labels are those of column {target.column!r}{same}"
    others = label_columns(manifest)
    if not others:
        return None
    listed = " and ".join(f"{name!r} (the same in {_agreement(label, manifest.table[name])})" for name in others)
    return f"the labels are {of_manifest}, not those of column {listed}"


def label_columns(manifest: Manifest) -> list[str]:
    """Return the attributes that hold several of the labels of the manifest and no other word."""
    names = []
    for name in manifest.table.columns:
        if name in COLUMNS or manifest.table[name].dtype != pl.String:
            continue
        words = set(manifest.table[name].str.strip_chars().replace("", None).drop_nulls().unique())
        if len(words) > 1 and words <= set(manifest.classes):
            names.append(name)
    return names


def _agreement(label: pl.Series, other: pl.Series) -> str:
    both = label.is_not_null() & other.is_not_null()
    return f"{int((label == other).filter(both).sum())} of {int(both.sum())} rows"
