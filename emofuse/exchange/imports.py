"""Vectors that another tool made become a stream: joined with the cache's rows on their sample ids.

What becomes of a row of the cache:

- in the file, with finite values: OK.
- not in the file: NO_DETECTION. The other tool gave nothing for this sample, as a face detector gives nothing for a
  picture without a face; heads mask the row.
- in the file with a value that is not finite: an error that lists such rows, or FAILED where the caller asks for it.

The stream's identity is the SHA-256 of the file's content (see `_scan`), not of its container: the same ids and vectors
are the same stream from HDF5 and from npz. An import that was interrupted goes on when it is asked for again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.cache.cached_stream import read_stream
from emofuse.cache.layout import CacheLayout, StreamLayout
from emofuse.cache.metadata import read_cache_layout, read_manifest
from emofuse.cache.structure import add_stream, lock_cache
from emofuse.cache.writer import write_block
from emofuse.errors import CacheError
from emofuse.exchange.foreign import ForeignArrays, open_arrays
from emofuse.specs import ImportedSpec, canonical_json, parse_spec
from emofuse.status import Status
from emofuse.stores import is_remote

OnRows = Callable[[int, int], None]
Gather = Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]

_LISTED = 20
_SLAB_BYTES = 16_000_000
_IDS_AT_ONCE = 65536


@dataclass(frozen=True)
class ImportRequest:
    """What is imported.

    Attributes:
        file: HDF5 or npz.
        name: of the stream in the cache.
        dataset: name of the array of vectors in the file, (n, D) numbers.
        ids: name of the array of their sample ids, (n,) text or integers.
        dtype: stored type, float16 or float32; None is float16 for float16 and float32 for everything else.
        ignore_unknown: pass over ids that the cache does not have.
        mark_non_finite: rows with NaN or infinity become FAILED instead of an error.
    """

    file: Path
    name: str
    dataset: str = "features"
    ids: str = "sample_ids"
    dtype: str | None = None
    ignore_unknown: bool = False
    mark_non_finite: bool = False


@dataclass(frozen=True)
class ImportSummary:
    """What an import did.

    Attributes:
        ok: rows of the cache that have a vector now.
        absent: rows of the cache that the file does not have.
        non_finite: rows that were marked as FAILED.
        ignored: rows of the file that the cache does not have.
        sha256: of the file's content.
    """

    ok: int
    absent: int
    non_finite: int
    ignored: int
    sha256: str


def import_stream(path: Path, request: ImportRequest, *, on_rows: OnRows | None = None) -> ImportSummary:
    """Adds the vectors of a file to a cache as a stream of kind `imported`.

    Args:
        path: of the cache.
        request: what is imported.
        on_rows: told rows written so far and rows in all.

    Raises:
        CacheError: no such cache; the file or its arrays are not what was asked for; ids that repeat, ids that the
            cache does not have, or values that are not finite, listed.
        StaleCacheError: the cache has a stream of this name with another content.
        SpecError: no stream can have this name or type.
    """
    cache = read_cache_layout(path)
    sample_ids = read_manifest(path, cache).table["sample_id"]
    given = {"name": request.name, "source": request.file.name, "dataset": request.dataset}
    spec = parse_spec(ImportedSpec, {**given, "dtype": request.dtype or "float32"}, "emofuse cache import")
    beside = None if is_remote(path) else path.parent
    with ExitStack() as stack:
        spool = Path(stack.enter_context(TemporaryDirectory(prefix=".import-", dir=beside)))
        arrays = stack.enter_context(open_arrays(request.file, request.dataset, request.ids, spool))
        if request.dtype is None and arrays.features.dtype == np.float16:
            spec = spec.model_copy(update={"dtype": "float16"})
        positions = _join(path, sample_ids, arrays.ids, request)
        scanned = _scan(arrays, np.dtype(spec.dtype), positions, spool)
        bad = (positions >= 0) & scanned.bad[positions]
        if bad.any() and not request.mark_non_finite:
            listed = _listed(sample_ids.filter(pl.Series(bad)))
            raise CacheError(
                f"{request.file}: {_count(int(bad.sum()), 'row')} with NaN, infinity, or a number too large for "
                f"{spec.dtype}: {listed}. Repair them, or keep them as rows that failed with --mark-non-finite."
            )
        spec = spec.model_copy(update={"sha256": scanned.sha256})
        with lock_cache(path):
            add_stream(path, _layout(spec, arrays.shape[1]))
            _write_blocks(path, cache, spec, _Rows(positions, bad, scanned.gather, request.file.name), on_rows)
    absent, failed = int((positions < 0).sum()), int(bad.sum())
    there = len(positions) - absent
    return ImportSummary(there - failed, absent, failed, len(arrays.ids) - there, scanned.sha256)


def _join(path: Path, sample_ids: pl.Series, ids: pl.Series, request: ImportRequest) -> npt.NDArray[np.int64]:
    """(N,) int64: the row of the file that belongs to each row of the cache, -1 for none."""
    repeated = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if len(repeated):
        raise CacheError(f"{request.file}: {request.ids!r} repeats {_count(len(repeated), 'id')}: {_listed(repeated)}")
    there = pl.DataFrame({"sample_id": ids}).with_row_index("position")
    joined = pl.DataFrame({"sample_id": sample_ids}).join(there, on="sample_id", how="left", maintain_order="left")
    positions: npt.NDArray[np.int64] = joined["position"].cast(pl.Int64).fill_null(-1).to_numpy()
    if not (positions >= 0).any():
        raise CacheError(
            f"{request.file}: none of its {len(ids)} ids is a sample id of {path}. The cache has ids like "
            f"{sample_ids[0]!r}, {request.ids!r} of the file ids like {ids[0]!r}."
        )
    unknown = ids.filter(~ids.is_in(sample_ids.implode()))
    if len(unknown) and not request.ignore_unknown:
        raise CacheError(
            f"{request.file}: {_count(len(unknown), 'id')} that {path} does not have: {_listed(unknown)}. "
            "Pass over them with --ignore-unknown."
        )
    return positions


@dataclass(frozen=True)
class _Scanned:
    """A file that was read once from its beginning to its end.

    Attributes:
        sha256: of its content.
        bad: (n,) bool, rows with a value that is not finite in the stored type.
        gather: (k,) row numbers in any order -> (k, D) of the stored type.
    """

    sha256: str
    bad: npt.NDArray[np.bool_]
    gather: Gather


def _scan(arrays: ForeignArrays, dtype: np.dtype[Any], positions: npt.NDArray[np.int64], spool: Path) -> _Scanned:
    """Reads all rows in their order: their digest, which are not finite, a copy of them if random rows are slow.

    The digest is the SHA-256 of shape and stored type, of the ids and of the stored values in little-endian.
    """
    count, dim = arrays.shape
    digest = hashlib.sha256(canonical_json({"shape": [count, dim], "dtype": str(dtype)}).encode())
    for part in arrays.ids.to_frame().iter_slices(_IDS_AT_ONCE):
        digest.update(canonical_json(part.to_series().to_list()).encode())
    bad = np.zeros(count, dtype=np.bool_)
    copy: npt.NDArray[Any] | None = None
    if arrays.slow_at_random and (np.diff(positions[positions >= 0]) < 0).any():
        copy = np.memmap(spool / "rows", dtype=dtype, mode="w+", shape=(count, dim))
    for first, slab in _slabs(arrays, dtype):
        rows = slice(first, first + len(slab))
        bad[rows] = ~np.isfinite(slab).all(axis=1)
        digest.update(slab.astype(dtype.newbyteorder("<"), copy=False).data)
        if copy is not None:
            copy[rows] = slab
    source = arrays.features if copy is None else copy

    def gather(wanted: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        order = np.argsort(wanted)  # HDF5 gives ascending rows only
        rows = np.empty((len(wanted), dim), dtype=dtype)
        if len(wanted):
            rows[order] = _stored(source[wanted[order]], dtype)
        return rows

    return _Scanned(digest.hexdigest(), bad, gather)


def _slabs(arrays: ForeignArrays, dtype: np.dtype[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """All rows in their order, some megabytes at a time: (first row, (k, D) of the stored type)."""
    count, dim = arrays.shape
    step = max(1, _SLAB_BYTES // (dim * max(dtype.itemsize, arrays.features.dtype.itemsize)))
    for first in range(0, count, step):
        yield first, _stored(arrays.features[first : first + step], dtype)


def _stored(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Rows as they are stored, (k, D); what is too large for the type becomes infinite, and is found as that."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values.reshape(len(values), -1), dtype=dtype)


def _layout(spec: ImportedSpec, dim: int) -> StreamLayout:
    return StreamLayout(
        name=spec.name,
        kind=spec.kind,
        shape=(dim,),
        dtype=np.dtype(spec.dtype),
        identity={
            "kind": spec.kind,
            "version": spec.version,
            "parameters": {"dtype": spec.dtype},
            "content": {"sha256": spec.sha256},
        },
        spec=spec.model_dump(mode="json"),
    )


@dataclass(frozen=True)
class _Rows:
    """Where the rows of the cache come from: see `_join` and `_Scanned`; `bad` is (N,) bool of the cache's rows."""

    positions: npt.NDArray[np.int64]
    bad: npt.NDArray[np.bool_]
    gather: Gather
    file: str


def _write_blocks(path: Path, cache: CacheLayout, spec: ImportedSpec, source: _Rows, on_rows: OnRows | None) -> None:
    stream = read_stream(path, cache, spec.name)
    if stream is None:
        raise CacheError(f"{path}: {spec.name!r} was taken away while it was imported. Import it again.")
    for block in stream.lacking_blocks().tolist():
        rows = cache.block_slice(block)
        positions, bad = source.positions[rows], source.bad[rows]
        there = (positions >= 0) & ~bad
        features = np.zeros((len(positions), stream.dim), dtype=stream.dtype)
        features[there] = source.gather(positions[there])
        status = np.where(there, Status.OK, np.where(bad, Status.FAILED, Status.NO_DETECTION)).astype(np.uint8)
        why = {Status.FAILED: f"not finite in {source.file}", Status.NO_DETECTION: f"not in {source.file}"}
        write_block(
            path,
            spec.name,
            block,
            features=features,
            status=status,
            flags=np.zeros(len(positions), dtype=np.uint8),
            reasons=[why.get(code, "") for code in status.tolist()],
        )
        if on_rows is not None:
            on_rows(rows.stop, cache.rows)


def _listed(values: pl.Series) -> str:
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    return ", ".join(values.head(_LISTED).to_list()) + more


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
