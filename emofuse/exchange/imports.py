"""Features that another tool made become a stream: they are joined with the cache's rows on their sample ids.

The status of a row of the cache is:

- OK if the file has the row, with finite values;
- NO_DETECTION if the file does not have the row. The other tool gave nothing for this sample, as a face detector gives
  nothing for a picture without a face, and heads mask the row. The same holds for a sequence without a single step;
- FAILED if the file has the row with a value that is not finite and the caller asks for it; otherwise this is an error
  that lists such rows;
- that of the export, if the file is one.

The identity of the stream is the SHA-256 of the file's content (see `_scan`), not of its container: the same ids and
values are the same stream from HDF5 and from npz. An interrupted import continues when it is called again.
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
from emofuse.cache.writer import read_layouts, write_block
from emofuse.errors import CacheError
from emofuse.exchange.dimensions import VECTOR
from emofuse.exchange.foreign import ForeignArrays, ForeignNames, open_arrays
from emofuse.specs import ImportedSpec, canonical_json, parse_spec
from emofuse.status import Status, Step
from emofuse.stores import is_remote
from emofuse.wording import count_of, join_first

OnRows = Callable[[int, int], None]
Gather = Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]

_LISTED = 20
_SLAB_BYTES = 16_000_000
_IDS_AT_ONCE = 65536
_WORDS = {Status.NO_DETECTION: "no features", Status.UNREADABLE: "unreadable", Status.FAILED: "failed"}


@dataclass(frozen=True)
class ImportRequest:
    """The options of an import.

    Attributes:
        file: an HDF5 or npz file.
        name: the name of the stream in the cache.
        dataset: the name of the array of features in the file, (n, *shape) numbers: (n, D) for vectors.
        ids: the name of the array of their sample ids, (n,) text or integers.
        dtype: the stored type, float16 or float32; None is float16 for float16 and float32 for everything else.
        ignore_unknown: whether ids that the cache does not have are skipped.
        mark_non_finite: whether rows with NaN or infinity become FAILED instead of an error.
        dimensions: the names of the axes of `shape`: ("time", "feature"), ("channel", "y", "x"), or both together;
            None for those of an export, or of vectors.
        mask: the name of the array of the steps of sequences, (n, T): true and false, or uint8 of `Step`. None for the
            one beside the features of an export; without any, every step is OK.
    """

    file: Path
    name: str
    dataset: str = "features"
    ids: str = "sample_ids"
    dtype: str | None = None
    ignore_unknown: bool = False
    mark_non_finite: bool = False
    dimensions: tuple[str, ...] | None = None
    mask: str | None = None


@dataclass(frozen=True)
class ImportSummary:
    """The result of an import.

    Attributes:
        ok: the number of rows of the cache that have features now.
        absent: the number of rows of the cache that the file does not have.
        non_finite: the number of rows that were marked as FAILED.
        ignored: the number of rows of the file that the cache does not have.
        sha256: the SHA-256 of the file's content.
        empty: the number of rows of the cache that the file has without features: a sequence without a step, or a row
            of an export that was not OK.
    """

    ok: int
    absent: int
    non_finite: int
    ignored: int
    sha256: str
    empty: int = 0


def import_stream(path: Path, request: ImportRequest, *, on_rows: OnRows | None = None) -> ImportSummary:
    """Add the features of a file to a cache as a stream of kind `imported`.

    Args:
        path: the path of the cache.
        request: what is imported.
        on_rows: called with the rows written so far and all rows.

    Raises:
        CacheError: there is no such cache; the file or its arrays are not what was asked for; ids repeat or are not in
            the cache, or values are not finite, all of them listed.
        StaleCacheError: the cache has a stream of this name with another content.
        SpecError: no stream can have this name or type.
    """
    cache = read_cache_layout(path)
    sample_ids = read_manifest(path, cache).table["sample_id"]
    fields = {"name": request.name, "source": request.file.name, "dataset": request.dataset}
    spec = parse_spec(ImportedSpec, {**fields, "dtype": request.dtype or "float32"}, "emofuse cache import")
    names = ForeignNames(request.dataset, request.ids, request.mask, request.dimensions)
    beside = None if is_remote(path) else path.parent
    with ExitStack() as stack:
        spool = Path(stack.enter_context(TemporaryDirectory(prefix=".import-", dir=beside)))
        arrays = stack.enter_context(open_arrays(request.file, names, spool))
        if request.dtype is None and arrays.features.dtype == np.float16:
            spec = spec.model_copy(update={"dtype": "float16"})
        positions = _join(path, sample_ids, arrays.ids, request)
        scanned = _scan(arrays, np.dtype(spec.dtype), positions, spool)
        bad = (positions >= 0) & scanned.bad[positions]
        if bad.any() and not request.mark_non_finite:
            listed = join_first(sample_ids.filter(pl.Series(bad)), _LISTED)
            raise CacheError(
                f"{request.file}: {count_of(int(bad.sum()), 'row')} with NaN, infinity, or a number too large for "
                f"{spec.dtype}: {listed}. Repair them, or keep them as rows that failed with --mark-non-finite."
            )
        spec = spec.model_copy(update={"sha256": scanned.sha256})
        rows = _ImportedRows(arrays, positions, bad, scanned.gather, request.file.name)
        with lock_cache(path):
            add_stream(path, _layout(spec, arrays.shape, arrays.dimensions))
            _write_blocks(path, cache, spec, rows, on_rows)
    absent, failed = int((positions < 0).sum()), int(bad.sum())
    ok = int((rows.status(slice(None)) == Status.OK).sum())
    there = len(positions) - absent
    return ImportSummary(ok, absent, failed, len(arrays.ids) - there, scanned.sha256, there - failed - ok)


def _join(path: Path, sample_ids: pl.Series, ids: pl.Series, request: ImportRequest) -> npt.NDArray[np.int64]:
    """Return the row of the file that belongs to each row of the cache, (N,) int64, -1 for none."""
    repeated = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if len(repeated):
        count, listed = count_of(len(repeated), "id"), join_first(repeated, _LISTED)
        raise CacheError(f"{request.file}: {request.ids!r} repeats {count}: {listed}")
    file_rows = pl.DataFrame({"sample_id": ids}).with_row_index("position")
    joined = pl.DataFrame({"sample_id": sample_ids}).join(file_rows, on="sample_id", how="left", maintain_order="left")
    positions: npt.NDArray[np.int64] = joined["position"].cast(pl.Int64).fill_null(-1).to_numpy()
    if not (positions >= 0).any():
        raise CacheError(
            f"{request.file}: none of its {len(ids)} ids is a sample id of {path}. The cache has ids like "
            f"{sample_ids[0]!r}, {request.ids!r} of the file ids like {ids[0]!r}."
        )
    unknown = ids.filter(~ids.is_in(sample_ids.implode()))
    if len(unknown) and not request.ignore_unknown:
        count, listed = count_of(len(unknown), "id"), join_first(unknown, _LISTED)
        raise CacheError(
            f"{request.file}: {count} that {path} does not have: {listed}. Skip them with --ignore-unknown."
        )
    return positions


@dataclass(frozen=True)
class _Scanned:
    """A file that was read once from its beginning to its end.

    Attributes:
        sha256: the SHA-256 of its content.
        bad: rows with a value that is not finite in the stored type, (n,) bool.
        gather: (k,) row numbers in any order -> (k, *shape) of the stored type.
    """

    sha256: str
    bad: npt.NDArray[np.bool_]
    gather: Gather


def _scan(arrays: ForeignArrays, dtype: np.dtype[Any], positions: npt.NDArray[np.int64], spool: Path) -> _Scanned:
    """Read all rows in their order: hash them, find those that are not finite, copy them if random rows are slow.

    The digest is the SHA-256 of shape and stored type, of the ids and of the stored values in little-endian; followed
    by the mask of sequences, and by the status where a row is not OK.
    """
    count = len(arrays.ids)
    header: dict[str, Any] = {"shape": [count, *arrays.shape], "dtype": str(dtype)}
    if arrays.dimensions != VECTOR:
        header["dimensions"] = list(arrays.dimensions)
    digest = hashlib.sha256(canonical_json(header).encode())
    for part in arrays.ids.to_frame().iter_slices(_IDS_AT_ONCE):
        digest.update(canonical_json(part.to_series().to_list()).encode())
    bad = np.zeros(count, dtype=np.bool_)
    copy: npt.NDArray[Any] | None = None
    if arrays.is_slow_at_random and (np.diff(positions[positions >= 0]) < 0).any():
        copy = np.memmap(spool / "rows", dtype=dtype, mode="w+", shape=(count, *arrays.shape))
    for first, slab in _slabs(arrays, dtype):
        rows = slice(first, first + len(slab))
        bad[rows] = ~np.isfinite(slab.reshape(len(slab), -1)).all(axis=1)
        digest.update(slab.astype(dtype.newbyteorder("<"), copy=False).data)
        if copy is not None:
            copy[rows] = slab
    if arrays.mask is not None:
        digest.update(arrays.mask.data)
    if (arrays.status != Status.OK).any():
        digest.update(arrays.status.data)

    def gather(wanted: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        order = np.argsort(wanted)  # HDF5 gives ascending rows only
        rows = np.empty((len(wanted), *arrays.shape), dtype=dtype)
        if len(wanted):
            rows[order] = arrays.read(wanted[order], dtype) if copy is None else copy[wanted[order]]
        return rows

    return _Scanned(digest.hexdigest(), bad, gather)


def _slabs(arrays: ForeignArrays, dtype: np.dtype[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield all rows in their order, some megabytes at a time: (first row, (k, *shape) of the stored type)."""
    row_bytes = int(np.prod(arrays.shape)) * max(dtype.itemsize, arrays.features.dtype.itemsize)
    step = max(1, _SLAB_BYTES // row_bytes)
    for first in range(0, len(arrays.ids), step):
        yield first, arrays.read(slice(first, first + step), dtype)


def _layout(spec: ImportedSpec, shape: tuple[int, ...], dimensions: tuple[str, ...]) -> StreamLayout:
    return StreamLayout(
        name=spec.name,
        kind=spec.kind,
        shape=shape,
        dimensions=dimensions,
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
class _ImportedRows:
    """The rows of the cache and where they come from.

    Attributes:
        arrays: the arrays of the file.
        positions: the row of the file for each row of the cache, (N,) int64, -1 for none.
        bad: rows of the cache with values that are not finite, (N,) bool.
        gather: reads rows of the file (see `_Scanned`).
        file: the name of the file, for reasons.
    """

    arrays: ForeignArrays
    positions: npt.NDArray[np.int64]
    bad: npt.NDArray[np.bool_]
    gather: Gather
    file: str

    def status(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Return the status of some rows of the cache, (n,) uint8."""
        positions = self.positions[rows]
        status = np.where(positions >= 0, self.arrays.status[positions], np.uint8(Status.NO_DETECTION))
        status[self.bad[rows]] = Status.FAILED
        return status.astype(np.uint8)

    def features(self, rows: slice, status: npt.NDArray[np.uint8], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the features of some rows of the cache, (n, *shape), zeros where the status is not OK."""
        ok = status == Status.OK
        features = np.zeros((len(status), *self.arrays.shape), dtype=dtype)
        features[ok] = self.gather(self.positions[rows][ok])
        return features

    def mask(self, rows: slice, status: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        """Return the mask of some rows of the cache, (n, T); None unless they are sequences."""
        if self.arrays.mask is None:
            return None
        positions = self.positions[rows]
        mask: npt.NDArray[np.uint8] = self.arrays.mask[positions]
        mask[(positions < 0) | (status == Status.FAILED)] = Step.PADDING
        return mask

    def reasons(self, rows: slice, status: npt.NDArray[np.uint8]) -> list[str]:
        """Return why rows of the cache are not OK, "" where they are."""
        reasons = []
        for position, bad, code in zip(self.positions[rows], self.bad[rows], status.tolist(), strict=True):
            what = "not in" if position < 0 else "not finite in" if bad else f"{_WORDS.get(Status(code), '')} in"
            reasons.append("" if code == Status.OK else f"{what} {self.file}")
        return reasons


def _write_blocks(
    path: Path, cache: CacheLayout, spec: ImportedSpec, source: _ImportedRows, on_rows: OnRows | None
) -> None:
    """Write the blocks that the stream lacks."""
    stream = read_stream(path, cache, spec.name)
    if stream is None:
        raise CacheError(f"{path}: {spec.name!r} was removed while it was imported. Import it again.")
    layouts = read_layouts(path, spec.name)
    for block in stream.lacking_blocks().tolist():
        rows = cache.block_slice(block)
        status = source.status(rows)
        write_block(
            path,
            spec.name,
            block,
            features=source.features(rows, status, stream.dtype),
            status=status,
            flags=np.zeros(len(status), dtype=np.uint8),
            mask=source.mask(rows, status),
            reasons=source.reasons(rows, status),
            layouts=layouts,
        )
        if on_rows is not None:
            on_rows(rows.stop, cache.rows)
