"""Reader of a folder of images, one folder a label: `root/<label>/*.jpg` or `root/<train|val|test>/<label>/*.jpg`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from emofuse.datasets.files import Entry
from emofuse.datasets.rows import (
    Faults,
    Files,
    FoundRows,
    Listing,
    RowFault,
    check_root,
    check_rows,
    ids_from_paths,
    open_files,
)
from emofuse.datasets.splits import SPLITS
from emofuse.errors import DatasetError
from emofuse.specs import FolderSpec, OfficialSplit

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def read_folder(spec: FolderSpec) -> Listing:
    """Lists the images of a folder; classes are the labels' folders in alphabetical order.

    Rows are ordered by split, label and path, whatever order the disk has them in, and numbered from 1. Everything
    below a label's folder is of that label, however deep. Names that start with a dot are left out, as are files
    without an image's suffix (a note counts them). A link to a folder outside of the root is one bad row.

    Raises:
        DatasetError: no root, no image in it, split folders beside label folders, or an official split without them.
    """
    root = check_root(spec.root, spec.kind)
    files = open_files(root)
    split_folders = _split_folders(root, files)
    if isinstance(spec.split, OfficialSplit) and not split_folders:
        raise DatasetError(
            f"{root}: has no folders train, val, test, so it has no official split. Ask for a stratified one: "
            "`split: {kind: stratified}` (dataset check: --split stratified)"
        )
    found = _Walk(files)
    if split_folders:
        for name, split in split_folders.items():
            found.visit_labels(name, split)
    else:
        found.visit_labels("", None)
    return check_rows(found.rows(root, spec.kind), root, spec.split, files)


def _split_folders(root: Path, files: Files) -> dict[str, str]:
    """Name of each split folder of the root -> train, val or test; empty if the root holds labels."""
    names = [entry.name for entry in files.entries("") if entry.is_dir]
    split_folders = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
    others = [name for name in names if name not in split_folders]
    if split_folders and others:
        raise DatasetError(
            f"{root}: split folders ({', '.join(split_folders)}) beside others ({', '.join(others)}); "
            "the root must hold either splits or labels, so move one kind elsewhere"
        )
    return split_folders


class _Image(NamedTuple):
    split: str | None
    label: str | None
    path: str
    fault: RowFault | None = None


@dataclass
class _Walk:
    """One walk over the folder: the images, and what was passed by."""

    files: Files
    images: list[_Image] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def visit_labels(self, folder: str, split: str | None) -> None:
        """Lists the label folders of a folder, and the images that lie beside them."""
        for entry in self._entries(folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir:
                before = len(self.images)
                self._visit(path, split, _printable(entry.name), ())
                if len(self.images) == before:
                    self.empty.append(_printable(path))
            else:
                self._add_file(path, split, None)

    def rows(self, root: Path, kind: str) -> FoundRows:
        """The images in their order, with classes and notes."""
        if not any(image.label for image in self.images):
            passed = f" (other files: {len(self.ignored)}, first {self.ignored[0]})" if self.ignored else ""
            raise DatasetError(
                f"{root}: no images in folders of labels{passed}. Expected {root}/<label>/<name>.jpg or "
                f"{root}/<train|val|test>/<label>/<name>.jpg; known suffixes: {' '.join(IMAGE_SUFFIXES)}"
            )
        order = {split: place for place, split in enumerate(SPLITS)}
        images = sorted(self.images, key=lambda image: (order.get(image.split or "", 0), image.label or "", image.path))
        faults = Faults()
        for row, image in enumerate(images):
            if image.fault is not None:
                faults.add(row, image.fault)
        paths = pl.Series("path", [image.path for image in images], dtype=pl.String)
        table = pl.DataFrame(
            {
                "file": pl.Series([""] * len(images), dtype=pl.String),
                "row": pl.int_range(1, len(images) + 1, eager=True),
                "sample_id": ids_from_paths(paths),
                "path": paths,
                "split": pl.Series([image.split for image in images], dtype=pl.String),
                "label": pl.Series([image.label for image in images], dtype=pl.String),
            }
        )
        classes = sorted({image.label for image in images if image.label is not None})
        return FoundRows(table, classes, root.resolve().name, kind, faults, self._notes())

    def _notes(self) -> list[str]:
        notes = []
        if self.ignored:
            notes.append(f"files without an image's suffix, left out: {len(self.ignored)}, first {self.ignored[0]}")
        notes += [f"no image in {path}" for path in self.empty]
        return notes

    def _entries(self, folder: str) -> list[Entry]:
        try:
            return self.files.entries(folder)
        except OSError as error:
            raise DatasetError(f"{self.files.absolute(folder)}: cannot be listed ({error.strerror})") from None

    def _visit(self, folder: str, split: str | None, label: str, above: Sequence[str]) -> None:
        """Lists everything below a label's folder. `above`: real paths of the folders that lead here."""
        real = self.files.real(folder)
        if real in above:  # a link back up: its images are listed already
            return
        if not self.files.leads_inside(folder):
            self.images.append(_Image(split, label, _printable(folder)))  # the shared checks mark it
            return
        for entry in self._entries(folder):
            path = f"{folder}/{entry.name}"
            if entry.is_dir:
                self._visit(path, split, label, (*above, real))
            else:
                self._add_file(path, split, label)

    def _add_file(self, path: str, split: str | None, label: str | None) -> None:
        printable = _printable(path)
        if not path.lower().endswith(IMAGE_SUFFIXES):
            self.ignored.append(printable)
            return
        if printable != path:
            self.images.append(_Image(split, label, printable, RowFault.NOT_UTF8))
        else:
            fault = RowFault.NO_LABEL_FOLDER if label is None else None
            self.images.append(_Image(split, label, path, fault))


def _printable(path: str) -> str:
    """The path with a question mark for each byte that is not UTF-8; such a name cannot be kept in a table."""
    return path.encode("utf-8", "replace").decode()
