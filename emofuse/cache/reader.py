"""Open a feature cache for reading. Arrays are read on access."""

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
        path: the path of the Zarr group.
        layout: the rows and blocks of the cache.
        manifest: the samples of the rows.
        streams: the streams by name, in the order of their names.
        classes: the label names in index order.
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
        """Return (N,) int64 indices into `classes`, -1 for unlabelled rows."""
        labels = self.manifest.table["label"]
        known = labels.is_not_null()
        if not labels.filter(known).is_in(self.classes).all():
            raise CacheError(f"{self.path}: its manifest has labels that are none of {', '.join(self.classes)}")
        numbers = labels.replace_strict(self.classes, range(len(self.classes)), default=-1, return_dtype=pl.Int64)
        return numbers.to_numpy()

    @cached_property
    def splits(self) -> npt.NDArray[np.str_]:
        """Return (N,) str: train, val, test, or "" for rows in no split."""
        return _as_text(self.manifest.table["split"])

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
        """Return (N,) str: who or what each row comes from, or "" for rows that are groups of their own."""
        return _as_text(self.manifest.table["group"])

    @property
    def has_groups(self) -> bool:
        """Whether any row has a group."""
        return self.manifest.table["group"].null_count() < len(self)

    @cached_property
    def sample_ids(self) -> npt.NDArray[np.str_]:
        """Return (N,) str with four bytes a character; `manifest.table["sample_id"]` takes less memory."""
        return _as_text(self.manifest.table["sample_id"])

    def __len__(self) -> int:
        return self.layout.rows

    @property
    def decode(self) -> Mapping[str, Any]:
        """Return the decoding of pictures, `DecodeSpec` as plain JSON, the same for all extracted streams."""
        decodes = (stream.layout.decode for stream in self.streams.values() if stream.layout.decode)
        return next(decodes, DecodeSpec().model_dump(mode="json"))

    @property
    def face(self) -> Mapping[str, Any]:
        """Return the detection of faces, `FaceSpec` as plain JSON, the same for all streams that need a face."""
        faces = (stream.layout.face for stream in self.streams.values() if stream.layout.face is not None)
        return next(faces, FaceSpec().model_dump(mode="json"))

    @property
    def clip(self) -> Mapping[str, Any] | None:
        """Return the choice of frames, `ClipSpec` as plain JSON, the same for all streams; None if none sees clips."""
        return next((clip for stream in self.streams.values() if (clip := stream.layout.clip) is not None), None)

    def __repr__(self) -> str:
        return f"<Cache {self.path} with {len(self)} rows: {', '.join(self.streams)}>"


def open_cache(path: str | Path) -> Cache:
    """Open a cache for reading.

    Raises:
        CacheError: there is no cache, or it is damaged, of another format, or without its manifest.
    """
    path = as_path(path)
    layout = read_cache_layout(path)
    manifest = read_manifest(path, layout)
    return Cache(path, layout, manifest, {stream.name: stream for stream in read_streams(path, layout)})


def _as_text(column: pl.Series) -> npt.NDArray[np.str_]:
    """Return a column of text as a NumPy array, "" for null; it is never held whole as Python objects."""
    width = int(cast("int", column.str.len_chars().max() or 0))
    texts = np.empty(len(column), dtype=f"U{max(1, width)}")
    for first in range(0, len(column), _TEXTS_AT_ONCE):
        part = column[first : first + _TEXTS_AT_ONCE]
        texts[first : first + len(part)] = part.fill_null("").to_list()
    return texts
