"""Datasets of several files with many rows each, whose names say of which split they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from emofuse.datasets.names import is_debris, printable
from emofuse.datasets.roots import Files
from emofuse.datasets.split_names import read_split_names
from emofuse.datasets.walk import joined
from emofuse.errors import DatasetError
from emofuse.specs.datasets import CustomDatasetSpec, StratifiedSplit


def find_shards(root: Path, files: Files, suffixes: Sequence[str], kind: str) -> list[str]:
    """Return the paths of all files with some suffixes below a root, sorted; links out of it are not followed.

    Raises:
        DatasetError: there is none, or a folder cannot be listed.
    """
    found: list[str] = []
    others: list[str] = []
    folders, seen = [""], set()
    while folders:
        folder = folders.pop()
        real = files.real(folder)
        if real in seen or not files.leads_inside(folder):
            continue
        seen.add(real)
        try:
            entries = files.entries(folder)
        except OSError as error:
            raise DatasetError(f"{root / folder}: cannot be listed ({error.strerror})") from None
        for entry in entries:
            path = joined(folder, entry.name)
            if is_debris(entry.name):
                continue
            if entry.is_dir:
                folders.append(path)
            elif entry.name.lower().endswith(tuple(suffixes)):
                found.append(path)
            else:
                others.append(path)
    if not found:
        packed = next((path for path in others if re.search(r"\.(tar\.\w+|tgz|gz|zst|7z|rar)$", path)), None)
        hint = f"; {printable(packed)} is compressed as a whole: unpack it" if packed else ""
        raise DatasetError(f"{root}: the {kind} dataset has no file *{' or *'.join(suffixes)}{hint}")
    return sorted(found)


class ShardSplits:
    """The splits of files by the words in their names, or by those of their folders.

    Attributes:
        splits: path -> train, val, test, or None if no word of it is a split.
    """

    def __init__(self, paths: Sequence[str], root: Path) -> None:
        self._root = root
        words = {path: _words(path) for path in paths}
        names = read_split_names(dict.fromkeys(word for each in words.values() for word in each))
        self._word_of = {path: next((word for word in each if word in names), None) for path, each in words.items()}
        self.splits = {path: names.get(word or "") for path, word in self._word_of.items()}

    def check(self, splits: pl.Series, spec: CustomDatasetSpec) -> None:
        """Raise if the official split is asked for, and no row has one.

        Raises:
            DatasetError: so it is.
        """
        if splits.null_count() == len(splits) and not isinstance(spec.split, StratifiedSplit):
            shown = printable(next(iter(self.splits)))
            raise DatasetError(
                f"{self._root}: no file says of which split it is, such as train-00000-of-00002.parquet or "
                f"val-000.tar (the first is {shown}), so there is no official split. Ask for a stratified one: "
                "`split: {kind: stratified}` (dataset check: --split stratified)"
            )

    def notes(self, split_column: str | None = None) -> list[str]:
        """Return how the splits are read, one line; nothing if they are in a column."""
        if split_column is not None:
            return []
        counts = Counter((word, self.splits[path]) for path, word in self._word_of.items() if word is not None)
        read = ", ".join(f"{word!r} as {split} ({count})" for (word, split), count in counts.items())
        notes = [f"splits are read from the names of files: {read}"] if read else []
        if read and (without := sum(word is None for word in self._word_of.values())):
            notes.append(f"files whose name has no split: {without}; their rows are in none")
        return notes


def _words(path: str) -> list[str]:
    """Return the words of a path that may name a split: those of the file first, then the folders, innermost first."""
    *folders, name = path.split("/")
    stem = name.split(".")[0]
    return [*re.findall(r"[A-Za-z]+", stem), *reversed(folders)]
