"""The files of a prediction: one file, those of the right kinds below a folder, or members of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emofuse.datasets.files import DatasetFiles
from emofuse.datasets.media_members import media_members
from emofuse.datasets.names import SUFFIXES_OF, NameKind
from emofuse.datasets.sources import Source
from emofuse.datasets.walk import FolderWalk
from emofuse.errors import DatasetError
from emofuse.specs import CacheSpec

IMAGES = frozenset({NameKind.IMAGE})


def find_images(
    path: Path, kinds: frozenset[NameKind] = IMAGES, *, say: Callable[[str], None] | None = None
) -> list[Path | Source]:
    """Return the file, or the sorted images below a folder, listed by the same rule as datasets.

    Of a zip or tar archive, a Parquet file or a CSV table of pixels, it is the images in it (see
    `emofuse.datasets.media_members`). Links are followed, because the user has chosen the path.

    Args:
        path: the path of a file or a folder.
        kinds: the kinds of files to list in a folder; images unless given.
        say: receives a line for each kind of file that was left out.

    Raises:
        DatasetError: the path does not exist, is neither a file nor a folder, or has no image in it.
    """
    members = media_members(path, kinds)
    if members is not None:
        return [*members]
    if path.is_file():
        return [path]
    nouns = " or ".join(sorted(kinds))
    if not path.is_dir():
        problem = "is neither a file nor a folder" if path.exists() else f"no such {nouns} or folder"
        raise DatasetError(f"{path}: {problem}")
    walk = FolderWalk(DatasetFiles(path, follow_links=True), kinds)
    images: list[Path | Source] = [*sorted(path / picture.path for picture in walk.pictures(""))]
    if not images:
        left_out = "".join(f"; {note}" for note in walk.notes())
        suffixes = ", ".join(suffix for kind in sorted(kinds) for suffix in SUFFIXES_OF[kind])
        raise DatasetError(f"{path}: no {nouns} in this folder (looked for {suffixes}{left_out})")
    if say is not None:
        for note in walk.notes():
            say(f"{path}: {note}")
    return images


def kinds_of_files(spec: CacheSpec) -> frozenset[NameKind]:
    """Return the kinds of files that the streams of a cache spec are extracted from: pictures, clips, sounds."""
    if spec.clip is not None:
        return frozenset({NameKind.CLIP})
    hears_alone = all(stream.needs == {"audio"} for stream in spec.streams)
    return frozenset({NameKind.CLIP, NameKind.SOUND}) if hears_alone else IMAGES
