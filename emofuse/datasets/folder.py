"""The dataset kind `folder`: images in folders of labels, perhaps within folders of splits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import polars as pl
from pydantic import field_validator

from emofuse.datasets.archive_files import FolderTree, open_tree
from emofuse.datasets.groups import check_group_pattern, groups_in_paths
from emofuse.datasets.names import IMAGE_SUFFIXES, printable
from emofuse.datasets.row_faults import Faults, RowFault
from emofuse.datasets.row_paths import ids_from_paths
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.datasets.split_names import describe_split_names, read_split_folders
from emofuse.datasets.splits import SPLITS
from emofuse.datasets.walk import FolderWalk, joined
from emofuse.errors import DatasetError
from emofuse.specs.datasets import CustomDatasetSpec, StratifiedSplit

PARENT = "parent"


class FolderSpec(CustomDatasetSpec):
    r"""`root/<label>/*.jpg`, or `root/<train|val|test>/<label>/*.jpg`. The root may be a zip or tar archive.

    `group` says who or what an image comes from (subject, film), which splits and folds never part: `parent` is the
    name of the folder of the image below that of its label (`root/<label>/<subject>/*.jpg`; an image beside such
    folders is a group of its own); anything else is a regular expression with one group, which is searched for in the
    image's path relative to `root`, such as `_(s\d+)_`. Equal names are one group, whatever the label. `group_file` is
    a table (sample_id, group) of further groups, as `emofuse dataset check --near --write-groups` writes it; its path
    is relative to `root`.
    """

    ids_from_paths: ClassVar[bool] = True
    kind: Literal["folder"] = "folder"
    group: str | None = None
    group_file: Path | None = None

    @field_validator("group")
    @classmethod
    def _is_parent_or_pattern(cls, group: str | None) -> str | None:
        if group is not None and group != PARENT:
            check_group_pattern(group, f"{PARENT!r} nor ")
        return group

    def read(self) -> Listing:
        """List and check the rows of the folder."""
        return read_folder(self)


def read_folder(spec: FolderSpec) -> Listing:
    """List the images of a folder; the classes are the names of the label folders in alphabetical order.

    Rows are ordered by split, label and path, independent of the disk, and numbered from 1. All images below the folder
    of a label have that label, at any depth. Hidden names, debris of systems and archives, output of emofuse itself and
    files without the suffix of an image are left out; notes count them. A link to a folder outside of the root is one
    bad row, unless the spec follows links.

    Raises:
        DatasetError: there is no root or no image in it, split folders are beside label folders, or the spec asks for
            an official split and there are no split folders.
    """
    tree = open_tree(spec.root, spec.kind, follow_links=spec.follow_links)
    listed, has_splits = list_label_folders(tree, spec.kind)
    if not isinstance(spec.split, StratifiedSplit) and not has_splits:
        raise DatasetError(
            f"{tree.shown}: has no folders train, val, test, so it has no official split. Ask for a stratified one: "
            "`split: {kind: stratified}` (dataset check: --split stratified)"
        )
    if spec.group is not None:
        listed = _grouped(listed, spec.group)
    listed = replace(listed, table=tree.with_sources(listed.table))
    return check_rows(listed, tree.root, spec.split, tree.files, group_file=spec.group_file)


def list_label_folders(tree: FolderTree, kind: str) -> tuple[ListedRows, bool]:
    """List the images of a folder with those of labels in it, and return whether there are folders of splits.

    Raises:
        DatasetError: there is no image, or split folders are beside label folders.
    """
    walk = _Walk(FolderWalk(tree.listed))
    split_folders = walk.split_folders(tree.shown)
    if split_folders:
        for name, split in split_folders.items():
            walk.visit_labels(name, split)
    else:
        walk.visit_labels("", None)
    listed = walk.rows(tree.shown, tree.name, kind)
    notes = [*tree.notes, *listed.notes]
    if names := describe_split_names(split_folders):
        notes.insert(0, f"split folders are read so: {names}")
    return replace(listed, notes=notes), bool(split_folders)


def _grouped(listed: ListedRows, group: str) -> ListedRows:
    """Return the rows with the column `group`, and a note where a pattern does not fit all paths."""
    path = pl.col("path")
    if group == PARENT:
        depth = pl.when(pl.col("split").is_null()).then(1).otherwise(2)  # the label's folder, below that of the split
        folders = path.str.split("/").list.head(path.str.count_matches("/"))
        found = pl.when(folders.list.len() > depth).then(folders.list.last())
        return replace(listed, table=listed.table.with_columns(found.alias("group")))
    groups, notes = groups_in_paths(listed.table["path"], group)
    return replace(listed, table=listed.table.with_columns(groups), notes=[*listed.notes, *notes])


class _Image(NamedTuple):
    split: str | None
    label: str | None
    path: str
    fault: RowFault | None = None


@dataclass
class _Walk:
    """The walk over a folder dataset, which collects the images with their labels."""

    walk: FolderWalk
    images: list[_Image] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def split_folders(self, root: str) -> dict[str, str]:
        """Return the name of each split folder of the root -> train, val or test; none if the root holds label folders.

        Raises:
            DatasetError: there are folders with images beside the split folders.
        """
        names = [entry.name for entry in self.walk.entries("") if entry.is_dir]
        split_folders = read_split_folders(names)
        if not split_folders:
            self.walk = FolderWalk(self.walk.files)  # start again: `visit_labels` lists the same entries
            return {}
        others: list[str] = []
        for name in names:
            if name not in split_folders:
                self.walk.list_apart_from_own_output(partial(self._count, name, others))
        if others:
            raise DatasetError(
                f"{root}: split folders ({', '.join(split_folders)}) beside others ({', '.join(others)}); "
                "the root must hold either splits or labels, so move one kind elsewhere"
            )
        return split_folders

    def visit_labels(self, folder: str, split: str | None) -> None:
        """List the images in the label folders of a folder, and the images beside these folders."""
        for entry in self.walk.entries(folder):
            path = joined(folder, entry.name)
            if entry.is_dir:
                before = len(self.images)
                is_own = self.walk.list_apart_from_own_output(partial(self._visit, path, split, printable(entry.name)))
                if len(self.images) == before and not is_own:
                    self.empty.append(printable(path))
            elif self.walk.accepts(path):
                self._add(path, split, None)

    def rows(self, root: str, name: str, kind: str) -> ListedRows:
        """Return the images in their order, with classes and notes."""
        if not any(image.label for image in self.images):
            left_out = f" ({'; '.join(notes)})" if (notes := self.walk.notes()) else ""
            raise DatasetError(
                f"{root}: no images in folders of labels{left_out}. Expected {root}/<label>/<name>.jpg or "
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
        notes = [*self.walk.notes(), *(f"no image in {path}" for path in self.empty)]
        return ListedRows(table, classes, printable(name), kind, faults, notes)

    def _visit(self, folder: str, split: str | None, label: str) -> int:
        """List all images below the folder of a label, and return how many there are."""
        before = len(self.images)
        for picture in self.walk.pictures(folder):
            if picture.is_outside:  # `check_rows` marks it as a bad row
                self.images.append(_Image(split, label, printable(picture.path)))
            else:
                self._add(picture.path, split, label)
        return len(self.images) - before

    def _count(self, folder: str, having_images: list[str]) -> int:
        """Return how many images a folder beside split folders has, and keep its name if there are any."""
        count = sum(1 for _ in self.walk.pictures(folder))
        if count:
            having_images.append(printable(folder))
        return count

    def _add(self, path: str, split: str | None, label: str | None) -> None:
        text = printable(path)
        fault = RowFault.NOT_UTF8 if text != path else RowFault.NO_LABEL_FOLDER if label is None else None
        self.images.append(_Image(split, label, text, fault))
