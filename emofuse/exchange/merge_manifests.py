"""Merge the manifests of caches: of caches with the same samples, or of all caches one after another."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.cache.reader import Cache
from emofuse.datasets.manifest import Manifest, other_values
from emofuse.datasets.sources import FILE_COLUMNS, changed_sources, moved_below
from emofuse.errors import CacheError
from emofuse.stores import SCHEME, as_path, is_remote
from emofuse.wording import join_first

_LISTED = 20
_FACTS = ("label", "split", "group")
# Two manifests' records of one file: with a checksum in both, times do not matter.
_OTHER_BYTES = (pl.col("bytes") != pl.col("other_bytes")).fill_null(value=False) | (
    pl.col("crc32c") != pl.col("other_crc32c")
).fill_null(value=False)
_MAY_DIFFER = ((pl.col("crc32c") == pl.col("other_crc32c")).fill_null(value=False).not_()) & (
    pl.col("modified_ns") != pl.col("other_modified_ns")
).fill_null(value=False)
_KNOWS_MORE = pl.col("bytes").is_null() | (pl.col("crc32c").is_null() & pl.col("other_crc32c").is_not_null())


def same_rows(caches: Sequence[Cache], gives: npt.NDArray[np.bool_]) -> Manifest:
    """Return the manifest of caches of the same samples: that of the first one, with the records of all files.

    Args:
        caches: the caches.
        gives: whether features of a row come from a cache, (caches, N) bool.

    Raises:
        CacheError: classes, labels, splits, groups, attributes that both have, or the bytes of images differ; the
            message has the number of rows and the first one.
    """
    _check_same_labels(caches)
    return replace(caches[0].manifest, table=_all_attributes(caches), files=_files_of_same_rows(caches, gives))


def _all_attributes(caches: Sequence[Cache]) -> pl.DataFrame:
    """Return the table of the first cache with the attributes that only others have, each from the first of them."""
    table = caches[0].manifest.table
    for cache in caches[1:]:
        missing = [name for name in cache.manifest.attributes if name not in table.columns]
        table = table.with_columns(cache.manifest.table.select(missing))
    return table


def _check_same_labels(caches: Sequence[Cache]) -> None:
    first = caches[0].manifest
    faults = []
    for cache in caches[1:]:
        other = cache.manifest
        if other.classes != first.classes:
            faults.append(f"the labels of {cache.path} are {', '.join(other.classes)}, not {', '.join(first.classes)}")
            continue
        parts = changed_sources(first.table, other.table)
        if parts.any():
            row = int(parts.arg_true()[0])
            named = f"row {row} ({first.table['sample_id'][row]})"
            faults.append(f"another span or member of the file in {int(parts.sum())} rows of {cache.path}, {named}")
        for fact in (*_FACTS, *(name for name in first.attributes if name in other.attributes)):
            differs = other_values(first.table[fact], other.table[fact])
            if differs.any():
                row = int(differs.arg_true()[0])
                in_first, in_other = first.table[fact][row], other.table[fact][row]
                sample_id = first.table["sample_id"][row]
                faults.append(
                    f"{fact} differs in {int(differs.sum())} rows of {cache.path}, row {row} ({sample_id}): "
                    f"{_shown(in_other)} there, {_shown(in_first)} in {caches[0].path}"
                )
    if faults:
        raise CacheError(
            f"the caches cannot be merged: {' | '.join(faults)}. Give them the same labels, splits, groups and "
            "attributes first: a build with the same dataset does that and extracts nothing."
        )


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def all_rows(caches: Sequence[Cache]) -> Manifest:
    """Return the manifest of caches that share no sample, with the rows of one cache after another.

    Paths become relative to the folder that all roots have in common.

    Raises:
        CacheError: a sample is in two caches, or their classes differ.
    """
    first = caches[0].manifest
    faults = [
        f"the labels of {cache.path} are {', '.join(cache.classes)}, not {', '.join(first.classes)}"
        for cache in caches[1:]
        if cache.classes != first.classes
    ]
    ids = pl.concat([cache.manifest.table["sample_id"] for cache in caches])
    repeated = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if len(repeated):
        faults.append(
            f"they are of different rows, but {len(repeated)} samples are in more than one of them: "
            f"{join_first(repeated, _LISTED)}"
        )
    roots = [cache.manifest.root for cache in caches]
    if len({_drive(root) for root in roots}) > 1:
        faults.append(f"no folder holds the files of all of them: {', '.join(map(str, roots))}")
    if faults:
        raise CacheError(f"the caches cannot be merged: {' | '.join(faults)}")
    root = _common_folder(roots)
    tables = [_below(cache.manifest, root) for cache in caches]
    table = pl.concat(tables, how="diagonal_relaxed")
    bad_rows = table["problem"].is_not_null().sum()
    info = {**first.info, "rows": table.height, "bad_rows": bad_rows, "merged": [str(cache.path) for cache in caches]}
    return Manifest(table, first.classes, root, info, _files_of_all_rows([cache.manifest for cache in caches]))


def _files_of_all_rows(manifests: Sequence[Manifest]) -> pl.DataFrame | None:
    """Return the records of the files of all manifests; None if no manifest has any."""
    if all(manifest.files is None for manifest in manifests):
        return None
    return pl.concat([manifest.known_files for manifest in manifests])


def _files_of_same_rows(caches: Sequence[Cache], gives: npt.NDArray[np.bool_]) -> pl.DataFrame | None:
    """Return the records of the files that features come from; none where caches may have seen different files.

    Two machines may have written the same bytes at different times. The whole record of the first one is kept then,
    because its time belongs to its own checksum.

    Raises:
        CacheError: features of a row come from caches that saw other bytes of its image.
    """
    manifests = [cache.manifest for cache in caches]
    if all(manifest.files is None for manifest in manifests):
        return None
    files = manifests[0].known_files.clear(len(manifests[0]))
    may_differ = pl.Series(np.zeros(len(files), dtype=np.bool_))
    faults = []
    for cache, gives_row in zip(caches, gives, strict=True):
        others = cache.manifest.known_files.select(pl.when(pl.Series(gives_row)).then(pl.all()).name.prefix("other_"))
        both = pl.concat([files, others], how="horizontal")
        rows = both.select(_OTHER_BYTES).to_series().arg_true()
        if len(rows):
            sample_id = cache.manifest.table["sample_id"][rows[0]]
            faults.append(f"{len(rows)} samples of {cache.path}, row {rows[0]} ({sample_id})")
        may_differ |= both.select(_MAY_DIFFER).to_series()
        files = both.select(
            pl.when(_KNOWS_MORE).then(f"other_{name}").otherwise(name).alias(name) for name in FILE_COLUMNS
        )
    if faults:
        raise CacheError(
            f"the caches cannot be merged, for they did not see the same files: other bytes in {' | '.join(faults)}. "
            "Give all machines the same files and build again, which extracts those that were replaced; or leave "
            "streams out with --streams."
        )
    return files.select(pl.when(~may_differ).then(pl.all()))


def _drive(root: Path) -> str:
    """Return what two roots must share to have a folder in common: the bucket of a store, or the root of a disk."""
    return str(root).removeprefix(SCHEME).split("/")[0] if is_remote(root) else root.absolute().anchor


def _common_folder(roots: Sequence[Path]) -> Path:
    if is_remote(roots[0]):
        return as_path(SCHEME + posixpath.commonpath([str(root).removeprefix(SCHEME) for root in roots]))
    return Path(os.path.commonpath([root.absolute() for root in roots]))


def _below(manifest: Manifest, root: Path) -> pl.DataFrame:
    """Return a manifest's table with its paths relative to a folder above its root."""
    inner = str(manifest.root.absolute())[len(str(root)) :].strip("/")
    if not inner:
        return manifest.table
    return moved_below(manifest.table, inner)
