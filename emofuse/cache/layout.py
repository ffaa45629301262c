"""The layout of a cache on disk: names, shapes, chunks and attributes. This module reads and writes nothing.

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
may have several chunks of features: the rows of a chunk divide those of a block, so that a chunk stays below 8 MiB.
Chunks are uncompressed and end with a CRC32C checksum, so the length of a whole chunk file of numbers is known
beforehand. A chunk of reasons exists exactly if one of its rows is not OK. V is 1 without augmented views. View 0 is
always the picture itself, and views can be added later.

Format 1 had no reasons. Its caches are read and extended; their streams stay without reasons. A cache of format 3 has
streams that are not vectors, which former releases cannot read; everything else is as in format 2.
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
"""The format of a cache with streams that are not vectors."""
READABLE_FORMATS = (1, FORMAT, SHAPES_FORMAT)
ATTRIBUTE = "emofuse"
ArrayName = Literal["features", "mask", "flags", "reason", "status"]
ARRAY_NAMES: tuple[ArrayName, ...] = get_args(ArrayName)
"""The arrays in the order in which the chunks of a block are written."""
CHECKSUM_BYTES = 4
IMPORTED = specs.ImportedSpec.model_fields["kind"].default
"""The kind of the streams that another tool made."""
CHECKSUM = "checksum"
"""The attribute with the SHA-256 of the canonical JSON of the others of a group, which detects a changed byte."""
_CREATED = "created"
_CHUNK_BYTES = 8 << 20  # at most, for features of sequences and maps, unless a single row is larger
_VECTOR = ("feature",)
_TIME = "time"


def manifest_path(cache: Path) -> Path:
    """Return the path of the manifest beside a cache: `features.zarr` -> `features.manifest.parquet`."""
    return cache.with_name(cache.name.removesuffix(".zarr") + ".manifest.parquet")


def streams_dir(cache: Path) -> Path:
    """Return the folder of all streams. Names in it that start with a dot are unfinished or dropped streams."""
    return cache / "streams"


@dataclass(frozen=True)
class CacheLayout:
    """The attributes of the root group.

    Attributes:
        rows: the number N of rows of the manifest.
        block_rows: the rows of a block; the last block may be shorter.
        ids_digest: the SHA-256 of the manifest's sample ids, in order.
        created: the time of creation, UTC in ISO 8601.
        format: the format of the cache, one of `READABLE_FORMATS`.
    """

    rows: int
    block_rows: int
    ids_digest: str
    created: str
    format: int = FORMAT

    @property
    def blocks(self) -> int:
        """Return the number of blocks."""
        return -(-self.rows // self.block_rows)

    def block_slice(self, block: int) -> slice:
        """Return the rows of one block."""
        start = block * self.block_rows
        return slice(start, min(start + self.block_rows, self.rows))

    def to_attributes(self) -> dict[str, Any]:
        """Return the root group's attributes as plain JSON."""
        fields = {
            "format": self.format,
            "rows": self.rows,
            "block_rows": self.block_rows,
            "ids_digest": self.ids_digest,
        }
        # The checksum leaves out the time of creation, the only difference between two caches of the same bytes.
        return {ATTRIBUTE: {**_sealed(fields), _CREATED: self.created}}


@dataclass(frozen=True)
class StreamLayout:
    """The attributes of the group of one stream.

    Attributes:
        name: the name of the stream, which is its folder in the cache.
        kind: the kind of its spec.
        shape: the shape of the features of one row: (D,) for vectors.
        dtype: the stored type, float16 or float32.
        identity: everything that changes the bytes, as plain JSON; its digest is the digest of the stream.
        weights: the origin of the weights as plain JSON, for reports; None for streams without weights.
        flag_names: the names of the bits of a flag, at most eight.
        columns: the names of the D values, or ().
        dimensions: the names of the axes of `shape`.
        spec: the stream's spec as plain JSON; with `decode` and `face` it suffices to extract the stream again.
        decode: the decoding of its pictures, `DecodeSpec` as plain JSON.
        face: the detection of its faces, `FaceSpec` as plain JSON; None for a stream that needs no face.
        views: the number V of views: 1 and the number of augmented views.
        augment: the drawing of the augmented views as plain JSON; None without any.
        keeps_reasons: whether the stream has an array of reasons; only streams of format 1 have none.
        runtimes: what has computed the networks of its rows, `torch` or `openvino` with its version, in alphabetical
            order; () for streams without a network and for those built before this was recorded.
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
    runtimes: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """Return the number of values of a row: D for vectors."""
        return math.prod(self.shape)

    @property
    def is_vector(self) -> bool:
        """Return whether a row is one vector. Chunks of vectors hold a whole block."""
        return self.dimensions == _VECTOR

    @property
    def is_sequence(self) -> bool:
        """Return whether the first dimension of a row is time, so that there is a mask of its steps."""
        return self.dimensions[0] == _TIME

    @property
    def clip(self) -> Mapping[str, Any] | None:
        """Return the choice of the frames that the stream sees, `ClipSpec` as plain JSON; None if it sees pictures."""
        chosen = self.identity.get("clip")
        return None if chosen is None else {name: chosen[name] for name in specs.ClipSpec.model_fields}

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the identity."""
        return specs.digest(self.identity)

    @property
    def is_imported(self) -> bool:
        """Return whether the stream comes from another tool, so that no build makes it."""
        return bool(self.kind == IMPORTED)

    @property
    def arrays(self) -> tuple[ArrayName, ...]:
        """Return the stream's arrays in the order in which a block of them is written."""
        optional = {"mask": self.is_sequence, "flags": bool(self.flag_names), "reason": self.keeps_reasons}
        return tuple(array for array in ARRAY_NAMES if optional.get(array, True))

    @property
    def number_arrays(self) -> tuple[ArrayName, ...]:
        """Return the arrays of numbers: every chunk of a finished block exists and has a known length."""
        return tuple(array for array in self.arrays if array != "reason")

    def array_dtype(self, array: ArrayName) -> np.dtype[Any]:
        """Return the type of one array in memory; reasons are Python strings."""
        if array == "features":
            return np.dtype(self.dtype)
        return np.dtype(object) if array == "reason" else np.dtype(np.uint8)

    def row_shape(self, array: ArrayName) -> tuple[int, ...]:
        """Return the shape of one array for one row and view."""
        if array == "features":
            return self.shape
        return self.shape[:1] if array == "mask" else ()

    def array_shape(self, array: ArrayName, rows: int) -> tuple[int, ...]:
        """Return the shape of one array with `rows` rows."""
        return (rows, self.views, *self.row_shape(array))

    def chunk_rows(self, array: ArrayName, block_rows: int) -> int:
        """Return the rows of one chunk: those of a block, or a divisor of them for large sequences and maps."""
        if self.is_vector or array not in {"features", "mask"}:
            return block_rows
        fitting = min(block_rows, max(1, _CHUNK_BYTES // self._row_bytes(array)))
        return next(rows for rows in range(fitting, 0, -1) if block_rows % rows == 0)

    def chunk_shape(self, array: ArrayName, block_rows: int) -> tuple[int, ...]:
        """Return the shape of one chunk: its rows, one view, all features."""
        return (self.chunk_rows(array, block_rows), 1, *self.row_shape(array))

    def chunk_bytes(self, array: ArrayName, block_rows: int) -> int:
        """Return the length of one whole chunk file of numbers; the last one is padded to whole chunk rows."""
        return self.chunk_rows(array, block_rows) * self._row_bytes(array) + CHECKSUM_BYTES

    def chunks_of_block(self, array: ArrayName, block: int, cache: CacheLayout) -> range:
        """Return the chunks, counted along the rows of one view, that hold the rows of a block."""
        rows, size = cache.block_slice(block), self.chunk_rows(array, cache.block_rows)
        return range(rows.start // size, -(-rows.stop // size))

    def chunks(self, cache: CacheLayout) -> int:
        """Return the number of chunk files of one view of the features."""
        return int(-(-cache.rows // self.chunk_rows("features", cache.block_rows)))

    def chunk_names(self, array: ArrayName, block: int, view: int, cache: CacheLayout) -> list[str]:
        """Return the file names of a block's chunks in the array's folder."""
        return [self.chunk_name(array, chunk, view) for chunk in self.chunks_of_block(array, block, cache)]

    def chunk_name(self, array: ArrayName, chunk: int, view: int = 0) -> str:
        """Return the file name of one chunk in the array's folder (Zarr's default encoding with dots)."""
        return f"c.{chunk}.{view}" + ".0" * len(self.row_shape(array))

    def block_bytes(self, block_rows: int) -> int:
        """Return the length of all chunk files of one view of a block, without reasons, which are short and rare."""
        return sum(
            block_rows // self.chunk_rows(array, block_rows) * self.chunk_bytes(array, block_rows)
            for array in self.number_arrays
        )

    def dimension_names(self, array: ArrayName) -> tuple[str, ...]:
        """Return the names of an array's dimensions."""
        return ("sample", "view", *self.dimensions[: len(self.row_shape(array))])

    def _row_bytes(self, array: ArrayName) -> int:
        return math.prod(self.row_shape(array)) * self.array_dtype(array).itemsize

    def to_attributes(self) -> dict[str, Any]:
        """Return the group's attributes as plain JSON. With the rows, they determine the metadata of its arrays."""
        fields = {
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
            **({"runtimes": list(self.runtimes)} if self.runtimes else {}),
        }
        return {ATTRIBUTE: _sealed(fields)}

    def _shape_attributes(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "dimensions": list(self.dimensions)}

    def array_metadata(self, array: ArrayName, cache: CacheLayout) -> dict[str, Any]:
        """Return the content of the `zarr.json` of one array, plain JSON."""
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


def _sealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {**fields, CHECKSUM: specs.digest(fields)}


def is_sealed(attributes: Mapping[str, Any]) -> bool:
    """Return whether the attributes of a group have a checksum that matches them."""
    if CHECKSUM not in attributes:
        return False
    rest = {name: value for name, value in attributes.items() if name not in {CHECKSUM, _CREATED}}
    return bool(attributes[CHECKSUM] == specs.digest(rest))


def describe_difference(cached: Mapping[str, Any], wanted: Mapping[str, Any], source: str = "the spec now") -> str:
    """Return the differences of two identities: 'region_px 128, the spec now says 96', joined by '; with'.

    The text is empty if they are equal. Keys below `parameters` have their names of the spec, others are given with
    their place: `face.detector`. `source` is what `wanted` belongs to.
    """
    old, new = dict(_flatten(cached)), dict(_flatten(wanted))
    phrases = []
    for key in sorted(old.keys() | new.keys()):
        if key in old and key in new and old[key] == new[key]:
            continue
        name = key.removeprefix("parameters.")
        former = f"{name} {_show(old[key])}" if key in old else f"no {name}"
        phrases.append(f"{former}, {source} says {_show(new[key])}" if key in new else f"{former}, {source} has none")
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
