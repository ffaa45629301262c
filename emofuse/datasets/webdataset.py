"""The dataset kind `webdataset`: tar archives whose members with one stem are one sample (WebDataset)."""

from __future__ import annotations

import json
import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from emofuse.datasets.archive_files import check_root_or_file
from emofuse.datasets.manifest import attribute_name
from emofuse.datasets.members import open_members, read_member
from emofuse.datasets.names import NameKind, is_debris, kind_of_name, printable
from emofuse.datasets.roots import open_files
from emofuse.datasets.row_faults import Faults, RowFault
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.datasets.shards import ShardSplits, find_shards
from emofuse.errors import DatasetError, DecodeError
from emofuse.progress import step
from emofuse.specs.datasets import CustomDatasetSpec

_MEDIA = (NameKind.IMAGE, NameKind.CLIP, NameKind.SOUND)
_LABEL_PARTS = ("cls", "txt", "json")
_MOST_BYTES = 1 << 20  # of a label


class WebdatasetSpec(CustomDatasetSpec):
    """Tar archives, not compressed as a whole: `root/train-000000.tar` with `0001.jpg`, `0001.cls`, `0002.jpg`, ...

    Members that have all before the first dot of their name in common are one sample: its picture (or clip, or sound)
    and its label, in `.cls` (a number or a name), `.txt` (a name) or `.json`, where the label is the value of
    `label_key`, and other numbers and words are attributes. `label` chooses one of the three; by default it is the
    first of them that the first sample has. `classes` are the names of labels that are numbers, in their order from 0.
    The split is in the name of the archive, or in that of its folder. `group_key` is the key in `.json` of who or what
    a sample comes from.
    """

    ids_from_paths: ClassVar[bool] = False
    kind: Literal["webdataset"] = "webdataset"
    label: Literal["cls", "txt", "json"] | None = None
    label_key: str = "label"
    group_key: str | None = None
    classes: tuple[str, ...] = Field((), description="the names of labels that are numbers")
    group_file: Path | None = None

    def read(self) -> Listing:
        """List and check the samples."""
        root, name = check_root_or_file(self.root, self.kind)
        files = open_files(root, follow_links=self.follow_links)
        paths = [name] if name is not None else find_shards(root, files, (".tar",), self.kind)
        found = _Samples()
        with step("reading the archives", len(paths), "files") as advance:
            for number, path in enumerate(paths, start=1):
                _read_shard(self, root, path, found)
                advance(number, len(paths))
        if not found.rows:
            raise DatasetError(f"{root}: no picture, clip or sound in {len(paths)} tar archives")
        splits = ShardSplits(paths, root)
        table = _table(found, splits)
        splits.check(table["split"], self)
        notes = [*splits.notes(), *found.notes()]
        title = root.resolve().name if len(paths) > 1 else Path(paths[0]).stem
        classes = _classes(self, table["label"])
        listed = ListedRows(table, classes, printable(title), self.kind, found.faults, notes)
        return check_rows(listed, root, self.split, files, group_file=self.group_file)


@dataclass
class _Samples:
    """The samples that were found, and what was left out."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    attributes: list[Mapping[str, Any]] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    without_media: list[str] = field(default_factory=list)
    further: list[str] = field(default_factory=list)
    part: str | None = None

    def add(self, spec: WebdatasetSpec, shard: Path, parts: Mapping[str, str], key: str) -> None:
        """Add a sample with its label, group and attributes; its place is added by the caller."""
        row = len(self.rows)
        label, attributes = None, {}
        part = spec.label or self.part or next((each for each in _LABEL_PARTS if each in parts), None)
        self.part = part  # the first sample that has a label decides for all
        try:
            if part is not None and part in parts:
                label = _label(spec, part, _text(shard, parts[part]))
            elif part is not None:
                self.faults.add(row, RowFault.DAMAGED_ANNOTATION, f"there is no {key}.{part}")
            if "json" in parts:
                attributes = _attributes(_text(shard, parts["json"]))
        except (DecodeError, ValueError) as error:
            self.faults.add(row, RowFault.DAMAGED_ANNOTATION, f"{key}: {' '.join(str(error).split())[:120]}")
        if label is not None and label.isdecimal() and int(label) < len(spec.classes):
            label = spec.classes[int(label)]
        group = attributes.pop(spec.group_key, None) if spec.group_key else None
        if part == "json":
            attributes.pop(spec.label_key, None)
        self.rows.append({"row": row + 1, "label": label, "group": None if group is None else str(group)})
        self.attributes.append(attributes)

    def notes(self) -> list[str]:
        """Return what was left out, one line each."""
        notes = []
        for what, names in (
            ("samples without a picture, clip or sound, left out", self.without_media),
            ("further pictures, clips and sounds of samples, left out", self.further),
        ):
            if names:
                notes.append(f"{what}: {len(names)}, first {names[0]}")
        return notes


def _read_shard(spec: WebdatasetSpec, root: Path, path: str, found: _Samples) -> None:
    try:
        names = open_members(root / path).names
    except (DecodeError, OSError) as error:
        raise DatasetError(f"{root / path}: {error}") from None
    samples: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        folder, _, last = name.rpartition("/")
        if is_debris(last) or not last:
            continue
        stem, _, part = last.partition(".")
        samples[posixpath.join(folder, stem)][part.lower()] = name
    for key, parts in samples.items():
        media = [part for kind in _MEDIA for part in sorted(parts) if kind_of_name(f"x.{part}") is kind]
        if not media:
            found.without_media.append(printable(f"{path}/{key}"))
            continue
        found.further += [printable(f"{path}/{parts[part]}") for part in media[1:]]
        found.add(spec, root / path, parts, key)
        shard = posixpath.splitext(path)[0]
        found.rows[-1] |= {
            "file": printable(path),
            "path": printable(path),
            "sample_id": printable(f"{shard}/{key.removeprefix('./')}"),
            "member": printable(parts[media[0]]),
        }
        if printable(parts[media[0]]) != parts[media[0]]:
            found.faults.add(len(found.rows) - 1, RowFault.NOT_UTF8)


def _text(path: Path, member: str) -> str:
    def check(length: int) -> None:
        if length > _MOST_BYTES:
            raise DecodeError(f"{member} has {length:,} bytes, too long for a label")

    return read_member(path, member, check_length=check).decode("utf-8-sig").strip()


def _label(spec: WebdatasetSpec, part: str, text: str) -> str | None:
    if part != "json":
        return text or None
    value = _object(text).get(spec.label_key)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{spec.label_key!r} is {value!r}, expected a name or a whole number")  # noqa: TRY004
    return str(value)


def _attributes(text: str) -> dict[str, Any]:
    """Return the numbers and words of a JSON object."""
    return {key: value for key, value in _object(text).items() if isinstance(value, str | int | float)}


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object, got {type(value).__name__}")  # noqa: TRY004 - bad data, not bad code
    return value


def _table(found: _Samples, splits: ShardSplits) -> pl.DataFrame:
    schema = {"file": pl.String, "row": pl.Int64}
    schema |= dict.fromkeys(("sample_id", "path", "member", "label", "group"), pl.String)
    table = pl.DataFrame(found.rows, schema=schema)
    by_path = {printable(path): split for path, split in splits.splits.items()}
    table = table.with_columns(pl.col("path").replace_strict(by_path, return_dtype=pl.String).alias("split"))
    names = dict.fromkeys(name for each in found.attributes for name in each)
    for name in names:
        values = [each.get(name) for each in found.attributes]
        table = table.with_columns(_column(values).alias(attribute_name(printable(name), names)))
    return table


def _column(values: Sequence[Any]) -> pl.Series:
    """Return values as whole numbers, numbers or words, whichever holds them all."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return pl.Series(values, dtype=pl.Boolean)
    if kinds <= {bool, int} and all(value is None or abs(value) < 1 << 63 for value in values):
        return pl.Series(values, dtype=pl.Int64)
    if kinds <= {bool, int, float}:
        return pl.Series([None if value is None else float(value) for value in values], dtype=pl.Float64)
    return pl.Series([None if value is None else printable(str(value)) for value in values], dtype=pl.String)


def _classes(spec: WebdatasetSpec, labels: pl.Series) -> Sequence[str]:
    """Return the classes in their order: those of the spec, or numbers by their value, or names by the alphabet."""
    if spec.classes:
        return spec.classes
    names = sorted(labels.drop_nulls().unique())
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names
