"""Files of a dataset that have the same bytes: one image under several names.

Such rows leak from training into the test where they are in several splits, and contradict each other where their
labels differ. Copies that were scaled or encoded again have other bytes; `near_duplicates` finds them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from emofuse.checksum import hash_file
from emofuse.datasets.files import map_in_threads
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.members import open_members, read_content
from emofuse.datasets.sources import Source, named_paths, source_columns
from emofuse.errors import DecodeError
from emofuse.progress import step
from emofuse.stores import is_remote

_FILES_PER_TASK = 16


@dataclass(frozen=True)
class DuplicateGroup:
    """Rows whose files have the same bytes or show the same picture, in the manifest's order.

    Attributes:
        paths: the paths of the n files, relative to the dataset's root.
        labels: their labels (n,); None for an unlabelled row.
        splits: their splits (n,); None for a row in no split.
        sample_ids: their ids (n,).
        mirrored: whether each picture is mirrored against the first one (n,); () if all are as they are.
        sign: what stands between two files of a description.
    """

    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    splits: tuple[str | None, ...]
    sample_ids: tuple[str, ...] = ()
    mirrored: tuple[bool, ...] = ()
    sign: str = " = "

    @classmethod
    def of(cls, rows: pl.DataFrame, **details: Any) -> DuplicateGroup:
        """Return the group of rows with the columns `path`, `label`, `split` and `sample_id`."""
        paths, labels, splits, ids = (tuple(rows[name].to_list()) for name in ("path", "label", "split", "sample_id"))
        return cls(paths, labels, splits, ids, **details)

    @property
    def has_contradicting_labels(self) -> bool:
        """Whether the image has several labels; rows without a label do not count."""
        return len({label for label in self.labels if label is not None}) > 1

    @property
    def is_in_several_splits(self) -> bool:
        """Whether the image is in several splits; rows without a split do not count."""
        return len({split for split in self.splits if split is not None}) > 1

    def __str__(self) -> str:
        """Return all rows in one line: `a.jpg (happy, train) = b.jpg (sad, test)`."""
        mirrored = self.mirrored or (False,) * len(self.paths)
        return self.sign.join(
            f"{path} ({label or 'no label'}, {split or 'no split'}{', mirrored' * is_mirrored})"
            for path, label, split, is_mirrored in zip(self.paths, self.labels, self.splits, mirrored, strict=True)
        )


def find_duplicates(manifest: Manifest) -> list[DuplicateGroup]:
    """Find the files with the same bytes; bad rows are left out.

    Only files that have their length in common with another one are read, as a whole and in threads. A file that cannot
    be read any more is left out, and so are spans, whose files have several rows. Members of archives count as files;
    cells of tables have no length that is known, and are read all. A sample with its sound in a file of its own is a
    copy if both files are.

    Args:
        manifest: the manifest of a dataset that was just read.

    Returns:
        One group per image that has several rows: first those with contradicting labels, then those in several splits,
        then the others, each in the manifest's order.

    Raises:
        StoreError: the store that the dataset lies on does not answer.
    """
    names = ["path", "label", "split", "sample_id", "problem", *source_columns(manifest.table)]
    rows = manifest.table.select(names).with_columns(manifest.known_files["bytes"])
    parts = [name for name in ("start_s", "end_s") if name in rows.columns]
    rows = rows.filter(pl.all_horizontal(pl.col("problem", *parts).is_null()))
    if "member" in rows.columns:
        rows = rows.with_columns(_lengths_of_members(manifest.root, rows))
    if rows["bytes"].null_count() == 0:  # else any file may have the length of another one
        rows = rows.filter(pl.col("bytes").is_duplicated())
    groups = _same_bytes(manifest.root, rows)
    return sorted(groups, key=lambda group: (not group.has_contradicting_labels, not group.is_in_several_splits))


def describe_duplicates(groups: Sequence[DuplicateGroup]) -> str:
    """Return how many images and rows the groups have, and what is wrong with them, in one line."""
    rows = sum(len(group.paths) for group in groups)
    contradicting = sum(group.has_contradicting_labels for group in groups)
    leaking = sum(group.is_in_several_splits for group in groups)
    images = f"{len(groups)} image{'s' * (len(groups) != 1)} in {rows} rows"
    return f"{images}, {contradicting} with contradicting labels, {leaking} in several splits"


def groups_of_duplicates(groups: Iterable[DuplicateGroup]) -> dict[str, str]:
    """Return sample id -> the name of its group: `copies of` and the first sample; overlapping groups are joined."""
    group_of: dict[str, str] = {}
    for group in groups:
        names = {group_of[sample_id] for sample_id in group.sample_ids if sample_id in group_of}
        name = min(names, default=f"copies of {group.sample_ids[0]}")
        joined = [sample_id for sample_id, each in group_of.items() if each in names - {name}]
        group_of |= dict.fromkeys([*joined, *group.sample_ids], name)
    return group_of


def _same_bytes(root: Path, rows: pl.DataFrame) -> list[DuplicateGroup]:
    """Return the groups of rows (columns `path`, `label`, `split`) whose files have the same SHA-256."""
    rows_of: dict[tuple[str, ...], list[int]] = defaultdict(list)
    columns = [name for name in ("path", "audio_path") if name in rows.columns]
    members = rows["member"] if "member" in rows.columns else [None] * rows.height
    paths = [
        [Source(root / path, member if place == 0 else None) for place, path in enumerate(row) if path is not None]
        for row, member in zip(rows.select(columns).iter_rows(), members, strict=True)
    ]
    rows = rows.with_columns(named_paths(rows))
    with step("comparing files", len(paths), "files") as advance:
        hashes = map_in_threads(_hashes, paths, paths_per_task=_FILES_PER_TASK)
        for row, sha256 in enumerate(hashes):
            if sha256 is not None:
                rows_of[sha256].append(row)
            advance(row + 1, len(paths))
    groups = [rows[same] for same in rows_of.values() if len(same) > 1]
    return [DuplicateGroup.of(group) for group in groups]


def _lengths_of_members(root: Path, rows: pl.DataFrame) -> pl.Series:
    """Return the lengths of files and members, int64 (n,), null where only reading a member says it."""
    lengths: list[int | None] = []
    for path, member, length in rows.select("path", "member", "bytes").iter_rows():
        try:
            lengths.append(length if member is None else open_members(root / path).length(member))
        except (DecodeError, OSError):
            lengths.append(None)
    return pl.Series("bytes", lengths, dtype=pl.Int64)


def _hashes(sources: Sequence[Source]) -> tuple[str, ...] | None:
    """Return the SHA-256 of all files of a sample; None if one of them cannot be read."""
    hashes = [_hash(source) for source in sources]
    return None if None in hashes else tuple(each for each in hashes if each is not None)


def _hash(source: Source) -> str | None:
    try:
        if source.member is None and not is_remote(source.path):
            return hash_file(source.path)
        return hashlib.sha256(read_content(source)).hexdigest()
    except (DecodeError, OSError):  # it was there when the dataset was listed
        return None
