"""The folder of weights on this machine, with a record of every file in it.

For weights NAME, the folder holds the file and its record `NAME.json`: SHA-256, size, time of change, source. As long
as size and time agree with the record, the file is not hashed again, except by `emofuse weights verify`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from emofuse.checksum import hash_file
from emofuse.errors import WeightsError
from emofuse.machine.home import NoHomeError, user_folder
from emofuse.stores import PARTIAL_SUFFIX, replace_file, replacing
from emofuse.weights.content import why_damaged, why_no_model
from emofuse.weights.registry import REGISTRY, WeightsEntry

_MODEL_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar", ".task")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The record of one file in the weights folder.

    Attributes:
        name: the name of the weights.
        file: the name of the file in the folder.
        sha256: the SHA-256 of the file, 64 hex digits.
        size_bytes: the size of the file.
        mtime_ns: the time of change of the file when it was hashed.
        source: the URL or path that the file came from.
        added: the time when it was added, ISO 8601 in UTC.
    """

    name: str
    file: str
    sha256: str
    size_bytes: int
    mtime_ns: int
    source: str
    added: str

    @property
    def path(self) -> Path:
        """The path of the file."""
        return weights_dir() / self.file

    def is_unchanged(self) -> bool:
        """Return whether the file still has the size and the time of change of the record."""
        stat = self.path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.size_bytes, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of `verify_weights` for one file; unless it is ok, `detail` says why and what to do."""

    name: str
    state: Literal["ok", "damaged", "missing", "unfinished", "unrecorded"]
    detail: str = ""


def weights_dir() -> Path:
    """Return the folder of weights: `EMOFUSE_WEIGHTS_DIR`, or `emofuse/weights` in the user's cache folder (XDG).

    Raises:
        WeightsError: no variable names the folder, and the user has no home folder.
    """
    try:
        return user_folder("EMOFUSE_WEIGHTS_DIR", "XDG_CACHE_HOME", ".cache", "weights")
    except NoHomeError as error:
        raise WeightsError(f"the folder of weights is unknown: {error}") from None


def how_to_get(name: str) -> str:
    """Return the command that puts weights of this name into the folder."""
    entry = REGISTRY.get(name)
    fetchable = entry is not None and entry.url is not None
    return f"emofuse weights fetch {name}" if fetchable else f"emofuse weights import PATH --as {name}"


def find_stored(name: str) -> StoredWeights | None:
    """Return the record of weights in the folder, or None without record or file.

    Raises:
        WeightsError: the record cannot be read.
    """
    record = _record_path(name)
    if not record.is_file():
        return None
    stored = _read_record(record)
    return stored if stored.path.is_file() else None


def stored_weights() -> list[StoredWeights]:
    """Return the records of all weights in the folder, by name.

    Raises:
        WeightsError: a record cannot be read.
    """
    records = sorted(weights_dir().glob("*.json"))
    return [stored for record in records if (stored := _read_record(record)).path.is_file()]


def import_weights(path: Path, name: str | None = None) -> StoredWeights:
    """Copy a file into the weights folder.

    Args:
        path: the file.
        name: the name of a registry entry, whose hash the file must have, or any other name; None finds the entry by
            the hash of the file.

    Raises:
        WeightsError: there is no such file, it is no model, its hash is not that of the registry entry or of any entry,
            the name is taken by another file, or the folder cannot be written.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    _check_model(path, str(path))
    sha256 = hash_file(path)
    name = _recognise(path, sha256) if name is None else name
    filename = _check_name(path, sha256, name)
    there = find_stored(name)
    if there is not None and there.sha256 == sha256 and hash_file(there.path) == sha256:
        return there
    if there is not None and there.sha256 != sha256 and name not in REGISTRY:
        raise WeightsError(
            f"the name {name!r} is taken by other weights ({there.path}): delete them or use another name"
        )
    with explain_write_errors():
        weights_dir().mkdir(parents=True, exist_ok=True)
        kept = weights_dir() / filename
        with replacing(kept) as partial:
            shutil.copyfile(path, partial)
            if hash_file(partial) != sha256:
                raise WeightsError(f"{path} changed while it was copied: import it again")
        return write_record(kept, name, sha256, source=str(path.resolve()))


def keep_file(partial: Path, name: str, filename: str, sha256: str, *, source: str) -> StoredWeights:
    """Give a checked file its name in the folder and write its record."""
    path = weights_dir() / filename
    partial.replace(path)
    return write_record(path, name, sha256, source=source)


def write_record(path: Path, name: str, sha256: str, *, source: str) -> StoredWeights:
    """Write the record of a file in the folder that was just hashed."""
    stat = path.stat()
    added = datetime.now(UTC).isoformat(timespec="seconds")
    stored = StoredWeights(name, path.name, sha256, stat.st_size, stat.st_mtime_ns, source, added)
    record = _record_path(name)
    replace_file(record, json.dumps(asdict(stored), indent=2) + "\n")
    return stored


def verify_weights() -> list[Verdict]:
    """Hash every file of the folder again, even if size and time agree with its record.

    Returns:
        One verdict per file, by name. `damaged` and `missing` are faults; `unfinished` is a download that can be
        resumed, `unrecorded` a file without a record.

    Raises:
        WeightsError: a record cannot be read.
    """
    folder = weights_dir()
    records = [_read_record(path) for path in sorted(folder.glob("*.json"))]
    verdicts = [verify_stored(stored) for stored in records]
    known = {stored.file for stored in records}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.endswith(PARTIAL_SUFFIX):
            detail = f"{path.stat().st_size:,} bytes of a download: fetch it again to resume it, or delete it"
            verdicts.append(Verdict(path.name, "unfinished", detail))
        elif path.is_file() and path.suffix not in (".json", ".resume") and path.name not in known:
            verdicts.append(Verdict(path.name, "unrecorded", f"emofuse weights import {path} records it"))
    return verdicts


def verify_stored(stored: StoredWeights) -> Verdict:
    """Hash one file and compare it with its record and the registry."""
    again = f"get it again: {how_to_get(stored.name)}"
    if not stored.path.is_file():
        return Verdict(stored.name, "missing", f"{stored.path} is gone; {again}")
    sha256 = hash_file(stored.path)
    entry = REGISTRY.get(stored.name)
    if sha256 != stored.sha256:
        return Verdict(stored.name, "damaged", f"SHA-256 was {stored.sha256}, is {sha256}; {again}")
    if entry is not None and entry.sha256 is not None and not entry.matches(sha256):
        return Verdict(stored.name, "damaged", f"SHA-256 is {sha256}, the registry says {_digits(entry)}; {again}")
    return Verdict(stored.name, "ok")


@contextmanager
def explain_write_errors() -> Iterator[None]:
    """Turn errors of the file system into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"cannot write weights to {weights_dir()}: {error.strerror or error}. Free some space or set "
            "EMOFUSE_WEIGHTS_DIR to a folder that you can write"
        ) from None


def check_entry_content(path: Path, entry: WeightsEntry, what: str) -> str:
    """Check a file against its registry entry and return its SHA-256.

    Args:
        path: the file.
        entry: the entry whose file it should be.
        what: the name of the file in error messages.

    Raises:
        WeightsError: it is no model, or has not the published hash, or is a damaged archive where no hash is published.
    """
    _check_model(path, what)
    sha256 = hash_file(path)
    if entry.sha256 is None:
        reason = why_damaged(path)
        if reason is not None:
            raise WeightsError(f"{what} {reason}")
    elif not entry.matches(sha256):
        raise WeightsError(f"{what} is not {entry.name}: expected SHA-256 {_digits(entry)}, got {sha256}")
    return sha256


def _digits(entry: WeightsEntry) -> str:
    digits = entry.sha256 or ""
    return digits if len(digits) == 64 else f"{digits}..."


def _check_model(path: Path, what: str) -> None:
    reason = why_no_model(path)
    if reason is not None:
        raise WeightsError(f"{what} {reason}")


def _recognise(path: Path, sha256: str) -> str:
    names = [entry.name for entry in REGISTRY.values() if entry.matches(sha256)]
    if len(names) != 1:
        raise WeightsError(
            f"{path} is not a file of the registry (SHA-256 {sha256}): give it a name with --as NAME, and use it as "
            "weights: {kind: registry, name: NAME}"
        )
    return names[0]


def _check_name(path: Path, sha256: str, name: str) -> str:
    """Check that `path` may be stored as `name`, and return the name of the file in the folder."""
    entry = REGISTRY.get(name)
    if entry is not None:
        check_entry_content(path, entry, str(path))
        return entry.filename
    known_as = [entry.name for entry in REGISTRY.values() if entry.matches(sha256)]
    if known_as:
        raise WeightsError(f"{path} is {known_as[0]} of the registry: import it under that name (leave out --as)")
    if not _NAME.match(name) or name.endswith(PARTIAL_SUFFIX):
        raise WeightsError(f"{name!r} cannot name weights: use only letters, digits, '.', '_' and '-'")
    if path.suffix not in _MODEL_SUFFIXES:
        suffixes = ", ".join(_MODEL_SUFFIXES)
        raise WeightsError(f"{path} has not the suffix of a file of weights, expected one of {suffixes}")
    return f"{name}{path.suffix}"


def _record_path(name: str) -> Path:
    return weights_dir() / f"{name}.json"


def _read_record(path: Path) -> StoredWeights:
    try:
        return StoredWeights(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise WeightsError(f"{path} is not a record of weights: delete it and fetch or import them again") from None
