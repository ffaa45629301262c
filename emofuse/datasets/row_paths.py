"""The paths of rows as manifests hold them: relative to the root, normal, and the ids that follow from them."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import polars as pl

from emofuse.stores import is_remote


def below_root(paths: pl.Series, root: Path) -> pl.Series:
    """Return paths (N,) with absolute ones below the root made relative to it, and all others unchanged."""
    if is_remote(root) or not paths.str.starts_with("/").any():
        return paths
    for above in (str(root.absolute()), os.path.realpath(root)):
        paths = paths.str.strip_prefix(above.rstrip("/") + "/")
    return paths


def normalised_paths(paths: pl.Series) -> pl.Series:
    """Return paths (N,) without `//`, `./` and inner `..`; an empty path becomes null."""
    unusual = paths.str.contains(r"(^|/)\.{0,2}(/|$)").fill_null(value=False)
    if unusual.any():
        fixed = [posixpath.normpath(path) if path else None for path in paths.filter(unusual)]
        paths = paths.scatter(unusual.arg_true(), fixed)
    return paths


def ids_from_paths(paths: pl.Series) -> pl.Series:
    """Return sample ids (N,): paths without their suffixes, with them where two different files would share an id."""
    path = pl.col("path")
    stems = pl.DataFrame({"path": paths}).with_columns(path.str.replace(r"([^/])\.[^./]*$", "$1").alias("stem"))
    files = stems.unique().drop_nulls()
    shared = files.filter(pl.col("stem").is_duplicated())["stem"]
    # `a.jpg.png` must not become `a.jpg` where `a.jpg` may be the id of another file.
    taken = files.filter(path != pl.col("stem"))["path"]
    ambiguous = pl.col("stem").is_in(pl.concat([shared, taken]).implode())
    return stems.select(pl.when(ambiguous).then(path).otherwise(pl.col("stem")).alias("sample_id"))["sample_id"]
