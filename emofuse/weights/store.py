"""The folder of weights on this machine, and the record kept beside every file in it.

For weights NAME the folder holds the file and `NAME.json`, its record: SHA-256, size, time of change, source.
As long as size and time agree with the record, the file is not hashed again (`emofuse weights verify` does).
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
from emofuse.home import NoHomeError, user_folder
from emofuse.weights.content import why_damaged_zip, why_no_model
from emofuse.weights.registry import REGISTRY, WeightsEntry

PARTIAL_SUFFIX = ".partial"
_MODEL_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar", ".task")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The record of one file in the weights folder.

    Attributes:
        name: of the weights.
        file: name of the file in the folder.
        sha256: 64 hex digits.
        size_bytes: of the file.
        mtime_ns: its time of change when it was hashed.
        source: the URL or path that it came from.
        added: when, ISO 8601 in UTC.
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
        """Where the file lies."""
        return weights_dir() / self.file

    def is_unchanged(self) -> bool:
        """Whether the file's size and time of change are still those of the record."""
        stat = self.path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.size_bytes, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify_weights` found of one file: `detail` says why and what to do unless it is ok."""

    name: str
    state: Literal["ok", "damaged", "missing", "unfinished", "unrecorded"]
    detail: str = ""


def weights_dir() -> Path:
    """The folder of weights: `EMOFUSE_WEIGHTS_DIR`, or `emofuse/weights` in the user's cache folder (XDG).

    Raises:
        WeightsError: neither is set, and the user has no home folder.
    """
    try:
        return user_folder("EMOFUSE_WEIGHTS_DIR", "XDG_CACHE_HOME", ".cache", "weights")
    except NoHomeError as error:
        raise WeightsError(f"the folder of weights is not known: {error}") from None


def how_to_get(name: str) -> str:
    """The command that puts weights of this name into the folder."""
    entry = REGISTRY.get(name)
    fetchable = entry is not None and entry.url is not None
    return f"emofuse weights fetch {name}" if fetchable else f"emofuse weights import PATH --as {name}"


def find_stored(name: str) -> StoredWeights | None:
    """The record of weights in the folder, None without record or file.

    Raises:
        WeightsError: the record cannot be read.
    """
    record = _record_path(name)
    if not record.is_file():
        return None
    stored = _read_record(record)
    return stored if stored.path.is_file() else None


def stored_weights() -> list[StoredWeights]:
    """All weights in the folder, by name.

    Raises:
        WeightsError: a record cannot be read.
    """
    records = sorted(weights_dir().glob("*.json"))
    return [stored for record in records if (stored := _read_record(record)).path.is_file()]


def import_weights(path: Path, name: str | None = None) -> StoredWeights:
    """Copies a file into the weights folder.

    Args:
        path: the file.
        name: of a registry entry, whose hash the file must have, or any name of your own; None recognises the entry by
            the file's hash.

    Raises:
        WeightsError: no such file, no model, not the file that the name stands for, not recognised, the name is taken
            by another file, or the folder cannot be written.
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
        partial = weights_dir() / f"{filename}.import{PARTIAL_SUFFIX}"
        try:
            shutil.copyfile(path, partial)
            if hash_file(partial) != sha256:
                raise WeightsError(f"{path} changed while it was copied: import it again")
            return keep_file(partial, name, filename, sha256, source=str(path.resolve()))
        finally:
            partial.unlink(missing_ok=True)


def keep_file(partial: Path, name: str, filename: str, sha256: str, *, source: str) -> StoredWeights:
    """Gives a checked file its name in the folder and writes its record."""
    path = weights_dir() / filename
    partial.replace(path)
    return write_record(path, name, sha256, source=source)


def write_record(path: Path, name: str, sha256: str, *, source: str) -> StoredWeights:
    """Writes the record of a file that lies in the folder and was just hashed."""
    stat = path.stat()
    added = datetime.now(UTC).isoformat(timespec="seconds")
    stored = StoredWeights(name, path.name, sha256, stat.st_size, stat.st_mtime_ns, source, added)
    record = _record_path(name)
    partial = record.with_suffix(f".json{PARTIAL_SUFFIX}")
    partial.write_text(json.dumps(asdict(stored), indent=2) + "\n", encoding="utf-8")
    partial.replace(record)
    return stored


def verify_weights() -> list[Verdict]:
    """Hashes every file of the folder again, whatever its record says of size and time.

    Returns:
        One verdict a file, by name. `damaged` and `missing` are faults; `unfinished` is a download that can go on,
        `unrecorded` a file that nothing knows of.

    Raises:
        WeightsError: a record cannot be read.
    """
    folder = weights_dir()
    records = [_read_record(path) for path in sorted(folder.glob("*.json"))]
    verdicts = [verify_stored(stored) for stored in records]
    known = {stored.file for stored in records}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.endswith(PARTIAL_SUFFIX):
            detail = f"{path.stat().st_size:,} bytes of a download: fetch it again to go on, or delete it"
            verdicts.append(Verdict(path.name, "unfinished", detail))
        elif path.is_file() and path.suffix not in (".json", ".resume") and path.name not in known:
            verdicts.append(Verdict(path.name, "unrecorded", f"emofuse weights import {path} records it"))
    return verdicts


def verify_stored(stored: StoredWeights) -> Verdict:
    """Hashes one file and holds it against its record and the registry."""
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
    """Turns what the file system refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"cannot write weights to {weights_dir()}: {error.strerror or error}. Make room or set EMOFUSE_WEIGHTS_DIR "
            "to a folder that you can write"
        ) from None


def check_entry_content(path: Path, entry: WeightsEntry, what: str) -> str:
    """Checks a file against its registry entry and returns its SHA-256.

    Args:
        path: the file.
        entry: what it should be.
        what: how errors call the file.

    Raises:
        WeightsError: no model, not the published hash, or (where none is published) a damaged archive.
    """
    _check_model(path, what)
    sha256 = hash_file(path)
    if entry.sha256 is None:
        reason = why_damaged_zip(path)
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
            f"{path} is none of the registry's files (SHA-256 {sha256}): give it a name with --as NAME, and use it as "
            "weights: {kind: registry, name: NAME}"
        )
    return names[0]


def _check_name(path: Path, sha256: str, name: str) -> str:
    """The name of the file in the folder, once `path` may be called `name`."""
    entry = REGISTRY.get(name)
    if entry is not None:
        check_entry_content(path, entry, str(path))
        return entry.filename
    known_as = [entry.name for entry in REGISTRY.values() if entry.matches(sha256)]
    if known_as:
        raise WeightsError(f"{path} is {known_as[0]} of the registry: import it under that name (leave out --as)")
    if not _NAME.match(name) or name.endswith(PARTIAL_SUFFIX):
        raise WeightsError(f"{name!r} is no name for weights: letters, digits, '.', '_' and '-' only")
    if path.suffix not in _MODEL_SUFFIXES:
        raise WeightsError(f"{path} is no file of weights by its suffix, expected one of {', '.join(_MODEL_SUFFIXES)}")
    return f"{name}{path.suffix}"


def _record_path(name: str) -> Path:
    return weights_dir() / f"{name}.json"


def _read_record(path: Path) -> StoredWeights:
    try:
        return StoredWeights(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise WeightsError(f"{path} is no record of weights: delete it and fetch or import them again") from None
