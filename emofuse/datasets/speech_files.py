"""Corpora whose file names say what is spoken, by whom and how: CREMA-D, RAVDESS, EmoDB.

Their readers list the clips and sounds below the root, wherever they lie, and read the names. The speaker is the group
of a row, so that splits and folds never part a speaker.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from emofuse.datasets.names import NameKind, kind_of_name, printable
from emofuse.datasets.roots import Files
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.datasets.walk import FolderWalk
from emofuse.errors import DatasetError
from emofuse.specs.datasets import CustomDatasetSpec


@dataclass
class NamedFiles:
    """The clips and sounds of a corpus, by what their names say.

    Attributes:
        clips: stem -> the path of its clip, relative to the root.
        sounds: stem -> the path of its sound.
        matches: stem -> the parts of its name.
        notes: what was left out, one line each.
    """

    clips: dict[str, str] = field(default_factory=dict)
    sounds: dict[str, str] = field(default_factory=dict)
    matches: dict[str, re.Match[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def stems(self) -> list[str]:
        """The stems of all files, sorted."""
        return sorted(self.clips.keys() | self.sounds.keys())


def find_named_files(files: Files, root: Path, pattern: str, corpus: str, example: str) -> NamedFiles:
    """List the clips and sounds below a root whose names follow a corpus.

    Args:
        files: the files below the root.
        root: the root, for messages.
        pattern: the regular expression of a whole stem.
        corpus: the name of the corpus, for messages.
        example: the name of a file of it, for messages.

    Raises:
        DatasetError: a folder cannot be listed, or there is no file with such a name.
    """
    named = NamedFiles()
    walk = FolderWalk(files, frozenset({NameKind.CLIP, NameKind.SOUND}))
    other, again = [], []
    for path in sorted(each.path for each in walk.pictures("") if not each.is_outside):
        stem = posixpath.splitext(posixpath.basename(path))[0]
        match = re.fullmatch(pattern, stem)
        if match is None:
            other.append(path)
            continue
        by_stem = named.clips if kind_of_name(path) is NameKind.CLIP else named.sounds
        if stem in by_stem:
            again.append(path)
        else:
            by_stem[stem] = path
            named.matches[stem] = match
    for what, paths in (
        (f"clips and sounds with names that are not those of {corpus}", other),
        ("files with the name of another one (an archive that was unpacked twice)", again),
    ):
        if paths:
            named.notes.append(f"{what}, left out: {len(paths)}, first {printable(paths[0])}")
    if not named.matches:
        raise DatasetError(
            f"{root}: no file of {corpus} below this folder, expected names such as {example}"
            f"{''.join('; ' + note for note in (*named.notes, *walk.notes()))}"
        )
    return named


@dataclass(frozen=True)
class Utterance:
    """One row of a corpus: its name, its files, its speaker, its label and further attributes."""

    sample_id: str
    path: str
    label: str
    speaker: str
    audio_path: str | None = None
    attributes: Mapping[str, str | int | None] = field(default_factory=dict)


def check_utterances(
    spec: CustomDatasetSpec,
    root: Path,
    files: Files,
    utterances: Iterable[Utterance],
    *,
    name: str,
    classes: Sequence[str],
    notes: Sequence[str],
) -> Listing:
    """Check the utterances of a corpus and split them by speaker.

    Raises:
        DatasetError: there are none.
    """
    rows = [
        {
            "file": "",
            "row": number,
            "sample_id": each.sample_id,
            "path": each.path,
            "audio_path": each.audio_path,
            "split": None,
            "label": each.label,
            "group": each.speaker,
            **each.attributes,
        }
        for number, each in enumerate(utterances, start=1)
    ]
    schema = {"audio_path": pl.String, "split": pl.String}
    table = pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)
    if not rows:
        raise DatasetError(f"{root}: {name} has no file of the media that were asked for: {'; '.join(notes) or 'none'}")
    return check_rows(ListedRows(table, classes, name, spec.kind, notes=notes), root, spec.split, files)
