"""The summary of a dataset: rows per label and split, and sizes of its images."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from emofuse.datasets.manifest import Manifest
from emofuse.datasets.members import read_content
from emofuse.datasets.names import NameKind, kind_of_name
from emofuse.datasets.png import without_long_metadata
from emofuse.datasets.rows import Listing
from emofuse.datasets.sources import Source, named_paths
from emofuse.datasets.splits import SPLITS
from emofuse.progress import step
from emofuse.stores import is_remote


@dataclass(frozen=True)
class CountTable:
    """The number of rows per label and split.

    Attributes:
        splits: the splits that have rows, and `none` if there are rows in no split.
        counts: label (and `none` for unlabelled rows) -> the number of rows in each of `splits`.
    """

    splits: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]

    @property
    def totals(self) -> tuple[int, ...]:
        """The number of rows in each of `splits`."""
        return tuple(sum(column) for column in zip(*self.counts.values(), strict=True))


@dataclass(frozen=True)
class SizeSummary:
    """The sizes of images by their headers, before any EXIF rotation.

    Attributes:
        looked_at: the number of images whose header was read, or could not be read.
        candidates: the number of images of the dataset, without bad rows, clips and sounds.
        width: the smallest, median and largest width in pixels; zeros if no header could be read.
        height: the smallest, median and largest height, likewise.
        unreadable: the path of each image whose header cannot be read, and the reason.
    """

    looked_at: int
    candidates: int
    width: tuple[int, int, int]
    height: tuple[int, int, int]
    unreadable: Sequence[tuple[str, str]]


def count_rows(manifest: Manifest) -> CountTable:
    """Count the rows per label (in class order, with empty classes) and split, including bad rows."""
    grouped = manifest.table.group_by("label", "split").len()
    counts_of = {(label or "none", split or "none"): count for label, split, count in grouped.iter_rows()}
    present = {split for _, split in counts_of}
    splits = tuple(split for split in (*SPLITS, "none") if split in present)
    unlabelled = ["none"] if any(label == "none" for label, _ in counts_of) else []
    counts = {
        label: tuple(counts_of.get((label, split), 0) for split in splits) for label in (*manifest.classes, *unlabelled)
    }
    return CountTable(splits, counts)


def measure_images(listing: Listing, *, limit: int | None = 2000, seed: int = 0) -> SizeSummary:
    """Read the headers of the images of a dataset, without decoding any pixel. Clips and sounds are left out.

    Args:
        listing: the dataset, whose bad rows are left out.
        limit: how many images are examined, chosen at random; None for all.
        seed: the seed of that choice.
    """
    manifest = listing.manifest
    rows = manifest.table.filter(pl.col("problem").is_null())
    media = {NameKind.CLIP, NameKind.SOUND}
    rows = rows.filter(pl.Series([kind_of_name(path) not in media for path in named_paths(rows)], dtype=pl.Boolean))
    chosen = rows
    if limit is not None and limit < rows.height:
        rng = np.random.default_rng(seed)
        chosen = rows[np.sort(rng.choice(rows.height, limit, replace=False)).tolist()]
    members = chosen["member"] if "member" in chosen.columns else [None] * chosen.height
    paths = named_paths(chosen).to_list()
    sizes: list[tuple[int, int]] = []
    unreadable: list[tuple[str, str]] = []
    with step("reading headers of images", len(paths), "images") as advance:
        for number, (path, member) in enumerate(zip(chosen["path"], members, strict=True)):
            size = _header_size(Source(manifest.root / path, member))
            if isinstance(size, str):
                unreadable.append((paths[number], size))
            else:
                sizes.append(size)
            advance(number + 1, len(paths))
    widths, heights = np.array(sizes or [(0, 0)], dtype=np.int64).T
    return SizeSummary(len(paths), rows.height, _spread(widths), _spread(heights), unreadable)


def _spread(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[int, int, int]:
    return int(values.min()), int(np.median(values)), int(values.max())


def _header_size(source: Source) -> tuple[int, int] | str:
    """Return the width and height of an image, or why they cannot be read."""
    from PIL import Image, UnidentifiedImageError

    def size_of(file: Path | io.BytesIO) -> tuple[int, int]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd metadata or many pixels, which do not matter here
            with Image.open(file) as image:
                return image.size

    try:
        try:
            is_whole = source.member is not None or is_remote(source.path)
            return size_of(io.BytesIO(read_content(source)) if is_whole else source.path)
        except (ValueError, SyntaxError, OSError):
            shorter = without_long_metadata(read_content(source))
            if shorter is None:
                raise
            return size_of(io.BytesIO(shorter))
    except UnidentifiedImageError:
        return "not an image, or one of an unknown format"
    except Exception as error:  # noqa: BLE001 - Pillow raises errors of any kind for a damaged header
        return str(error) or type(error).__name__
