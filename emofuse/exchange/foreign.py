"""Arrays that another tool wrote: HDF5 and npz files opened without reading them whole, and without unpickling."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.errors import CacheError, did_you_mean

_LOCAL_HEADER_BYTES = 30  # of a zip member, without its name and extra field
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class ForeignArrays:
    """Vectors of another tool with the ids of their samples.

    Attributes:
        features: (n, D), or (n, 1, D), of numbers, sliced and indexed by rows like a NumPy array.
        ids: n texts.
        slow_at_random: rows out of order are read chunk by chunk, each chunk again and again.
    """

    features: Any
    ids: pl.Series
    slow_at_random: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and D."""
        return self.features.shape[0], self.features.shape[-1]


@contextmanager
def open_arrays(file: Path, dataset: str, ids: str, spool: Path) -> Iterator[ForeignArrays]:
    """Opens two arrays of a file.

    Args:
        file: HDF5 or npz, told apart by their content.
        dataset: name of the vectors in it.
        ids: name of the sample ids in it.
        spool: a folder for unpacked copies.

    Raises:
        CacheError: no such file or array, another format, a damaged file, or arrays of another shape or type.
    """
    with ExitStack() as stack:
        try:
            features, raw_ids, slow = _open(file, dataset, ids, spool, stack)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CacheError(f"{file}: cannot be read ({error})") from error
        shape, dtype = tuple(features.shape), features.dtype
        if dtype.kind not in "fiu" or not (len(shape) == 2 or (len(shape) == 3 and shape[1] == 1)) or 0 in shape:
            raise CacheError(f"{file}: {dataset!r} must be (n, D) of numbers, got {shape} {dtype}")
        texts = _texts(file, ids, raw_ids)
        if len(texts) != shape[0]:
            raise CacheError(f"{file}: {ids!r} has {len(texts)} ids for the {shape[0]} rows of {dataset!r}")
        yield ForeignArrays(features, texts, slow)


def _open(file: Path, dataset: str, ids: str, spool: Path, stack: ExitStack) -> tuple[Any, npt.NDArray[Any], bool]:
    """Vectors, ids as they are stored, and whether random rows are slow."""
    import h5py

    if not file.is_file():
        raise CacheError(f"{file}: no such file")
    if h5py.is_hdf5(file):
        opened = stack.enter_context(h5py.File(file, "r"))
        found = {name: _hdf5_array(file, opened, name) for name in (dataset, ids)}
        is_text = h5py.check_string_dtype(found[ids].dtype) is not None
        raw_ids = found[ids].asstr()[()] if is_text else found[ids][()]
        return found[dataset], np.asarray(raw_ids), found[dataset].chunks is not None
    if zipfile.is_zipfile(file):
        archive = stack.enter_context(zipfile.ZipFile(file))
        features, raw_ids = (_npz_array(file, archive, name, spool) for name in (dataset, ids))
        return features, np.asarray(raw_ids), False
    raise CacheError(f"{file}: neither HDF5 nor npz. Write the arrays with h5py, or with numpy.savez")


def _hdf5_array(file: Path, opened: Any, name: str) -> Any:
    import h5py

    found = opened.get(name)
    if not isinstance(found, h5py.Dataset):
        there: list[str] = []
        opened.visititems(lambda key, item: there.append(key) if isinstance(item, h5py.Dataset) else None)
        raise _no_array(file, name, there)
    if found.file.filename != opened.filename or found.external or found.is_virtual:
        raise CacheError(f"{file}: {name!r} lies in other files, which are not read. Import from the one that holds it")
    return found


def _npz_array(file: Path, archive: zipfile.ZipFile, name: str, spool: Path) -> npt.NDArray[Any]:
    """An array of an npz, mapped into memory: in place if it is stored as it is, else from an unpacked copy.

    It is read through once in either case, which is when the zip's checksum is checked.
    """
    there = [member.removesuffix(".npy") for member in archive.namelist()]
    if name not in there:
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
    """The array of the npy file that begins at this offset."""
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
        if 0 in shape or not shape:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", raw.tell(), shape, "F" if fortran_order else "C")


def _texts(file: Path, name: str, raw: npt.NDArray[Any]) -> pl.Series:
    """Ids as text: text, bytes of UTF-8, or integers."""
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
