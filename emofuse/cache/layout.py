"""What a cache looks like on disk: names, shapes, chunks and attributes. Pure: reads and writes nothing.

::

    features.manifest.parquet        which sample each row is (see `emofuse.datasets.manifest`)
    features.zarr/                   Zarr v3 group, attributes {"emofuse": CacheLayout}
      streams/<name>/                group, attributes {"emofuse": StreamLayout}
        features  (N, V, *shape)     float16 or float32, chunks (chunk_rows, 1, *shape)
        mask      (N, V, T)          uint8 of `Step`, only for sequences, chunks (chunk_rows, 1, T)
        status    (N, V)             uint8 of `Status`, chunks (block_rows, 1)
        flags     (N, V)             uint8, only for streams with flags, chunks (block_rows, 1)
        reason    (N, V)             text, why a row is not OK, "" where it is, chunks (block_rows, 1)

One block of rows is one chunk of each array, and the status chunk is written last. Only a block of sequences or maps
may be several chunks of features: their rows are a divisor of the block's, so that a chunk stays below 8 MiB. Chunks
are uncompressed and end in a CRC32C checksum, so the length of a whole chunk file of numbers is known beforehand. A
chunk of reasons is there exactly if one of its rows is not OK. V is 1 for the pictures as they are, and more with
augmented views of them: view 0 is always the picture itself, and views can be added later.

Format 1 had no reasons. Its caches are read and built on; their streams stay without. Format 3 says that there are
streams of other shapes than vectors, which emofuse could not read before; all else is as in format 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from emofuse import specs

FORMAT = 2
SHAPES_FORMAT = 3
"""Of a cache with streams that are not vectors."""
READABLE_FORMATS = (1, FORMAT, SHAPES_FORMAT)
ATTRIBUTE = "emofuse"
ArrayName = Literal["features", "mask", "flags", "reason", "status"]
ARRAY_NAMES: tuple[ArrayName, ...] = get_args(ArrayName)
"""In the order in which the chunks of a block are written."""
CHECKSUM_BYTES = 4
IMPORTED = specs.ImportedSpec.model_fields["kind"].default
"""Kind of the streams that another tool made, and no build."""
CHECKSUM = "checksum"
"""Attribute beside the others of a group: SHA-256 of their canonical JSON, so that a changed byte in them is found."""
_CREATED = "created"
_CHUNK_BYTES = 8 << 20  # of features of sequences and maps, at most, unless a single row is larger
_VECTOR = ("feature",)
_TIME = "time"


def manifest_path(cache: Path) -> Path:
    """The manifest beside a cache: `features.zarr` -> `features.manifest.parquet`."""
    return cache.with_name(cache.name.removesuffix(".zarr") + ".manifest.parquet")


def streams_dir(cache: Path) -> Path:
    """The folder of all streams of a cache. Names in it that start with a dot are unfinished or dropped streams."""
    return cache / "streams"


@dataclass(frozen=True)
class CacheLayout:
    """Attributes of the root group.

    Attributes:
        rows: N, the rows of the manifest.
        block_rows: rows of a block; the last block may be shorter.
        ids_digest: SHA-256 over the manifest's sample ids, in order.
        created: UTC, ISO 8601.
        format: of the cache, one of `READABLE_FORMATS`.
    """

    rows: int
    block_rows: int
    ids_digest: str
    created: str
    format: int = FORMAT

    @property
    def blocks(self) -> int:
        """How many blocks the rows make."""
        return -(-self.rows // self.block_rows)

    def block_slice(self, block: int) -> slice:
        """The rows of one block."""
        start = block * self.block_rows
        return slice(start, min(start + self.block_rows, self.rows))

    def to_attributes(self) -> dict[str, Any]:
        """Plain JSON of the root group's attributes."""
        own = {"format": self.format, "rows": self.rows, "block_rows": self.block_rows, "ids_digest": self.ids_digest}
        # Not under the checksum: two caches of the same bytes differ in nothing but the time of their creation.
        return {ATTRIBUTE: {**_sealed(own), _CREATED: self.created}}


@dataclass(frozen=True)
class StreamLayout:
    """One stream of a cache.

    Attributes:
        name: its folder in the cache.
        kind: of its spec.
        shape: of the features of one row: (D,) for vectors.
        dtype: stored type, float16 or float32.
        identity: plain JSON of everything that changes the bytes; its digest is the stream's.
        weights: plain JSON of where the weights came from, for reports; None for streams without weights.
        flag_names: names of the bits of a flag, at most eight.
        columns: names of the D values, or ().
        dimensions: names of the axes of `shape`.
        spec: the stream's spec as plain JSON: with `decode` and `face`, what it takes to extract it again.
        decode: how its pictures were decoded, plain JSON of `DecodeSpec`.
        face: how its faces were found, plain JSON of `FaceSpec`; None for a stream that looks at none.
        views: V, 1 and the number of augmented views.
        augment: how those were drawn, plain JSON; None without any.
        keeps_reasons: whether it has an array of them; only streams of format 1 have none.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.floating[Any]]
    identity: Mapping[str, Any]
    weights: Mapping[str, Any] | None = None
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    decode: Mapping[str, Any] = field(default_factory=dict)
    face: Mapping[str, Any] | None = None
    views: int = 1
    augment: Mapping[str, Any] | None = None
    keeps_reasons: bool = True
    dimensions: tuple[str, ...] = _VECTOR

    @property
    def dim(self) -> int:
        """How many numbers a row has: D for vectors."""
        return math.prod(self.shape)

    @property
    def is_vector(self) -> bool:
        """Whether a row is one vector, whose chunks hold a whole block."""
        return self.dimensions == _VECTOR

    @property
    def is_sequence(self) -> bool:
        """Whether the first dimension of a row is time, so that there is a mask of its steps."""
        return self.dimensions[0] == _TIME

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return specs.digest(self.identity)

    @property
    def is_imported(self) -> bool:
        """Whether it is another tool's, so that no build makes it."""
        return bool(self.kind == IMPORTED)

    @property
    def arrays(self) -> tuple[ArrayName, ...]:
        """The stream's arrays in the order in which a block of them is written."""
        optional = {"mask": self.is_sequence, "flags": bool(self.flag_names), "reason": self.keeps_reasons}
        return tuple(array for array in ARRAY_NAMES if optional.get(array, True))

    @property
    def number_arrays(self) -> tuple[ArrayName, ...]:
        """Those of numbers: every chunk of a block that is done is there and of a known length."""
        return tuple(array for array in self.arrays if array != "reason")

    def array_dtype(self, array: ArrayName) -> np.dtype[Any]:
        """Type of one array in memory; reasons are Python strings."""
        if array == "features":
            return np.dtype(self.dtype)
        return np.dtype(object) if array == "reason" else np.dtype(np.uint8)

    def row_shape(self, array: ArrayName) -> tuple[int, ...]:
        """Shape of what one array holds for one row and view."""
        if array == "features":
            return self.shape
        return self.shape[:1] if array == "mask" else ()

    def array_shape(self, array: ArrayName, rows: int) -> tuple[int, ...]:
        """Shape of one array with `rows` rows."""
        return (rows, self.views, *self.row_shape(array))

    def chunk_rows(self, array: ArrayName, block_rows: int) -> int:
        """Rows of one chunk: a block's; of sequences and maps the largest divisor of them that keeps a chunk small."""
        if self.is_vector or array not in {"features", "mask"}:
            return block_rows
        fitting = min(block_rows, max(1, _CHUNK_BYTES // self._row_bytes(array)))
        return next(rows for rows in range(fitting, 0, -1) if block_rows % rows == 0)

    def chunk_shape(self, array: ArrayName, block_rows: int) -> tuple[int, ...]:
        """Shape of one chunk: its rows, one view, all features."""
        return (self.chunk_rows(array, block_rows), 1, *self.row_shape(array))

    def chunk_bytes(self, array: ArrayName, block_rows: int) -> int:
        """Length of one whole chunk file of numbers; the last one is padded to as many rows as the others."""
        return self.chunk_rows(array, block_rows) * self._row_bytes(array) + CHECKSUM_BYTES

    def chunks_of_block(self, array: ArrayName, block: int, cache: CacheLayout) -> range:
        """Which chunks, counted along the rows of one view, hold the rows of a block."""
        rows, size = cache.block_slice(block), self.chunk_rows(array, cache.block_rows)
        return range(rows.start // size, -(-rows.stop // size))

    def chunks(self, cache: CacheLayout) -> int:
        """How many chunk files one view of the features is."""
        return int(-(-cache.rows // self.chunk_rows("features", cache.block_rows)))

    def chunk_names(self, array: ArrayName, block: int, view: int, cache: CacheLayout) -> list[str]:
        """File names of a block's chunks in the array's folder."""
        return [self.chunk_name(array, chunk, view) for chunk in self.chunks_of_block(array, block, cache)]

    def chunk_name(self, array: ArrayName, chunk: int, view: int = 0) -> str:
        """File name of one chunk in the array's folder (Zarr's default encoding with dots)."""
        return f"c.{chunk}.{view}" + ".0" * len(self.row_shape(array))

    def block_bytes(self, block_rows: int) -> int:
        """Length of all chunk files of one view of a block, without reasons, which are short and often not there."""
        return sum(
            block_rows // self.chunk_rows(array, block_rows) * self.chunk_bytes(array, block_rows)
            for array in self.number_arrays
        )

    def dimension_names(self, array: ArrayName) -> tuple[str, ...]:
        """Names of an array's dimensions."""
        return ("sample", "view", *self.dimensions[: len(self.row_shape(array))])

    def _row_bytes(self, array: ArrayName) -> int:
        return math.prod(self.row_shape(array)) * self.array_dtype(array).itemsize

    def to_attributes(self) -> dict[str, Any]:
        """Plain JSON of the stream group's attributes. With them and the rows, the metadata of its arrays is known."""
        own = {
            "kind": self.kind,
            **({"dim": self.dim} if self.is_vector else self._shape_attributes()),
            "dtype": np.dtype(self.dtype).name,
            "views": self.views,
            "digest": self.digest,
            "identity": dict(self.identity),
            "weights": None if self.weights is None else dict(self.weights),
            "flag_names": list(self.flag_names),
            "columns": list(self.columns),
            "spec": dict(self.spec),
            "decode": dict(self.decode),
            "face": None if self.face is None else dict(self.face),
            "augment": None if self.augment is None else dict(self.augment),
            **({"keeps_reasons": True} if self.keeps_reasons else {}),
        }
        return {ATTRIBUTE: _sealed(own)}

    def _shape_attributes(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "dimensions": list(self.dimensions)}

    def array_metadata(self, array: ArrayName, cache: CacheLayout) -> dict[str, Any]:
        """What the `zarr.json` of one array says, plain JSON."""
        number = self.array_dtype(array).name
        fill: Any
        if array == "reason":
            data_type, fill, codec = "string", "", {"name": "vlen-utf8", "configuration": {}}
        elif array == "features":
            data_type, fill, codec = number, 0, {"name": "bytes", "configuration": {"endian": "little"}}
        else:
            data_type, fill, codec = number, 0, {"name": "bytes"}
        chunks = list(self.chunk_shape(array, cache.block_rows))
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.array_shape(array, cache.rows)),
            "data_type": data_type,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": fill,
            "codecs": [codec, {"name": "crc32c"}],
            "attributes": {},
            "dimension_names": list(self.dimension_names(array)),
            "storage_transformers": [],
        }


def _sealed(own: Mapping[str, Any]) -> dict[str, Any]:
    return {**own, CHECKSUM: specs.digest(own)}


def is_sealed(own: Mapping[str, Any]) -> bool:
    """Whether attributes of a group are those that were written: their checksum is there and fits."""
    if CHECKSUM not in own:
        return False
    rest = {name: value for name, value in own.items() if name not in {CHECKSUM, _CREATED}}
    return bool(own[CHECKSUM] == specs.digest(rest))


def describe_difference(cached: Mapping[str, Any], wanted: Mapping[str, Any], speaker: str = "the spec now") -> str:
    """What two identities differ in: 'region_px 128, the spec now says 96'; several are joined by '; with'.

    Empty if they are equal. Keys below `parameters` are named as in the spec, others by their place: `face.detector`.
    `speaker` is what `wanted` belongs to.
    """
    old, new = dict(_flatten(cached)), dict(_flatten(wanted))
    phrases = []
    for key in sorted(old.keys() | new.keys()):
        if key in old and key in new and old[key] == new[key]:
            continue
        name = key.removeprefix("parameters.")
        had = f"{name} {_show(old[key])}" if key in old else f"no {name}"
        phrases.append(f"{had}, {speaker} says {_show(new[key])}" if key in new else f"{had}, {speaker} has none")
    return "; with ".join(phrases)


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _show(value: Any) -> str:
    if isinstance(value, str):
        return value[:12] + "..." if re.fullmatch(r"[0-9a-f]{64}", value) else value
    return specs.canonical_json(value)
