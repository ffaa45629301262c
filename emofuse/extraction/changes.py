"""The changes of a dataset since a cache was built from it: they are found, named, and adopted where that is possible.

New rows are appended, in any order of the dataset: row i of the cache stays row i and keeps its id, even if its file
moved to the folder of another label, or if another file with its stem was added. Labels, splits, groups and attributes
are those of the dataset now. A row that disappeared cannot be removed from the arrays: this is an error, or on request
the row belongs to no split.

An image counts as replaced if its length changed, or if it was written again and the CRC-32C of its bytes differs.
Files of which only the time changed (a copied dataset) are read once and keep their features. The members of an archive
or table that changed in length, too, are compared by their own bytes. An image that was
replaced by one of the same length and time is not found here; `emofuse cache verify --sample` may find it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.cache.layout import CacheLayout, manifest_path, streams_dir
from emofuse.cache.metadata import extracted_streams, read_manifest, read_stream_layout, stream_names
from emofuse.cache.writer import discard_blocks
from emofuse.cache.zarr_store import open_array, update_group
from emofuse.datasets.files import map_in_threads
from emofuse.datasets.manifest import Manifest, other_values
from emofuse.datasets.roots import follows_links, open_files
from emofuse.datasets.sources import changed_face_boxes, changed_sources, sources_of
from emofuse.errors import CacheError, StaleCacheError
from emofuse.extraction.matching import NOWHERE, kept_ids, match_rows, source_sum
from emofuse.stores import is_remote

GONE = "no longer in the dataset"
_NAMED = 3
_STAMPS = ("bytes", "modified_ns")
_FOR_READERS = ("notes", "label_column")  # facts that are printed and change nothing else


@dataclass(frozen=True)
class DatasetChanges:
    """The differences between a dataset and a cache.

    Attributes:
        manifest: the dataset's rows in the order of the cache, new rows last, with what is now known of their files.
        old: the layout of the cache as it is.
        layout: the layout of the cache as it will be.
        replaced: the rows whose images differ from those that were extracted, int64 (n,), ascending.
        is_new_manifest: whether the manifest differs from that of the cache.
        is_new_but_for_notes: the same without the facts for readers, which depend on the version of this code.
        lines: a description of every change.
    """

    manifest: Manifest
    old: CacheLayout
    layout: CacheLayout
    replaced: npt.NDArray[np.int64]
    is_new_manifest: bool
    is_new_but_for_notes: bool
    lines: tuple[str, ...]

    @property
    def replaced_blocks(self) -> npt.NDArray[np.int64]:
        """The blocks that hold a replaced row, ascending."""
        blocks: npt.NDArray[np.int64] = np.unique(self.replaced // self.old.block_rows)
        return blocks


def notice_changes(path: Path, layout: CacheLayout, manifest: Manifest, *, keep_gone: bool = False) -> DatasetChanges:
    """Compare a dataset with a cache, without writing.

    Args:
        path: the path of the cache.
        layout: the layout of the cache.
        manifest: the manifest of the dataset now.
        keep_gone: whether rows stay, in no split, when their samples are no longer in the dataset; otherwise such
            rows are an error.

    Raises:
        StaleCacheError: samples of the cache are no longer in the dataset, or the cache does not say which they were.
    """
    same_order = manifest.ids_digest == layout.ids_digest
    try:
        old = read_manifest(path, layout)
    except CacheError as error:
        if not same_order:
            raise StaleCacheError(
                f"{path} holds {layout.rows} rows of other samples than the dataset's {len(manifest)}, and which they "
                f"are cannot be told: {error}"
            ) from None
        return DatasetChanges(
            manifest, layout, layout, np.empty(0, np.int64), is_new_manifest=True, is_new_but_for_notes=True, lines=()
        )
    lines: list[str] = []
    if not same_order:
        manifest = _in_order_of_cache(path, old, manifest, lines, keep_gone=keep_gone)
    lines += _relabelled(old, manifest)
    manifest, replaced = _compare_files(old, manifest, lines)
    new = layout if same_order else replace(layout, rows=len(manifest), ids_digest=manifest.ids_digest)
    for_readers = {name: manifest.info[name] for name in _FOR_READERS if name in manifest.info}
    is_other = not manifest.equals(replace(old, info={**old.info, **for_readers}))
    return DatasetChanges(manifest, layout, new, replaced, not manifest.equals(old), is_other, tuple(lines))


def adopt_changes(path: Path, changes: DatasetChanges) -> None:
    """Adapt a cache to the dataset as it is now. Call it under `lock_cache`.

    The blocks of replaced images are discarded first. Then the manifest is replaced, the arrays are extended, and the
    new number of rows is written last. Whenever this is killed, the next build finds what is left to do.
    """
    layouts = [layout for name in stream_names(path) if (layout := read_stream_layout(path, name)) is not None]
    extracted = extracted_streams(path)
    for layout in layouts:
        if layout.name in extracted:
            blocks = product(changes.replaced_blocks.tolist(), range(layout.views))
            discard_blocks(path, layout.name, blocks)
    if changes.is_new_manifest:
        changes.manifest.write(manifest_path(path))
    if changes.layout == changes.old:
        return
    for layout in layouts:
        for array in layout.arrays:
            stored = open_array(streams_dir(path) / layout.name / array, "r+")
            stored.resize((changes.layout.rows, *stored.shape[1:]))
    update_group(path, changes.layout.to_attributes())


def _in_order_of_cache(path: Path, old: Manifest, new: Manifest, lines: list[str], *, keep_gone: bool) -> Manifest:
    """Return the new manifest with the cache's rows first, in their order and under their ids.

    Raises:
        StaleCacheError: rows of the cache are no longer in the dataset, and they are not to be kept.
    """
    places = match_rows(old, new)
    gone = np.flatnonzero(places == NOWHERE)
    noted_before = (old.table["problem"] == GONE).fill_null(value=False).to_numpy()
    newly_gone = gone[~noted_before[gone]]
    names = old.table["sample_id"]
    if len(newly_gone) and (not keep_gone or len(gone) == len(old)):
        raise StaleCacheError(
            f"{path} holds {len(old)} rows, the dataset now has {len(new)}; no longer among them: "
            f"{_some(names[newly_gone], 'sample')}. Rows cannot be taken out of a cache: {_advice(gone, old)}"
        )
    if len(newly_gone):
        lines.append(f"no longer in the dataset: {_some(names[newly_gone], 'sample')}; kept, in no split")
    there = places[places != NOWHERE]
    if np.any(np.diff(there) < 0):
        lines.append("another order in the dataset: the cache keeps its own")
    table = new.table.with_columns(kept_ids(old, new, places))
    behind = np.setdiff1d(np.arange(len(new)), there)
    if len(behind):
        lines.append(f"new, behind those that there are: {_some(table['sample_id'][behind], 'sample')}")

    places[gone] = len(new) + np.arange(len(gone))
    order = np.concatenate([places, behind])
    table = pl.concat([table, _gone_rows(old, gone, table.schema)])[order]
    files = pl.concat([new.known_files, old.known_files[gone].select(new.known_files.columns)])[order]
    is_known = new.files is not None or (old.files is not None and len(gone) > 0)
    return Manifest(table, new.classes, new.root, _info(new, names[gone]), files if is_known else None)


def _advice(gone: npt.NDArray[np.int64], old: Manifest) -> str:
    if len(gone) == len(old):
        return "this is another dataset, so build into another path."
    return (
        "keep those of the deleted samples, out of every split, with --on-bad-rows keep; or put the samples back; or "
        "build into another path."
    )


def _gone_rows(old: Manifest, gone: npt.NDArray[np.int64], schema: pl.Schema) -> pl.DataFrame:
    """Return the rows of deleted samples without label, split and attributes: nothing trains or scores them."""
    rows = old.table[gone].select("sample_id", "path", problem=pl.lit(GONE))
    absent = [pl.lit(None).cast(dtype).alias(name) for name, dtype in schema.items() if name not in rows.columns]
    return rows.with_columns(absent).select(schema.names())


def _info(new: Manifest, gone: pl.Series) -> dict[str, Any]:
    """Return the description of the dataset, with a note on the rows that only the cache has."""
    if not len(gone):
        return dict(new.info)
    note = f"rows that are no longer in the dataset, kept in the cache and in no split: {_some(gone, 'sample')}"
    return {**new.info, "notes": [*new.info.get("notes", ()), note]}


def _relabelled(old: Manifest, new: Manifest) -> list[str]:
    """Return a line for each change that needs no extraction: labels, splits, attributes, paths, unreadable images."""
    lines = []
    had, has = old.table, new.table[: len(old)]
    is_there = (has["problem"] != GONE).fill_null(value=True)
    had, has = had.filter(is_there), has.filter(is_there)
    for column in ("label", "split", "group", "path"):
        differs = had[column].ne_missing(has[column])
        if differs.any():
            lines.append(f"another {column}: {_some(has['sample_id'].filter(differs), 'sample')}")
    lines += _other_attributes(old, new, had, has)
    if old.root != new.root:
        lines.append(f"moved from {old.root} to {new.root}")
    lost = had["problem"].is_null() & has["problem"].is_not_null()
    if lost.any():
        named = _some(has["sample_id"].filter(lost), "sample")
        lines.append(f"no longer readable ({has['problem'].filter(lost)[0]}): {named}; their features are kept")
    return lines


def _other_attributes(old: Manifest, new: Manifest, had: pl.DataFrame, has: pl.DataFrame) -> list[str]:
    """Return a line for the attributes that are new, gone or of other values: runs may have them as their target."""
    before, now = old.attributes, new.attributes
    lines = []
    if added := [name for name in now if name not in before]:
        lines.append(f"new attributes: {', '.join(added)}")
    if gone := [name for name in before if name not in now]:
        lines.append(f"attributes that are gone: {', '.join(gone)}")
    for name in (name for name in now if name in before):
        if had[name].dtype != has[name].dtype:
            lines.append(f"attribute {name!r} has the type {has[name].dtype} now, it had {had[name].dtype}")
            continue
        if (differs := other_values(had[name], has[name])).any():
            lines.append(f"another {name}: {_some(has['sample_id'].filter(differs), 'sample')}")
    return lines


def _compare_files(old: Manifest, new: Manifest, lines: list[str]) -> tuple[Manifest, npt.NDArray[np.int64]]:
    """Return the new manifest with all that is known of its files, and the rows whose images were replaced."""
    rows = len(old)
    now, then = new.known_files, old.known_files
    has_problem = new.table["problem"][:rows].is_not_null()
    replaced = old.table["problem"].is_not_null() & ~has_problem  # there was no file before
    is_there = old.table["problem"].is_null()
    both = now["bytes"][:rows].is_not_null() & then["bytes"].is_not_null() & ~has_problem & ~replaced
    other_length = both & (now["bytes"][:rows] != then["bytes"])
    # The length of a file with members is that of all together, and says nothing of one that was packed or unpacked.
    is_member = _members(old).is_not_null() | _members(new)[:rows].is_not_null()
    other_member = changed_sources(old.table, new.table[:rows], ["member"])
    longer = other_length & ~is_member
    rewritten = now["modified_ns"][:rows].ne_missing(then["modified_ns"]) | other_length | other_member
    rewritten &= both & ~longer
    same = _same_bytes(new, then["crc32c"], rewritten)
    if same.any():
        lines.append(
            f"written again with the same bytes: {_some(new.table['sample_id'][:rows].filter(same), 'sample')}"
        )
    other_part = changed_sources(old.table, new.table[:rows], ["start_s", "end_s"]) | (other_member & ~rewritten)
    other_part |= changed_face_boxes(old.table, new.table[:rows])
    replaced |= longer | (rewritten & ~same) | (other_part & ~has_problem & is_there)
    if replaced.any():
        named = _some(new.table["sample_id"][:rows].filter(replaced), "sample")
        lines.append(f"replaced: {named}; their blocks are computed again")
    is_kept = has_problem | now["bytes"][:rows].is_null()  # nothing is known that would be newer
    merged = now[:rows].with_columns(
        *(pl.when(is_kept).then(then[name]).otherwise(pl.col(name)).alias(name) for name in _STAMPS),
        pl.when(~replaced).then(then["crc32c"]).alias("crc32c"),
    )
    files = pl.concat([merged, now[rows:]])
    is_known = new.files is not None or old.files is not None
    return replace(new, files=files if is_known else None), replaced.arg_true().to_numpy().astype(np.int64)


def _members(manifest: Manifest) -> pl.Series:
    table = manifest.table
    return table["member"] if "member" in table.columns else pl.Series([None] * table.height, dtype=pl.String)


def _same_bytes(manifest: Manifest, sums: pl.Series, rewritten: pl.Series) -> pl.Series:
    """Return which of the files that were written again have the same bytes, bool (rows,). Only these are read."""
    same = np.zeros(len(sums), dtype=np.bool_)
    if is_remote(manifest.root):
        return pl.Series(same)
    rows = (rewritten & sums.is_not_null()).arg_true().to_list()
    files = open_files(manifest.root, follow_links=follows_links(manifest))
    sources = sources_of(manifest.table[rows], manifest.root, files)
    for row, crc in zip(rows, map_in_threads(source_sum, sources), strict=True):
        same[row] = crc == sums[row]
    return pl.Series(same)


def _some(names: pl.Series, noun: str) -> str:
    """Return a count with the first names, such as `3 samples (a, b, c)`."""
    listed = ", ".join(names[:_NAMED].to_list()) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names)} {noun if len(names) == 1 else noun + 's'} ({listed})"
