"""Arrays that another tool wrote: HDF5 and npz files, opened without reading them whole and without unpickling."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.errors import CacheError, did_you_mean
from emofuse.exchange.dimensions import SEQUENCE, VECTOR, check_shape
from emofuse.status import Status, Step

_LOCAL_HEADER_BYTES = 30  # of a zip member, without its name and extra field
_READ_BYTES = 1 << 20
_DESCRIPTION = "description"  # the array of an export that holds specs, digests and dimensions


@dataclass(frozen=True)
class ForeignNames:
    """The names of the arrays that are read from a file.

    Attributes:
        features: the array of the features, (n, *shape) of numbers.
        ids: the array of the sample ids, (n,).
        mask: the array of the steps of sequences, (n, T); None for the one beside the features of an export, if any.
        dimensions: the names of the axes of `shape`; None for those of an export, or of vectors.
    """

    features: str
    ids: str
    mask: str | None = None
    dimensions: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ForeignArrays:
    """The features of another tool with the ids of their samples.

    Attributes:
        features: (n, ...) numbers, sliced and indexed by rows like a NumPy array.
        ids: the n sample ids, as text.
        shape: the shape of the features of one row.
        dimensions: the names of the axes of `shape`.
        status: (n,) uint8 of `Status`; all OK unless the file is an export that says otherwise.
        mask: (n, T) uint8 of `Step` for sequences, all OK unless the file has a mask; None for all else.
        is_slow_at_random: whether reading rows out of order decompresses each chunk again and again.
    """

    features: Any
    ids: pl.Series
    shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    status: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None
    is_slow_at_random: bool

    def read(self, rows: slice | npt.NDArray[np.int64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return rows in the stored type, (k, *shape), with zeros where the row or the step is not OK.

        A number that is too large for the type becomes infinite.
        """
        values = self.features[rows]
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values.reshape(len(values), *self.shape), dtype=dtype)
        absent = self.status[rows] != Status.OK
        if self.mask is not None:
            absent = (self.mask[rows] != Step.OK) | absent[:, None]
        if absent.any():
            stored = stored.copy()  # it may be the file itself, mapped into memory
            stored[absent] = 0
        return stored


@contextmanager
def open_arrays(file: Path, names: ForeignNames, spool: Path) -> Iterator[ForeignArrays]:
    """Open the arrays of a file.

    Args:
        file: an HDF5 or npz file; its content tells which.
        names: the names of the arrays.
        spool: a folder for unpacked copies.

    Raises:
        CacheError: there is no such file or array, the format is another one, the file is damaged, or an array has
            another shape or type.
    """
    with ExitStack() as stack:
        try:
            arrays = _read(file, names, _open(file, spool, stack))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CacheError(f"{file}: cannot be read ({error})") from error
        yield arrays


Find = Callable[..., Any]
"""Name -> array, sliced like one of NumPy. Raises unless the array is there, or returns None with `optional=True`."""


def _open(file: Path, spool: Path, stack: ExitStack) -> Find:
    """Open a file and return the function that finds its arrays."""
    import h5py

    if not file.is_file():
        raise CacheError(f"{file}: no such file")
    if h5py.is_hdf5(file):
        opened = stack.enter_context(h5py.File(file, "r"))
        return lambda name, optional=False: _hdf5_array(file, opened, name, optional=optional)
    if zipfile.is_zipfile(file):
        archive = stack.enter_context(zipfile.ZipFile(file))
        return lambda name, optional=False: _npz_array(file, archive, name, spool, optional=optional)
    raise CacheError(f"{file}: neither HDF5 nor npz. Write the arrays with h5py, or with numpy.savez")


def _read(file: Path, names: ForeignNames, find: Find) -> ForeignArrays:
    """Check the arrays of a file, and read all of them but the features."""
    features = find(names.features)
    is_chunked = not isinstance(features, np.ndarray) and features.chunks is not None
    dimensions = names.dimensions or _exported_dimensions(find, names.features) or VECTOR
    shape = check_shape(file, names.features, features.shape, features.dtype, dimensions)
    count = features.shape[0]
    ids = _texts(file, names.ids, _whole(find(names.ids)))
    if len(ids) != count:
        raise CacheError(f"{file}: {names.ids!r} has {len(ids)} ids for the {count} rows of {names.features!r}")
    status = _read_status(file, find, names.features, count)
    if dimensions[0] != SEQUENCE:
        if names.mask is not None:
            raise CacheError(f"{file}: only sequences have a mask. Begin --dimensions with time, or omit --mask")
        return ForeignArrays(features, ids, shape, dimensions, status, None, is_chunked)
    mask = _read_mask(file, find, names, (count, shape[0]))
    mask[(mask == Step.OK) & (status != Status.OK)[:, None]] = Step.PADDING
    status[(status == Status.OK) & ~(mask == Step.OK).any(axis=1)] = Status.NO_DETECTION
    return ForeignArrays(features, ids, shape, dimensions, status, mask, is_chunked)


def _beside(features: str, name: str) -> str | None:
    """Return the name of another array of the same stream of an export; None if the file is none."""
    folder, _, last = features.rpartition("/")
    return f"{folder}/{name}" if last == "features" and folder.startswith("streams/") else None


def _exported_dimensions(find: Find, features: str) -> tuple[str, ...] | None:
    """Return the dimensions that an export names for its stream; None if it names none."""
    folder = _beside(features, "")
    description = None if folder is None else find(_DESCRIPTION, optional=True)
    if description is None:
        return None
    text = description.asstr()[()] if hasattr(description, "asstr") else str(description[()])
    try:
        stream = json.loads(text)["streams"][str(folder).removeprefix("streams/").strip("/")]
        return tuple(stream["dimensions"]) if "dimensions" in stream else None
    except (ValueError, LookupError, TypeError):
        return None  # it is not the description that an export writes


def _read_status(file: Path, find: Find, features: str, count: int) -> npt.NDArray[np.uint8]:
    """Return the status of all rows, (n,): all OK unless an export has an array of them beside the features."""
    name = _beside(features, "status")
    stored = None if name is None else find(name, optional=True)
    if stored is None:
        return np.full(count, Status.OK, dtype=np.uint8)
    status = np.array(_whole(stored))
    known = set(Status) - {Status.PENDING}
    if status.shape != (count,) or status.dtype != np.uint8 or not set(np.unique(status).tolist()) <= known:
        raise CacheError(f"{file}: {name!r} must be ({count},) uint8 of statuses, got {status.shape} {status.dtype}")
    return status


def _read_mask(file: Path, find: Find, names: ForeignNames, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return the mask of sequences, (n, T) uint8 of `Step`: all OK unless the file has one."""
    name = names.mask or _beside(names.features, "mask")
    stored = None if name is None else find(name, optional=names.mask is None)
    if stored is None:
        return np.full(shape, Step.OK, dtype=np.uint8)
    mask = np.array(_whole(stored))
    if mask.shape != shape or mask.dtype.kind not in "biu" or not set(np.unique(mask).tolist()) <= set(Step):
        steps = ", ".join(f"{step.value} {step.name.lower()}" for step in Step)
        raise CacheError(
            f"{file}: {name!r} must be {shape} of true and false, or of the steps {steps}; "
            f"got {mask.shape} {mask.dtype}{_strange(mask)}"
        )
    return mask.astype(np.uint8)


def _strange(mask: npt.NDArray[Any]) -> str:
    """Return the first value of a mask that is no step, in words."""
    strange = sorted(set(np.unique(mask).tolist()) - set(Step)) if mask.dtype.kind in "iu" else []
    return f" with {strange[0]}" if strange else ""


def _whole(array: Any) -> npt.NDArray[Any]:
    """Return an array read whole; text of HDF5 as Python strings."""
    import h5py

    if isinstance(array, h5py.Dataset) and h5py.check_string_dtype(array.dtype) is not None:
        return np.asarray(array.asstr()[()])
    return np.asarray(array[()])


def _hdf5_array(file: Path, opened: Any, name: str, *, optional: bool) -> Any:
    import h5py

    dataset = opened.get(name)
    if not isinstance(dataset, h5py.Dataset):
        if optional:
            return None
        there: list[str] = []
        opened.visititems(lambda key, item: there.append(key) if isinstance(item, h5py.Dataset) else None)
        raise _no_array(file, name, there)
    if dataset.file.filename != opened.filename or dataset.external or dataset.is_virtual:
        raise CacheError(f"{file}: {name!r} lies in other files, which are not read. Import from the one that holds it")
    return dataset


def _npz_array(
    file: Path, archive: zipfile.ZipFile, name: str, spool: Path, *, optional: bool
) -> npt.NDArray[Any] | None:
    """Return an array of an npz, mapped into memory: in place if it is stored as it is, else from an unpacked copy.

    It is read through once in either case, which is when the zip's checksum is checked.
    """
    there = [member.removesuffix(".npy") for member in archive.namelist()]
    if name not in there:
        if optional:
            return None
        raise _no_array(file, name, there)
    member = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    if member.compress_type != zipfile.ZIP_STORED:
        unpacked = spool / f"{there.index(name)}.npy"
        with archive.open(member) as packed, unpacked.open("wb") as out:
            shutil.copyfileobj(packed, out, _READ_BYTES)
        return _map_npy(unpacked, 0, file, name)
    with archive.open(member) as stored:
        while stored.read(_READ_BYTES):
            pass
    with file.open("rb") as raw:
        raw.seek(member.header_offset + _LOCAL_HEADER_BYTES - 4)
        lengths = int.from_bytes(raw.read(2), "little") + int.from_bytes(raw.read(2), "little")
    return _map_npy(file, member.header_offset + _LOCAL_HEADER_BYTES + lengths, file, name)


def _map_npy(path: Path, offset: int, file: Path, name: str) -> npt.NDArray[Any]:
    """Return the array of the npy file that begins at this offset."""
    with path.open("rb") as raw:
        raw.seek(offset)
        version = np.lib.format.read_magic(raw)  # type: ignore[no-untyped-call]
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(raw)  # type: ignore[no-untyped-call]
        if dtype.hasobject:
            raise CacheError(
                f"{file}: {name!r} holds pickled Python objects, which are never loaded. Save texts as text: "
                "numpy.array(ids, dtype=str)"
            )
        if 0 in shape:
            return np.zeros(shape, dtype)
        if not shape:
            return np.frombuffer(raw.read(dtype.itemsize), dtype).reshape(())
        return np.memmap(path, dtype, "r", raw.tell(), shape, "F" if fortran_order else "C")


def _texts(file: Path, name: str, raw: npt.NDArray[Any]) -> pl.Series:
    """Return ids as text; they are stored as text, bytes of UTF-8, or integers."""
    if raw.ndim != 1 or raw.dtype.kind not in "USOiu":
        raise CacheError(f"{file}: {name!r} must be (n,) text or integers, got {raw.shape} {raw.dtype}")
    values = raw.tolist()
    try:
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    except UnicodeDecodeError as error:
        raise CacheError(f"{file}: {name!r} holds an id that is not UTF-8 ({error})") from error
    return pl.Series(texts, dtype=pl.String)


def _no_array(file: Path, name: str, there: Sequence[str]) -> CacheError:
    known = ", ".join(there) or "none"
    return CacheError(f"{file}: no array {name!r}{did_you_mean(name, there)} (there are: {known})")
