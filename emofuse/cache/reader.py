"""Opens a feature cache for reading. Lazy: arrays are read when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.cache.cached_stream import CachedStream, read_streams
from emofuse.cache.layout import CacheLayout
from emofuse.cache.metadata import read_cache_layout, read_manifest
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError
from emofuse.specs import DecodeSpec, FaceSpec
from emofuse.stores import as_path

_TEXTS_AT_ONCE = 65536


class Cache:
    """An open feature cache.

    Attributes:
        path: the Zarr group.
        manifest: which sample each row is.
        streams: by name, in the order of their names.
        classes: label names in index order.
    """

    def __init__(
        self, path: Path, layout: CacheLayout, manifest: Manifest, streams: Mapping[str, CachedStream]
    ) -> None:
        self.path = path
        self.layout = layout
        self.manifest = manifest
        self.streams = streams
        self.classes = manifest.classes

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) int64 index into `classes`, -1 unlabelled."""
        labels = self.manifest.table["label"]
        known = labels.is_not_null()
        if not labels.filter(known).is_in(self.classes).all():
            raise CacheError(f"{self.path}: its manifest has labels that are none of {', '.join(self.classes)}")
        numbers = labels.replace_strict(self.classes, range(len(self.classes)), default=-1, return_dtype=pl.Int64)
        return numbers.to_numpy()

    @cached_property
    def splits(self) -> npt.NDArray[np.str_]:
        """(N,) str: train, val, test, or "" for rows in none."""
        return _as_text(self.manifest.table["split"])

    @cached_property
    def sample_ids(self) -> npt.NDArray[np.str_]:
        """(N,) str. Four bytes a character: `manifest.table["sample_id"]` takes less."""
        return _as_text(self.manifest.table["sample_id"])

    def __len__(self) -> int:
        return self.layout.rows

    @property
    def decode(self) -> Mapping[str, Any]:
        """How pictures were decoded, plain JSON of `DecodeSpec`, the same for all streams that were extracted."""
        found = (stream.layout.decode for stream in self.streams.values() if stream.layout.decode)
        return next(found, DecodeSpec().model_dump(mode="json"))

    @property
    def face(self) -> Mapping[str, Any]:
        """How faces were found, plain JSON of `FaceSpec`, the same for all streams that look at one."""
        found = (stream.layout.face for stream in self.streams.values() if stream.layout.face is not None)
        return next(found, FaceSpec().model_dump(mode="json"))

    def __repr__(self) -> str:
        return f"<Cache {self.path} with {len(self)} rows: {', '.join(self.streams)}>"


def open_cache(path: str | Path) -> Cache:
    """Opens a cache for reading.

    Raises:
        CacheError: no cache there, of another format, damaged, or without its manifest.
    """
    path = as_path(path)
    layout = read_cache_layout(path)
    manifest = read_manifest(path, layout)
    return Cache(path, layout, manifest, {stream.name: stream for stream in read_streams(path, layout)})


def _as_text(column: pl.Series) -> npt.NDArray[np.str_]:
    """A column of text as a NumPy array, "" for null; never all of it as Python objects."""
    width = int(cast("int", column.str.len_chars().max() or 0))
    texts = np.empty(len(column), dtype=f"U{max(1, width)}")
    for first in range(0, len(column), _TEXTS_AT_ONCE):
        part = column[first : first + _TEXTS_AT_ONCE]
        texts[first : first + len(part)] = part.fill_null("").to_list()
    return texts
