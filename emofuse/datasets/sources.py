"""The source of a sample: a file, a member of one, or a span of one, and its separate sound file if there is one.

A manifest holds it in the column `path` and, only if some sample needs them, in the columns of `SOURCE_COLUMNS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # extraction processes use `Source` alone, and would take a quarter longer to start with polars
    import polars as pl

SOURCE_COLUMNS: dict[str, type] = {"member": str, "audio_path": str, "start_s": float, "end_s": float}
"""The columns of a manifest that its samples may need, beside `path`, with their types; see `Source`."""

FILE_COLUMNS: dict[str, type] = {"bytes": int, "modified_ns": int, "crc32c": int}
"""The columns that describe the file of a sample, with their types; see `emofuse.datasets.manifest.Manifest.files`."""


@dataclass(frozen=True, slots=True)
class Source:
    """The place of one sample on a disk or a store.

    Attributes:
        path: the file: a picture, a video, a sound, or an archive.
        member: the name of a file in the archive at `path`, or of a cell in the table there (see
            `emofuse.datasets.members`); None for a file itself.
        audio_path: the file with the sound, where it lies apart; None if the sound is that of `path`.
        start_s: the begin of an utterance in a longer file, in seconds from its start; None for the start.
        end_s: the end of the utterance; None for the end of the file.
        face_box: the left, top, width and height of the face that is meant, in pixels of the picture; None where the
            cache spec chooses the face.
    """

    path: Path
    member: str | None = None
    audio_path: Path | None = None
    start_s: float | None = None
    end_s: float | None = None
    face_box: tuple[float, float, float, float] | None = None

    @classmethod
    def of(cls, path: Path | Source | None) -> Source | None:
        """Return the source of a whole file; a source, and None, is returned itself."""
        return cls(path) if path is not None and not isinstance(path, Source) else path

    def __str__(self) -> str:
        """Return the path, followed by the member."""
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    @property
    def is_span(self) -> bool:
        """Whether the sample is a part of a longer file."""
        return self.start_s is not None or self.end_s is not None


FACE_BOX = ("face_left", "face_top", "face_width", "face_height")
"""The attributes of a manifest that say which face of a picture a row means, in pixels; see `Source.face_box`."""


class _HeldFiles(Protocol):
    def holds(self, path: str) -> bool:
        """Return whether a relative path ends below the root."""


def source_columns(table: pl.DataFrame) -> list[str]:
    """Return the names of the columns of a manifest's table that describe sources, apart from `path`."""
    return [name for name in SOURCE_COLUMNS if name in table.columns]


def named_paths(table: pl.DataFrame) -> pl.Series:
    """Return the paths of the rows of a manifest's table followed by their members, str (n,)."""
    if "member" not in table.columns:
        return table["path"]
    import polars as pl

    member = pl.col("member")
    named = pl.when(member.is_null()).then("path").otherwise(pl.format("{}/{}", "path", member))
    return table.select(named.alias("path"))["path"]


def sources_of(table: pl.DataFrame, root: Path, files: _HeldFiles) -> list[Source | None]:
    """Return the sources of the rows of a manifest (n,).

    None stands for a bad row, and for one whose path, or that of its sound, leaves the root.

    Args:
        table: rows of a manifest's table.
        root: the root of the dataset.
        files: the files below the root.
    """
    names = ("path", "problem", *source_columns(table))
    columns = [table[name].to_list() for name in names]
    rows = [_source(dict(zip(names, row, strict=True)), root, files) for row in zip(*columns, strict=True)]
    boxes = face_boxes(table)
    return [
        source if source is None or box is None else replace(source, face_box=box)
        for source, box in zip(rows, boxes, strict=True)
    ]


def face_boxes(table: pl.DataFrame) -> list[tuple[float, float, float, float] | None]:
    """Return the left, top, width and height of the face that each row means, where all four are numbers (n,)."""
    if not all(name in table.columns and table[name].dtype.is_numeric() for name in FACE_BOX):
        return [None] * table.height
    import polars as pl

    boxes = table.select(pl.col(FACE_BOX).cast(pl.Float64)).rows()
    return [box if all(value is not None and math.isfinite(value) for value in box) else None for box in boxes]


def _source(row: dict[str, Any], root: Path, files: _HeldFiles) -> Source | None:
    path, problem, audio_path = row.pop("path"), row.pop("problem"), row.pop("audio_path", None)
    if problem is not None or not all(files.holds(each) for each in (path, audio_path) if each is not None):
        return None
    return Source(root / path, audio_path=None if audio_path is None else root / audio_path, **row)


def moved_below(table: pl.DataFrame, folder: str) -> pl.DataFrame:
    """Return the table of a manifest whose root is now the folder above `folder`: its paths begin with that name."""
    import polars as pl

    names = [name for name in ("path", "audio_path") if name in table.columns]
    moved = [
        pl.when(pl.col(name) != "").then(pl.format("{}/{}", pl.lit(folder), name)).otherwise(name).alias(name)
        for name in names
    ]
    return table.with_columns(moved)


def changed_sources(
    old: pl.DataFrame, new: pl.DataFrame, columns: Sequence[str] = ("member", "start_s", "end_s")
) -> pl.Series:
    """Return which rows are another member or span of their file now, bool (n,)."""
    import polars as pl

    changed = pl.Series([False] * old.height, dtype=pl.Boolean)
    for name in columns:
        dtype = pl.Float64 if SOURCE_COLUMNS[name] is float else pl.String
        had, has = (
            table[name] if name in table.columns else pl.Series([None] * table.height, dtype=dtype)
            for table in (old, new)
        )
        changed |= had.ne_missing(has)
    return changed


def changed_face_boxes(old: pl.DataFrame, new: pl.DataFrame) -> pl.Series:
    """Return which rows mean another face of their picture now, bool (n,)."""
    import polars as pl

    pairs = zip(face_boxes(old), face_boxes(new), strict=True)
    return pl.Series([former != box for former, box in pairs], dtype=pl.Boolean)


def span_faults(table: pl.DataFrame) -> Sequence[tuple[int, str]]:
    """Return the rows whose span begins before their file, or ends before it begins, with the span as text."""
    if not {"start_s", "end_s"} & set(table.columns):
        return []
    nothing = [None] * table.height
    columns = (table[name].to_list() if name in table.columns else nothing for name in ("start_s", "end_s"))
    return [
        (row, f"from {start} to {end} s")
        for row, (start, end) in enumerate(zip(*columns, strict=True))
        if (start is not None and not start >= 0) or (end is not None and not end > (start or 0))
    ]
