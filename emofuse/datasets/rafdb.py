"""The dataset kind `rafdb`: the basic emotions of RAF-DB (Li et al., CVPR 2017), in both forms that circulate."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from emofuse.datasets.files import is_lfs_pointer
from emofuse.datasets.names import printable
from emofuse.datasets.roots import Files, check_root, open_files
from emofuse.datasets.row_faults import Faults, RowFault
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.datasets.walk import FolderWalk, joined
from emofuse.errors import DatasetError
from emofuse.specs.datasets import CustomDatasetSpec, DatasetSplitSpec, HoldoutSplit

EMOTIONS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""The labels in the order of their numbers, which begin with 1."""
LIST = "EmoLabel/list_patition_label.txt"
"""The list of labels in the original form; its name is spelt so."""

_LINE = re.compile(r"(?P<stem>(?P<split>train|test)_\d+)(?P<suffix>\.\w+)\s+(?P<label>\S+)")


class RafdbSpec(CustomDatasetSpec):
    """RAF-DB: `basic/EmoLabel/list_patition_label.txt` with `basic/Image/`, or `DATASET/<train|test>/<1..7>/*.jpg`.

    `images` says which pictures of the original form are read: the aligned faces of 100 x 100 pixels, or the originals.
    The dataset has training and test rows alone, so that by default a tenth of the training rows becomes val.
    """

    ids_from_paths: ClassVar[bool] = False
    kind: Literal["rafdb"] = "rafdb"
    images: Literal["aligned", "original"] = "aligned"
    split: DatasetSplitSpec = HoldoutSplit()
    group_file: Path | None = None

    def read(self) -> Listing:
        """List and check the rows."""
        root = check_root(self.root, self.kind)
        files = open_files(root, follow_links=self.follow_links)
        faults = Faults()
        base = next((folder for folder in ("basic", "") if (root / folder / LIST).is_file()), None)
        if base is None:
            table, notes = _read_folders(root, files)
        else:
            table, notes = _read_list(root, base, self.images, faults), []
        listed = ListedRows(table, EMOTIONS, "RAF-DB", self.kind, faults, notes)
        return check_rows(listed, root, self.split, files, group_file=self.group_file)


def _read_list(root: Path, base: str, images: str, faults: Faults) -> pl.DataFrame:
    """Return the rows of the list of labels."""
    name = joined(base, LIST)
    data = (root / name).read_bytes()
    if is_lfs_pointer(data):
        raise DatasetError(f"{root / name}: git-lfs pointer text instead of a list; fetch the files: git lfs pull")
    rows: list[tuple[int, str | None, str | None, str | None, str | None]] = []
    for number, line in enumerate(data.decode("utf-8-sig", "backslashreplace").splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            faults.add(len(rows), RowFault.MALFORMED, f"{line[:80]!r}, expected a line such as 'train_00001.jpg 5'")
            rows.append((number, None, None, None, None))
            continue
        stem, suffix = match["stem"], match["suffix"]
        image = f"{stem}_aligned{suffix}" if images == "aligned" else f"{stem}{suffix}"
        rows.append((number, stem, joined(base, f"Image/{images}/{image}"), match["split"], _label(match["label"])))
    schema = {"row": pl.Int64} | dict.fromkeys(("sample_id", "path", "split", "label"), pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(file=pl.lit(name))


def _read_folders(root: Path, files: Files) -> tuple[pl.DataFrame, list[str]]:
    """Return the images in `<train|test>/<1..7>/`, and notes on what is left out."""
    base = next((name for name in ("DATASET", "") if (root / name / "train").is_dir()), None)
    if base is None:
        raise DatasetError(
            f"{root}: is no RAF-DB: expected basic/{LIST} and basic/Image/, or DATASET/train/1/*.jpg and DATASET/test/"
        )
    walk = FolderWalk(files)
    rows = []
    for split in ("train", "test"):
        folder = joined(base, split)
        for entry in walk.entries(folder) if (root / folder).is_dir() else []:
            if not entry.is_dir:
                walk.accepts(joined(folder, entry.name))
                continue
            for picture in walk.pictures(joined(folder, entry.name)):
                stem = posixpath.splitext(posixpath.basename(picture.path))[0].removesuffix("_aligned")
                rows.append((printable(stem), printable(picture.path), split, _label(printable(entry.name))))
    rows.sort(key=lambda row: (row[2] != "train", row[0], row[1]))
    schema = dict.fromkeys(("sample_id", "path", "split", "label"), pl.String)
    table = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("row", offset=1)
    return table.with_columns(pl.col("row").cast(pl.Int64), file=pl.lit("")), walk.notes()


def _label(number: str) -> str:
    """Return the emotion of a number; the text itself if it is none, which is a fault of its row."""
    known = number.isdecimal() and 1 <= int(number) <= len(EMOTIONS)
    return EMOTIONS[int(number) - 1] if known else number
