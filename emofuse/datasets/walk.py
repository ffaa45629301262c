"""The walk over folders of pictures that datasets and `predict` share, with a record of what it leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from emofuse.datasets.files import Entry
from emofuse.datasets.names import (
    NameKind,
    holds_report,
    is_debris,
    is_written_by_emofuse,
    kind_of_name,
    printable,
)
from emofuse.errors import DatasetError


class ListedFiles(Protocol):
    """The interface of the files below a root that a walk needs."""

    def entries(self, folder: str) -> list[Entry]:
        """Return the entries of a folder."""

    def absolute(self, path: str) -> str:
        """Return the absolute path of a relative path."""

    def real(self, folder: str) -> str:
        """Return the absolute path of a folder with all links resolved."""

    def leads_inside(self, path: str) -> bool:
        """Return whether a path may be entered, with all links resolved."""


class ListedPath(NamedTuple):
    """The path of a picture, or of a link to a folder that may not be entered, relative to the root."""

    path: str
    is_outside: bool = False


@dataclass
class FolderWalk:
    """A walk over the folders below one root, which lists pictures and remembers what it leaves out.

    It leaves out debris (see `names`), the output of emofuse itself, and files without the suffix of an image.

    Attributes:
        files: the files below the root.
        kinds: the kinds of files that are listed, by their names.
        others: the other files, by their suffix.
        undecoded: the files that are pictures of a format that is not decoded, or clips that are not listed.
        debris: the names that systems leave behind, without hidden ones.
        own_output: the folders that emofuse wrote.
    """

    files: ListedFiles
    kinds: frozenset[NameKind] = frozenset({NameKind.IMAGE})
    others: list[str] = field(default_factory=list)
    undecoded: list[str] = field(default_factory=list)
    debris: list[str] = field(default_factory=list)
    own_output: list[str] = field(default_factory=list)

    def entries(self, folder: str) -> list[Entry]:
        """Return the entries of a folder that may be the user's; none if emofuse made the folder.

        Raises:
            DatasetError: the folder cannot be listed.
        """
        try:
            entries = self.files.entries(folder)
        except OSError as error:
            raise DatasetError(
                f"{printable(self.files.absolute(folder))}: cannot be listed ({error.strerror})"
            ) from None
        names = [entry.name for entry in entries]
        if folder and is_written_by_emofuse(names):
            self.own_output.append(printable(folder))
            return []
        has_report = holds_report(names)
        kept = []
        for entry in entries:
            path = joined(folder, entry.name)
            if is_debris(entry.name):
                if not entry.name.startswith("."):
                    self.debris.append(printable(path))
            elif has_report and entry.is_dir and entry.name == "figures":
                self.own_output.append(printable(path))
            else:
                kept.append(entry)
        return kept

    def accepts(self, path: str) -> bool:
        """Return whether the name of a file is of a listed kind, and remember the file if it is not."""
        kind = kind_of_name(path)
        if kind in self.kinds:
            return True
        is_visible = kind in {NameKind.OTHER_PICTURE, NameKind.CLIP}
        (self.undecoded if is_visible else self.others).append(printable(path))
        return False

    def pictures(self, folder: str, above: Sequence[str] = ()) -> Iterator[ListedPath]:
        """Iterate over all pictures below a folder.

        Args:
            folder: the folder, relative to the root.
            above: the real paths of the folders that lead to it.
        """
        real = self.files.real(folder)
        if real in above:  # a link to a folder above: its pictures are listed already
            return
        if not self.files.leads_inside(folder):
            yield ListedPath(folder, is_outside=True)
            return
        for entry in self.entries(folder):
            path = joined(folder, entry.name)
            if entry.is_dir:
                yield from self.pictures(path, (*above, real))
            elif self.accepts(path):
                yield ListedPath(path)

    def list_apart_from_own_output(self, list_folder: Callable[[], int]) -> bool:
        """List a folder; if it holds output of emofuse and no pictures, forget its other files.

        Args:
            list_folder: a function that lists the folder and returns how many pictures it has.

        Returns:
            Whether only emofuse wrote into the folder.
        """
        others, own_output = len(self.others), len(self.own_output)
        is_own = list_folder() == 0 and len(self.own_output) > own_output
        if is_own:
            del self.others[others:]
        return is_own

    def notes(self) -> list[str]:
        """Return what the walk left out, one line each."""
        notes = []
        if self.undecoded:
            suffixes = Counter("." + path.lower().rpartition(".")[2] for path in self.undecoded)
            counts = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
            notes.append(
                f"pictures of formats that are not decoded, and clips, left out: {len(self.undecoded)} ({counts}), "
                f"first {self.undecoded[0]}"
            )
        for what, paths in (
            ("files without an image's suffix", self.others),
            ("left by a system, a network storage or an archive", self.debris),
            ("written by emofuse", self.own_output),
        ):
            if paths:
                notes.append(f"{what}, left out: {len(paths)}, first {paths[0]}")
        return notes


def joined(folder: str, name: str) -> str:
    """Return the path of an entry of a folder, which is "" for the root."""
    return f"{folder}/{name}" if folder else name
