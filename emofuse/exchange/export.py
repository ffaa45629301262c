"""Write a cache as one file that other tools read: HDF5, npz or Parquet.

::

    sample_ids   (N,)            labels   (N,) int64, -1 unlabelled     splits  (N,)        classes  (C,)
    groups       (N,), "" for a row that is a group of its own; only where rows have groups
    streams/<name>/features      (N, *shape) as stored, (N, V, *shape) with augmented views; zeros where the status is
                                 not ok; shape is (D,) for vectors
    streams/<name>/mask          (N, T) or (N, V, T) uint8 of `Step`, only for sequences
    streams/<name>/status        (N,) or (N, V) uint8 of `Status`
    streams/<name>/flags         likewise, only for streams with flags
    description                  JSON: where all this comes from, specs and digests of the streams

HDF5 and npz hold these arrays under these names. In Parquet a row is a sample (or one view of it), a stream is the
columns `<name>.features`, `<name>.mask`, `<name>.status`, `<name>.flags`, features (arrays of the row's shape) are null
where the status is not ok and float32 always, labels are names, and the description is metadata of the file under the
key `emofuse`.

Blocks are read and written one after another, so memory does not grow with the cache. The file appears under its name
when it is whole.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

import emofuse
from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.layout import ATTRIBUTE
from emofuse.cache.reader import Cache
from emofuse.errors import CacheError, did_you_mean
from emofuse.status import Status
from emofuse.stores import replacing

ExportFormat = Literal["hdf5", "npz", "parquet"]
SUFFIXES: Mapping[ExportFormat, str] = {"hdf5": ".h5", "npz": ".npz", "parquet": ".parquet"}
OnRows = Callable[[int, int], None]
"""Called after every block with the number of rows written so far and of all rows."""

_NUMBERS = ("features", "mask", "flags", "status")
_ROW_GROUP_BYTES = 64_000_000


@dataclass(frozen=True)
class _Exported:
    """A cache, the streams of it that are written, and the function that is called with the progress."""

    cache: Cache
    streams: Mapping[str, CachedStream]
    on_rows: OnRows | None

    def report_progress(self, rows: int) -> None:
        if self.on_rows is not None:
            self.on_rows(rows, len(self.cache))

    def description(self) -> dict[str, Any]:
        """Return the origin of the arrays as plain JSON."""
        return {
            "made_by": f"emofuse {emofuse.__version__}",
            "cache": str(self.cache.path),
            "created": self.cache.layout.created,
            "rows": len(self.cache),
            "ids_digest": self.cache.layout.ids_digest,
            "classes": list(self.cache.classes),
            "dataset": dict(self.cache.manifest.info),
            "status": {status.name.lower(): int(status) for status in Status},
            "streams": {name: stream.layout.to_attributes()[ATTRIBUTE] for name, stream in self.streams.items()},
        }

    def facts(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that belong to the samples and not to a stream."""
        return {
            "sample_ids": self.cache.sample_ids,
            "labels": self.cache.labels,
            "splits": self.cache.splits,
            **({"groups": self.cache.groups} if self.cache.has_groups else {}),
            "classes": np.array(self.cache.classes, dtype=str),
            "description": np.array(json.dumps(self.description(), ensure_ascii=False)),
        }


def export_cache(
    cache: Cache, out: Path, to: ExportFormat, *, streams: Sequence[str] | None = None, on_rows: OnRows | None = None
) -> None:
    """Write streams of a cache, with ids, labels, splits and groups, into one file.

    Args:
        cache: the cache, whose streams must be complete.
        out: the path of the file; an existing file is not replaced.
        to: the format of the file.
        streams: the names of the streams; None for all.
        on_rows: called after every block.

    Raises:
        CacheError: there is no such stream, or none at all; a chunk is damaged; the file exists or cannot be written.
        IncompleteCacheError: blocks of a stream have not been computed yet.
    """
    exported = _Exported(cache, _chosen(cache, streams), on_rows)
    for stream in exported.streams.values():
        stream.check_complete(stream.views)
    if out.exists():
        raise CacheError(f"{out}: there is such a file already. Choose another with --out, or remove it.")
    write = {"hdf5": _write_hdf5, "npz": _write_npz, "parquet": _write_parquet}[to]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as partial:
            write(exported, partial)
    except OSError as error:
        raise CacheError(f"{out}: cannot be written ({error})") from error


def check_format(to: str) -> ExportFormat:
    """Return a format by its name.

    Raises:
        CacheError: there is no format of this name.
    """
    formats: tuple[ExportFormat, ...] = get_args(ExportFormat)
    for known in formats:
        if known == to:
            return known
    raise CacheError(f"--to: {to!r} is no format{did_you_mean(to, formats)} (there are: {', '.join(formats)})")


def _chosen(cache: Cache, names: Sequence[str] | None) -> dict[str, CachedStream]:
    unknown = [name for name in names or () if name not in cache.streams]
    if unknown:
        there = ", ".join(cache.streams) or "none"
        hint = did_you_mean(unknown[0], cache.streams)
        raise CacheError(f"{cache.path}: no stream {', '.join(map(repr, unknown))}{hint} (there are: {there})")
    chosen = {name: stream for name, stream in cache.streams.items() if names is None or name in names}
    if not chosen:
        raise CacheError(f"{cache.path}: no stream to export. Build the cache first: emofuse cache build")
    return chosen


def _arrays(stream: CachedStream) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return name -> (shape without the rows, type) of the arrays of a stream that are written; status comes last."""
    layout = stream.layout
    names = [name for name in layout.arrays if name in _NUMBERS]
    views = (stream.views,) if stream.views > 1 else ()
    return {name: ((*views, *layout.row_shape(name)), layout.array_dtype(name)) for name in names}


def _block(exported: _Exported, stream: CachedStream, array: str, block: int) -> npt.NDArray[Any]:
    """Read one block of one array as it is written: (n, ...) or (n, V, ...)."""
    rows = exported.cache.layout.block_slice(block)
    if array in {"features", "mask"}:
        read = stream.read_block if array == "features" else stream.read_mask_block
        views = [np.asarray(read(block, view)) for view in range(stream.views)]
        return views[0] if stream.views == 1 else np.stack(views, axis=1)
    whole = stream.status if array == "status" else stream.flags
    return whole[rows, 0] if stream.views == 1 else whole[rows]


def _write_hdf5(exported: _Exported, path: Path) -> None:
    import h5py

    layout = exported.cache.layout
    with h5py.File(path, "w") as file:
        text = h5py.string_dtype()
        for name, values in exported.facts().items():
            is_text = values.dtype.kind == "U"
            file.create_dataset(
                name, data=values.astype(object) if is_text else values, dtype=text if is_text else None
            )
        targets = {}
        for name, stream in exported.streams.items():
            group = file.create_group(f"streams/{name}")
            for key, value in stream.layout.to_attributes()[ATTRIBUTE].items():
                group.attrs[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for array, (shape, dtype) in _arrays(stream).items():
                targets[name, array] = group.create_dataset(array, shape=(layout.rows, *shape), dtype=dtype)
        for block in range(layout.blocks):
            rows = layout.block_slice(block)
            for (name, array), target in targets.items():
                target[rows] = _block(exported, exported.streams[name], array, block)
            exported.report_progress(rows.stop)


def _write_npz(exported: _Exported, path: Path) -> None:
    """Write the zip of npy files that NumPy would write, but block by block."""
    layout = exported.cache.layout
    arrays = {
        (name, array): described
        for name, stream in exported.streams.items()
        for array, described in _arrays(stream).items()
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, values in exported.facts().items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)  # type: ignore[no-untyped-call]
        for number, ((name, array), (shape, dtype)) in enumerate(arrays.items(), start=1):
            header = {"descr": dtype.str, "fortran_order": False, "shape": (layout.rows, *shape)}
            with archive.open(f"streams/{name}/{array}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_2_0(member, header)  # type: ignore[no-untyped-call]
                for block in range(layout.blocks):
                    member.write(np.ascontiguousarray(_block(exported, exported.streams[name], array, block)).data)
            exported.report_progress(layout.rows * number // len(arrays))


def _write_parquet(exported: _Exported, path: Path) -> None:
    from polars.io.plugins import register_io_source

    schema: dict[str, Any] = {"sample_id": pl.String, "label": pl.String, "split": pl.String}
    if exported.cache.has_groups:
        schema["group"] = pl.String
    if any(stream.views > 1 for stream in exported.streams.values()):
        schema["view"] = pl.UInt16
    for name, stream in exported.streams.items():
        schema[f"{name}.features"] = pl.Array(pl.Float32, stream.dim if len(stream.shape) == 1 else stream.shape)
        if stream.is_sequence:
            schema[f"{name}.mask"] = pl.Array(pl.UInt8, stream.shape[0])
        schema |= {f"{name}.{array}": pl.UInt8 for array in _arrays(stream) if array not in {"features", "mask"}}

    faults: list[CacheError] = []  # Polars would replace an exception that leaves this generator by its own

    def blocks(*_: object) -> Iterator[pl.DataFrame]:
        try:
            for block in range(exported.cache.layout.blocks):
                yield _parquet_block(exported, block, schema)
                exported.report_progress(exported.cache.layout.block_slice(block).stop)
        except CacheError as fault:
            faults.append(fault)

    row_bytes = sum(4 * stream.dim for stream in exported.streams.values())
    register_io_source(blocks, schema=schema, is_pure=True).sink_parquet(
        path,
        row_group_size=max(1, _ROW_GROUP_BYTES // row_bytes),
        statistics=False,
        metadata={"emofuse": json.dumps(exported.description(), ensure_ascii=False)},
    )
    if faults:
        raise faults[0]


def _parquet_block(exported: _Exported, block: int, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Return the rows of one block, sample by sample, with the views of a sample one after another."""
    table = exported.cache.manifest.table[exported.cache.layout.block_slice(block)]
    views = max(stream.views for stream in exported.streams.values())
    sample = np.repeat(np.arange(table.height), views)
    columns: dict[str, pl.Series] = {
        name: table[name].gather(sample) for name in ("sample_id", "label", "split", "group")
    }
    columns["view"] = pl.Series(np.tile(np.arange(views, dtype=np.uint16), table.height))
    for name, stream in exported.streams.items():
        there = np.tile(np.arange(views) < stream.views, table.height)
        status: npt.NDArray[Any] = np.zeros(len(sample), dtype=np.uint8)
        for array in reversed(_arrays(stream)):  # the status first
            stored = _block(exported, stream, array, block)
            width = stream.shape if array == "features" else stream.shape[:1] if array == "mask" else ()
            values = np.zeros((len(sample), *width), dtype=np.float32 if array == "features" else np.uint8)
            values[there] = stored.reshape(-1, *width)
            if array == "status":
                status = values
            known = pl.Series(status == Status.OK if array == "features" else there)
            column = f"{name}.{array}"
            series = pl.Series(column, values, dtype=schema[column])
            columns[column] = pl.select(pl.when(known).then(series).alias(column))[column]
    return pl.DataFrame({name: columns[name] for name in schema}, schema=schema)
