"""The manifest: the table of samples that every cached array and every run refers to.

Row i of every cached array is row i of the manifest. Labels, splits, groups and the attributes of the dataset are kept
only here, so that relabelling, re-splitting or grouping needs no extraction.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from emofuse.datasets.names import printable
from emofuse.datasets.sources import FILE_COLUMNS, SOURCE_COLUMNS, source_columns
from emofuse.errors import DatasetError
from emofuse.stores import as_path, replace_file

COLUMNS = ("sample_id", "path", "split", "label", "group", "problem")
RESERVED = (*COLUMNS, *SOURCE_COLUMNS, "file", "row", "index")  # columns that an attribute cannot be named after
_GROUP = "group"
_FILE_PREFIX = "emofuse.file."
_INFO_KEY = "emofuse"
_IDS_AT_ONCE = 65536
_SEAL_KEY = "emofuse.sha256"
_SEAL_PREFIX = "sha256 of this file with zeros in place of these digits: "
_OPEN_SEAL = _SEAL_PREFIX + 64 * "0"
_SEAL = re.compile(re.escape(_SEAL_PREFIX.encode()) + rb"([0-9a-f]{64})")


@dataclass(frozen=True)
class Manifest:
    """The N samples of a dataset, in a fixed order.

    Attributes:
        table: a polars frame of N rows. `sample_id` str, unique. `path` str, relative to `root`, with forward slashes.
            `split` str or null: train, val, test. `label` str or null: one of `classes`. `group` str or null: who or
            what the row comes from (speaker, subject, film, picture), which splits and folds never part; null is a
            group of its own. `problem` str or null: why the row is bad, in one line (such rows are kept only on
            request). The columns of `SOURCE_COLUMNS` are there if samples are members or spans of files, or have
            their sound in files of their own. Further columns are attributes of the dataset. A table without `group`
            gets the column, with null in all rows.
        classes: the label names in the order of their indices: the order of the dataset, or alphabetical if it has
            none.
        root: the folder that the paths are relative to.
        info: facts on the dataset as plain JSON: `name`, `kind`, and further keys of the reader.
        files: N rows of `FILE_COLUMNS`, by which a replaced image is noticed: its length, its time of change
            (nanoseconds since 1970) and the CRC-32C of its bytes, null where unknown; None if all are unknown. They
            describe the files on the disk in a manifest that was just read, and the extracted files in that of a cache.
            Where a sample has its sound in a file of its own, lengths and times are sums of both files, and the
            CRC-32C is that of both contents. That of a member is the member's. Long files and spans have none.
    """

    table: pl.DataFrame
    classes: tuple[str, ...]
    root: Path
    info: Mapping[str, Any]
    files: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        if _GROUP not in self.table.columns:
            object.__setattr__(self, "table", _with_groups(self.table))

    def __len__(self) -> int:
        return self.table.height

    @cached_property
    def ids_digest(self) -> str:
        """The SHA-256 of the sample ids in order, joined by line feeds, which ties cached rows to a manifest."""
        digest = hashlib.sha256()
        for first, part in enumerate(self.table.select("sample_id").iter_slices(_IDS_AT_ONCE)):
            digest.update(b"\n" if first else b"")
            digest.update("\n".join(part["sample_id"].to_list()).encode())
        return digest.hexdigest()

    @property
    def place(self) -> Path:
        """The root, or the file below it that all rows are members of."""
        if "member" not in self.table.columns or self.table["member"].null_count() or not len(self):
            return self.root
        first = self.table["path"][0]
        return self.root / first if (self.table["path"] == first).all() else self.root

    def describe(self) -> str:
        """Return the numbers of rows and labels, and where they are from."""
        return f"{len(self)} rows, {len(self.classes) or 'no'} labels, from {self.place}"

    @property
    def known_files(self) -> pl.DataFrame:
        """The table `files`, with null in all rows if it is None."""
        if self.files is not None:
            return self.files
        return pl.DataFrame({name: [None] * len(self) for name in FILE_COLUMNS}, schema=FILE_COLUMNS)

    @property
    def groups(self) -> list[str | None]:
        """The group of every row (N,), None for a row that is a group of its own."""
        return self.table[_GROUP].to_list()

    @property
    def attributes(self) -> list[str]:
        """The names of the columns that are the dataset's own; runs may have them as their target."""
        return [name for name in self.table.columns if name not in COLUMNS and name not in SOURCE_COLUMNS]

    def head(self, rows: int) -> Manifest:
        """Return the manifest of the first rows."""
        files = None if self.files is None else self.files[:rows]
        return Manifest(self.table[:rows], self.classes, self.root, self.info, files)

    def equals(self, other: Manifest) -> bool:
        """Return whether both manifests have the same content."""
        heads = [(each.classes, each.root, json.dumps(dict(each.info))) for each in (self, other)]
        if heads[0] != heads[1] or not self.table.equals(other.table):
            return False
        if self.files is None or other.files is None:
            return self.files is other.files
        return self.files.equals(other.files)

    def write(self, path: Path) -> None:
        """Write one Parquet file, with classes, root and info in its metadata, and replace the former file atomically.

        The file contains a checksum of all its bytes, because Parquet has none, so that a damaged file is not parsed.
        """
        info = {
            "classes": list(self.classes),
            "root": str(self.root),
            "info": dict(self.info),
            "columns": [*COLUMNS, *source_columns(self.table)],
        }
        text = json.dumps(info, ensure_ascii=False)
        if printable(text) != text:  # bytes of the root's name that are not UTF-8 are escaped, and can be read back
            text = json.dumps(info)
        metadata = {_INFO_KEY: text, _SEAL_KEY: _OPEN_SEAL}
        buffer = io.BytesIO()
        table = self.table
        if self.files is not None:
            table = table.hstack([column.alias(_FILE_PREFIX + column.name) for column in self.files])
        table.write_parquet(buffer, metadata=metadata)
        data = buffer.getvalue()
        replace_file(path, data.replace(_OPEN_SEAL.encode(), _seal(data).encode()))

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest that `write` wrote.

        Raises:
            DatasetError: there is no such file, or it is damaged or not a manifest of emofuse.
        """
        if not path.is_file():
            raise DatasetError(f"{path}: no such manifest")
        data = path.read_bytes()
        if not _is_intact(data):
            raise DatasetError(f"{path}: damaged, its checksum does not fit")
        metadata = pl.read_parquet_metadata(io.BytesIO(data))
        if _INFO_KEY not in metadata:
            raise DatasetError(f"{path}: not a manifest of emofuse (its Parquet metadata lacks {_INFO_KEY!r})")
        info = json.loads(metadata[_INFO_KEY])
        table = pl.read_parquet(io.BytesIO(data))
        names = [name for name in table.columns if name.startswith(_FILE_PREFIX)]
        files = table.select(pl.col(names).name.replace(f"^{re.escape(_FILE_PREFIX)}", "")) if names else None
        table = table.drop(names)
        for name in (_GROUP, *SOURCE_COLUMNS):
            if name not in info.get("columns", ()):  # an attribute of the dataset, from before the name had a meaning
                table = table.rename({name: attribute_name(name, table.columns)}, strict=False)
        return cls(table, tuple(info["classes"]), as_path(info["root"]), info["info"], files)


def _with_groups(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with the column `group`, null in all rows, before `problem`."""
    place = table.columns.index("problem") if "problem" in table.columns else table.width
    names = table.columns
    return table.select(*names[:place], pl.lit(None, pl.String).alias(_GROUP), *names[place:])


def other_values(column: pl.Series, other: pl.Series) -> pl.Series:
    """Return where the values of two columns of N rows differ, bool (N,); two that are NaN or null do not."""
    pairs = zip(column.to_list(), other.to_list(), strict=True)
    differs = [one != two and not (one != one and two != two) for one, two in pairs]  # noqa: PLR0124 - only NaN does
    return pl.Series(differs, dtype=pl.Boolean)


def attribute_name(name: str, others: Collection[str]) -> str:
    """Return the name of an attribute in the manifest: with the prefix `table_` where it is that of another column."""
    new = name
    while new in RESERVED or (new != name and new in others):
        new = f"table_{new}"
    return new


def _seal(data: bytes) -> str:
    return _SEAL_PREFIX + hashlib.sha256(data).hexdigest()


def _is_intact(data: bytes) -> bool:
    """Return whether a file has the bytes that were written; true for files of versions without a checksum."""
    seal = _SEAL.search(data)
    if seal is None:
        return _SEAL_KEY.encode() not in data
    start, end = seal.span(1)
    return hashlib.sha256(data[:start] + 64 * b"0" + data[end:]).hexdigest().encode() == seal[1]
