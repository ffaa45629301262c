"""Folders of pictures on a disk, on a store, or in a zip or tar archive, under one interface for the walk over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from emofuse.datasets.files import Entry
from emofuse.datasets.members import ARCHIVE_SUFFIXES, open_members
from emofuse.datasets.names import is_debris, kind_of_name
from emofuse.datasets.roots import Files, check_root, check_root_given, open_files
from emofuse.datasets.split_names import read_split_folders
from emofuse.datasets.walk import ListedFiles
from emofuse.errors import DatasetError, DecodeError
from emofuse.stores import as_path


class ArchiveFiles:
    """The files in an archive below a folder of it, as `DatasetFiles` lists those of a disk; it has no links.

    Args:
        path: the archive.
        names: the names of its members.
        folder: the folder in it, with a slash at its end; "" for all.
    """

    def __init__(self, path: Path, names: Sequence[str], folder: str = "") -> None:
        self._path = path
        self.folder = folder
        self._entries: dict[str, dict[str, bool]] = {"": {}}  # folder -> name -> whether it is a folder
        for name in names:
            if not name.startswith(folder):
                continue
            above, _, last = name.removeprefix(folder).rpartition("/")
            self._entries.setdefault(above, {})[last] = False
            while above:
                outer, _, last = above.rpartition("/")
                self._entries.setdefault(outer, {})[last] = True
                above = outer

    def absolute(self, path: str) -> str:
        """Return the path of the archive followed by that of a member."""
        return f"{self._path}/{self.folder}{path}"

    def real(self, folder: str) -> str:
        """Return the path of a folder: there are no links."""
        return self.absolute(folder)

    def leads_inside(self, path: str) -> bool:  # noqa: ARG002 - as `ListedFiles` says
        """Return True: members are read in place, so that none leads anywhere."""
        return True

    def entries(self, folder: str) -> list[Entry]:
        """Return the entries of a folder, by name."""
        entries = self._entries.get(folder, {})
        return [Entry(name, entries[name]) for name in sorted(entries) if name not in {"", ".", ".."}]


@dataclass(frozen=True)
class FolderTree:
    """The folder that a dataset of pictures is listed from.

    Attributes:
        root: the root of the manifest: the folder itself, or the folder of the archive.
        files: the files below `root`, for the checks of rows.
        listed: the files to walk over.
        name: the name of the dataset.
        shown: the folder in messages.
        archive: the name of the archive in `root`; None for a folder.
        notes: what the user should know, one line each.
    """

    root: Path
    files: Files
    listed: ListedFiles
    name: str
    shown: str
    archive: str | None = None
    notes: list[str] = field(default_factory=list)

    def with_sources(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return rows whose `path` is that in the listed folder with `path`, and in an archive `member`, of sources."""
        if self.archive is None:
            return table
        folder = self.listed.folder if isinstance(self.listed, ArchiveFiles) else ""
        member = pl.format("{}{}", pl.lit(folder), "path")
        return table.with_columns(member=member, path=pl.lit(self.archive))


def open_tree(root: Path | None, kind: str, *, follow_links: bool = False) -> FolderTree:
    """Open the root of a dataset of folders: a folder, a zip or tar archive, or a folder in one (`faces.zip/train`).

    If everything in an archive lies in one folder that is neither a label nor a split, that folder is taken.

    Raises:
        DatasetError: there is no such root, or the archive cannot be read.
    """
    archive = find_archive(root)
    if archive is None:
        folder = check_root(root, kind)
        files = open_files(folder, follow_links=follow_links)
        return FolderTree(folder, files, files, folder.resolve().name, str(folder))
    path, inner = archive
    try:
        names = [name.removeprefix("./") for name in open_members(path).names]
    except (DecodeError, OSError) as error:
        raise DatasetError(f"{path}: {error}") from None
    if inner and not any(name.startswith(inner) for name in names):
        raise DatasetError(f"{path}: the archive has no folder {inner.rstrip('/')!r}")
    files_in = ArchiveFiles(path, names, inner)
    notes = []
    if not inner and (top := _only_folder(files_in)):
        files_in = ArchiveFiles(path, names, f"{top}/")
        notes.append(f"everything in {path.name} lies in its folder {top!r}, which is read")
    folder = path.parent
    files = open_files(folder, follow_links=follow_links)
    return FolderTree(folder, files, files_in, path.stem, files_in.absolute("").rstrip("/"), path.name, notes)


def find_archive(root: Path | None) -> tuple[Path, str] | None:
    """Return the archive that a root is or leads into, and the folder in it with a slash; None for other roots."""
    if root is None:
        return None
    path = as_path(root)
    inner = ""
    for _ in range(len(path.parts) if isinstance(path, Path) else str(path).count("/")):
        if path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file():
            return path, inner
        inner = f"{path.name}/{inner}"
        path = path.parent
    return None


def check_root_or_file(root: Path | None, kind: str) -> tuple[Path, str | None]:
    """Return the folder of a dataset, and the name of its file in it if the root is a file.

    Raises:
        DatasetError: there is no such root.
    """
    path = as_path(check_root_given(root, kind))
    return (path.parent, path.name) if path.is_file() else (check_root(path, kind), None)


def root_folder(root: Path) -> Path:
    """Return the folder that the paths of a manifest start from: that of an archive or file, or the root itself."""
    archive = find_archive(root)
    if archive is not None:
        return archive[0].parent
    path = as_path(root)
    return path.parent if path.is_file() else path


def _only_folder(files: ArchiveFiles) -> str | None:
    """Return the folder that holds all others; None if there are several, or if it is a split or a label."""
    tops = [entry for entry in files.entries("") if not is_debris(entry.name)]
    if len(tops) != 1 or not tops[0].is_dir or read_split_folders([tops[0].name]):
        return None
    below = [entry for entry in files.entries(tops[0].name) if not is_debris(entry.name)]
    holds_pictures = any(not entry.is_dir and kind_of_name(entry.name) == "image" for entry in below)
    return None if holds_pictures or not any(entry.is_dir for entry in below) else tops[0].name
