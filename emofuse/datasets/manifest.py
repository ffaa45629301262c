"""The manifest: the table of samples that every array and every run refers to.

Row i of every cached array is row i of the manifest. Labels, splits and the dataset's own attributes live here and
nowhere else, so that relabelling or re-splitting costs no extraction.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from emofuse.datasets.names import printable
from emofuse.errors import DatasetError
from emofuse.stores import as_path, replace_file

COLUMNS = ("sample_id", "path", "split", "label", "problem")
FILE_COLUMNS = {"bytes": pl.Int64, "modified_ns": pl.Int64, "crc32c": pl.Int64}
_FILE_PREFIX = "emofuse.file."
_INFO_KEY = "emofuse"
_IDS_AT_ONCE = 65536
_SEAL_KEY = "emofuse.sha256"
_SEAL_PREFIX = "sha256 of this file with zeros in place of these digits: "
_OPEN_SEAL = _SEAL_PREFIX + 64 * "0"
_FOUND_SEAL = re.compile(re.escape(_SEAL_PREFIX.encode()) + rb"([0-9a-f]{64})")


@dataclass(frozen=True)
class Manifest:
    """N samples in a fixed order.

    Attributes:
        table: a polars frame, N rows. `sample_id` str, unique. `path` str, relative to `root`, with forward slashes.
            `split` str or null: train, val, test. `label` str or null: one of `classes`. `problem` str or null: why the
            row is bad, in one line (kept only on request). Then the dataset's own attributes, one column each.
        classes: label names in their index order (the dataset's, not alphabetical unless the dataset has no order).
        root: folder that the paths are relative to.
        info: plain JSON data about the dataset: `name`, `kind`, and what else the reader knows.
        files: N rows of `FILE_COLUMNS`, by which a replaced image is noticed: its length, when it was written
            (nanoseconds since 1970) and the CRC-32C of its bytes, each null where it is not known. None if nothing is.
            A manifest that was just read says what is on the disk now, that of a cache what was extracted.
    """

    table: pl.DataFrame
    classes: tuple[str, ...]
    root: Path
    info: Mapping[str, Any]
    files: pl.DataFrame | None = None

    def __len__(self) -> int:
        return self.table.height

    @cached_property
    def ids_digest(self) -> str:
        """SHA-256 over the sample ids in order, a line feed between two: what ties cached rows to a manifest."""
        found = hashlib.sha256()
        for first, part in enumerate(self.table.select("sample_id").iter_slices(_IDS_AT_ONCE)):
            found.update(b"\n" if first else b"")
            found.update("\n".join(part["sample_id"].to_list()).encode())
        return found.hexdigest()

    @property
    def known_files(self) -> pl.DataFrame:
        """`files`, all null if nothing is known."""
        if self.files is not None:
            return self.files
        return pl.DataFrame({name: [None] * len(self) for name in FILE_COLUMNS}, schema=FILE_COLUMNS)

    def head(self, rows: int) -> Manifest:
        """The first rows alone."""
        files = None if self.files is None else self.files[:rows]
        return Manifest(self.table[:rows], self.classes, self.root, self.info, files)

    def equals(self, other: Manifest) -> bool:
        """Whether both say the same."""
        heads = [(each.classes, each.root, json.dumps(dict(each.info))) for each in (self, other)]
        if heads[0] != heads[1] or not self.table.equals(other.table):
            return False
        if self.files is None or other.files is None:
            return self.files is other.files
        return self.files.equals(other.files)

    def write(self, path: Path) -> None:
        """Writes one Parquet file (classes, root and info travel in its metadata); replaces the file at once.

        A checksum of all its bytes is among them, so that a damaged file is not parsed: Parquet itself has none.
        """
        info = {"classes": list(self.classes), "root": str(self.root), "info": dict(self.info)}
        text = json.dumps(info, ensure_ascii=False)
        if printable(text) != text:  # the root's name has bytes that are not UTF-8: they are escaped, and read back
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
        """Reads what `write` wrote.

        Raises:
            DatasetError: no such file, damaged, or not a manifest of emofuse.
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
        own = [name for name in table.columns if name.startswith(_FILE_PREFIX)]
        files = table.select(pl.col(own).name.replace(f"^{re.escape(_FILE_PREFIX)}", "")) if own else None
        return cls(table.drop(own), tuple(info["classes"]), as_path(info["root"]), info["info"], files)


def _seal(data: bytes) -> str:
    return _SEAL_PREFIX + hashlib.sha256(data).hexdigest()


def _is_intact(data: bytes) -> bool:
    """Whether a file is as it was written; always true for those of before there was a checksum."""
    found = _FOUND_SEAL.search(data)
    if found is None:
        return _SEAL_KEY.encode() not in data
    start, end = found.span(1)
    return hashlib.sha256(data[:start] + 64 * b"0" + data[end:]).hexdigest().encode() == found[1]
