"""Rows of searched runs, in a folder that any number of sweeps share. No torch, no cache: plain files.

    FOLDER/
        rows/<random id>.jsonl   a finished group: one JSON object a run (class `RunRow`)
        claims/<random id>.json  what a living process is training now; it holds the file's lock for as long
        claims/lock              held for the moment in which a process claims something

A file of rows is written beside its place, flushed to the disk and renamed, and never changed: a process that is killed
leaves whole groups and nothing between. The results of a folder are the union of its files; a run stands in it once, by
its digest. Reading needs no lock. On Windows, which has no `flock`, sweeps must not share a folder at the same time.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from emofuse.errors import ResultsError
from emofuse.stores import replace_file

FORMAT = 1

SECONDS_BETWEEN_LOOKS = 1.0
"""While another process has what is wanted."""


@dataclass(frozen=True)
class RunRow:
    """One searched run: what was asked and its scores on validation rows. All values are plain JSON.

    Attributes:
        digest: of the run, see `emofuse.training.data.TrainingData.digest`; with halving, of its bracket too.
        configuration: `Configuration.key`, the same for its folds and seeds.
        name: of the configuration.
        settings: what varies in the sweep -> its value here.
        spec: `RunSpec` as plain data.
        fold: index of its fold; None for the plain split.
        seed: of weights and dropout.
        val_macro_f1: of the best epoch; None if there was no finite one.
        val_accuracy: likewise.
        val_loss: likewise, cross-entropy.
        best_epoch: counted from 1; 0 if there was no finite one.
        last_epoch: the epoch in which it ended.
        ended: `epochs`, `patience`, `halved` or `diverged`.
        parameters: trainable parameters of the head.
        seconds: its share of its group's wall time.
        history: one entry a finite epoch: {epoch, train_loss, val_loss, val_accuracy, val_macro_f1, ...}.
        sweep: name of the sweep that trained it.
        device: what it was trained on.
        created: UTC, ISO 8601.
        versions: package -> version.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    digest: str
    configuration: str
    name: str
    settings: Mapping[str, Any]
    spec: Mapping[str, Any]
    fold: int | None
    seed: int
    val_macro_f1: float | None
    val_accuracy: float | None
    val_loss: float | None
    best_epoch: int
    last_epoch: int
    ended: Literal["epochs", "patience", "halved", "diverged"]
    parameters: int
    seconds: float
    history: tuple[Mapping[str, Any], ...]
    sweep: str
    device: str
    created: str
    versions: Mapping[str, str]
    format: int = field(default=FORMAT)


@dataclass(frozen=True)
class Holder:
    """A living process, and the runs that it has claimed.

    Attributes:
        pid: its number.
        host: the machine it runs on.
        digests: of the runs.
    """

    pid: int
    host: str
    digests: tuple[str, ...]

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class _Format:
    format: int


_FORMAT = TypeAdapter(_Format)
_ROW = TypeAdapter(RunRow)
_HOLDER = TypeAdapter(Holder)


class ResultsFolder:
    """The rows of a folder, and who is training what.

    Args:
        path: of the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = path / "rows"
        self._claims = path / "claims"
        self._read: dict[str, list[RunRow]] = {}

    def rows(self) -> list[RunRow]:
        """Every run once, in the order in which they were finished; files seen before are not read again.

        Two files that hold the same run were written by processes that could not see each other's claims. Such runs
        are equal, and the one written first counts.

        Raises:
            ResultsError: a file that is damaged or no file of rows.
        """
        found = [(row.created, name, row) for name, rows in self._read_files().items() for row in rows]
        unique: dict[str, RunRow] = {}
        for _, _, row in sorted(found, key=lambda entry: entry[:2]):
            unique.setdefault(row.digest, row)
        return list(unique.values())

    def write(self, rows: Sequence[RunRow]) -> Path:
        """Adds the rows of a group: all of them or, if this process is killed, none."""
        text = "".join(json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        self._files.mkdir(parents=True, exist_ok=True)
        target = self._files / f"{secrets.token_hex(8)}.jsonl"
        replace_file(target, text, flush=True)
        return target

    @contextmanager
    def claim(self, digests: Collection[str]) -> Iterator[frozenset[str]]:
        """Takes runs for this process, so that no other one trains them until the block is left or the process ends.

        Rows must be written inside the block: a run is then at every moment either claimed or there.

        Args:
            digests: of the runs that are wanted.

        Yields:
            Those which nobody else has claimed and which have no row.
        """
        self._claims.mkdir(parents=True, exist_ok=True)
        path = self._claims / f"{secrets.token_hex(8)}.json"
        with self._claiming():
            taken = {digest for holder in self._holders() for digest in holder.digests}
            taken |= {row.digest for rows in self._read_files().values() for row in rows}
            free = frozenset(digests) - taken
            lock = _make_claim(path, Holder(os.getpid(), platform.node(), tuple(sorted(free)))) if free else None
        try:
            yield free
        finally:
            if lock is not None:
                path.unlink(missing_ok=True)
                lock.close()

    @contextmanager
    def wait_for(self, digest: str, say: Callable[[str], None]) -> Iterator[None]:
        """Claims one thing, and waits as long as another living process has it.

        Args:
            digest: of what is wanted; of no row.
            say: is told who is waited for, once.
        """
        told: str | None = None
        while True:
            with self.claim([digest]) as got:
                if got:
                    yield
                    return
            holders = " and ".join(map(str, self.holders([digest])))
            if holders and holders != told:
                say(holders)
                told = holders
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def holders(self, digests: Collection[str]) -> list[Holder]:
        """Living processes that have claimed some of the runs, each with those of them that it holds."""
        if not self._claims.is_dir():
            return []
        wanted = set(digests)
        with self._claiming():
            found = self._holders()
        held = [Holder(each.pid, each.host, tuple(sorted(wanted & set(each.digests)))) for each in found]
        return [holder for holder in held if holder.digests]

    def _read_files(self) -> Mapping[str, list[RunRow]]:
        if self._files.is_dir():
            present = {path.name: path for path in sorted(self._files.iterdir()) if not path.name.startswith(".")}
            self._read = {name: self._read.get(name) or _read_rows(path) for name, path in present.items()}
        return self._read

    def _holders(self) -> list[Holder]:
        """Claims of living processes, this one's too; those of dead ones are removed. Call it while claiming."""
        holders = []
        for path in sorted(self._claims.glob("*.json")):
            with suppress(FileNotFoundError):  # given back at this moment
                if _is_locked(path):
                    holders.append(_HOLDER.validate_json(path.read_bytes()))
                else:
                    path.unlink()
        return holders

    @contextmanager
    def _claiming(self) -> Iterator[None]:
        lock = os.open(self._claims / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _read_rows(path: Path) -> list[RunRow]:
    if path.suffix != ".jsonl" or not path.is_file():
        raise ResultsError(f"{path}: not a file of rows (ID.jsonl). Move it out of this folder")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            found = _FORMAT.validate_json(line).format
            if found != FORMAT:
                raise ResultsError(
                    f"{where}: format {found}, this emofuse reads format {FORMAT}. Name another folder, or delete the "
                    "file; the sweep trains its runs again"
                )
            rows.append(_ROW.validate_json(line, strict=True))
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise ResultsError(
                f"{where}: damaged ({place + ': ' if place else ''}{fault['msg']}). "
                "Delete the file; the sweep trains its runs again"
            ) from None
    if not rows:
        raise ResultsError(f"{path}: damaged (empty). Delete the file; the sweep trains its runs again")
    return rows


def _make_claim(path: Path, holder: Holder) -> BinaryIO | None:
    """Writes a claim whose lock this process holds until the file is closed. Call it while claiming."""
    if sys.platform == "win32":
        return None
    import fcntl

    claim = path.open("xb")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX)
        claim.write(_HOLDER.dump_json(holder))
        claim.flush()
    except BaseException:
        path.unlink()
        claim.close()
        raise
    return claim


def _is_locked(path: Path) -> bool:
    """Whether the process that made this claim is alive: the system frees the locks of those that end."""
    if sys.platform == "win32":
        return False
    import fcntl

    with path.open("rb") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
