"""The emotions that raters perceived in the clips of CREMA-D: from voices, from faces, and from both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from emofuse.datasets.files import is_lfs_pointer
from emofuse.datasets.roots import Files
from emofuse.errors import DatasetError

TABLE = "processedResults/summaryTable.csv"
COLUMNS = {"VoiceVote": "perceived_voice", "FaceVote": "perceived_face", "MultiModalVote": "perceived_both"}
LETTERS = {"A": "anger", "D": "disgust", "F": "fear", "H": "happiness", "N": "neutral", "S": "sadness"}


def read_perceived(root: Path, files: Files) -> tuple[dict[str, Mapping[str, str | None]], list[str]]:
    """Return sample id -> column of `COLUMNS` -> the emotion with most votes, and notes; {} without the table.

    A clip in which several emotions share the first place has none.

    Raises:
        DatasetError: the table is a pointer of git-lfs, lacks a column, or has a vote that is none of `LETTERS`.
    """
    if not (root / TABLE).is_file():
        return {}, [f"without {TABLE}, the emotions that raters perceived are unknown"]
    data = files.read(TABLE)
    if is_lfs_pointer(data):
        raise DatasetError(f"{root / TABLE}: git-lfs pointer text instead of a table; fetch the files: git lfs pull")
    table = pl.read_csv(data, infer_schema=False)
    names = {name.lower(): name for name in table.columns}
    if missing := [name for name in ("fileName", *COLUMNS) if name.lower() not in names]:
        there = ", ".join(name or "''" for name in table.columns)
        raise DatasetError(f"{root / TABLE}: there is no column {', '.join(missing)} (columns: {there})")
    ids = table[names["filename"]].str.strip_chars().str.replace(r"\.[A-Za-z0-9]+$", "").to_list()
    perceived: dict[str, dict[str, str | None]] = {sample_id: {} for sample_id in ids}
    ties = 0
    for column, attribute in COLUMNS.items():
        for sample_id, vote in zip(ids, table[names[column.lower()]].to_list(), strict=True):
            letters = (vote or "").strip().split(":")
            if unknown := [letter for letter in letters if letter not in {*LETTERS, ""}]:
                raise DatasetError(
                    f"{root / TABLE}: {column} of {sample_id!r} must be {', '.join(LETTERS)}, got {unknown[0]!r}"
                )
            ties += len(letters) > 1
            perceived[sample_id][attribute] = LETTERS.get(letters[0]) if len(letters) == 1 else None
    notes = [f"votes in which several emotions share the first place, and are left empty: {ties}"] if ties else []
    return dict(perceived), notes
