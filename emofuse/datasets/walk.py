"""One walk over folders with pictures, for datasets and `predict` alike: what is listed, and what is passed by."""

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
    """What a walk asks of the files below a root."""

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder."""

    def absolute(self, path: str) -> str:
        """The absolute path of a relative one."""

    def real(self, folder: str) -> str:
        """The same with all links followed."""

    def leads_inside(self, path: str) -> bool:
        """Whether a path, its links followed, may be entered."""


class FoundPath(NamedTuple):
    """A picture, or a link to a folder that may not be entered; paths are relative to the root."""

    path: str
    is_outside: bool = False


@dataclass
class FolderWalk:
    """Lists the pictures below folders of one root, and remembers what it left out.

    Left out are names of debris (see `names`), what emofuse wrote itself, files without an image's suffix.

    Attributes:
        files: the files below the root.
        others: files that are no pictures by their suffix.
        undecoded: files that look like a picture or a video of a format that is not decoded.
        debris: names that systems leave behind, hidden ones not counted.
        own: folders that emofuse wrote.
    """

    files: ListedFiles
    others: list[str] = field(default_factory=list)
    undecoded: list[str] = field(default_factory=list)
    debris: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder and may be the user's; nothing if emofuse made the folder.

        Raises:
            DatasetError: it cannot be listed.
        """
        try:
            entries = self.files.entries(folder)
        except OSError as error:
            raise DatasetError(
                f"{printable(self.files.absolute(folder))}: cannot be listed ({error.strerror})"
            ) from None
        names = [entry.name for entry in entries]
        if folder and is_written_by_emofuse(names):
            self.own.append(printable(folder))
            return []
        has_report = holds_report(names)
        kept = []
        for entry in entries:
            path = joined(folder, entry.name)
            if is_debris(entry.name):
                if not entry.name.startswith("."):
                    self.debris.append(printable(path))
            elif has_report and entry.is_dir and entry.name == "figures":
                self.own.append(printable(path))
            else:
                kept.append(entry)
        return kept

    def takes(self, path: str) -> bool:
        """Whether a file is listed, by its name; remembered if it is not."""
        kind = kind_of_name(path)
        if kind is NameKind.OTHER_PICTURE:
            self.undecoded.append(printable(path))
        elif kind is NameKind.OTHER:
            self.others.append(printable(path))
        return kind is NameKind.IMAGE

    def pictures(self, folder: str, above: Sequence[str] = ()) -> Iterator[FoundPath]:
        """Every picture below a folder, however deep. `above`: real paths of the folders that lead here."""
        real = self.files.real(folder)
        if real in above:  # a link back up: its images are listed already
            return
        if not self.files.leads_inside(folder):
            yield FoundPath(folder, is_outside=True)
            return
        for entry in self.entries(folder):
            path = joined(folder, entry.name)
            if entry.is_dir:
                yield from self.pictures(path, (*above, real))
            elif self.takes(path):
                yield FoundPath(path)

    def forgetting_others_of_own(self, list_folder: Callable[[], int]) -> bool:
        """Lists a folder; if it holds no picture but what emofuse wrote, its other files are not told of either.

        Args:
            list_folder: lists it and says how many pictures it has.

        Returns:
            Whether it is one that only emofuse wrote into.
        """
        others, own = len(self.others), len(self.own)
        is_own = list_folder() == 0 and len(self.own) > own
        if is_own:
            del self.others[others:]
        return is_own

    def notes(self) -> list[str]:
        """What was left out, in words, one line each."""
        notes = []
        if self.undecoded:
            suffixes = Counter("." + path.lower().rpartition(".")[2] for path in self.undecoded)
            told = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
            notes.append(
                f"pictures or videos of formats that are not decoded, left out: {len(self.undecoded)} ({told}), "
                f"first {self.undecoded[0]}"
            )
        for what, paths in (
            ("files without an image's suffix", self.others),
            ("left by a system, a network storage or an archive", self.debris),
            ("written by emofuse", self.own),
        ):
            if paths:
                notes.append(f"{what}, left out: {len(paths)}, first {paths[0]}")
        return notes


def joined(folder: str, name: str) -> str:
    """The path of what lies in a folder, "" for the root."""
    return f"{folder}/{name}" if folder else name
