"""The rows of searched runs, in a folder of plain files that several sweeps can share.

    FOLDER/
        rows/<random id>.jsonl   a finished group: one JSON object a run (class `RunRow`)
        claims/<random id>.json  the runs that a process trains now; the process holds the lock of the file
        claims/lock              the lock that a process holds while it makes or reads claims

A file of rows is written under another name, flushed to the disk, renamed, and never changed, so a process that is
killed leaves whole groups only. The results of a folder are the union of its files, with each run once by its digest.
Reading needs no lock. Windows has no `flock`: there, sweeps must not share a folder at the same time.
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
"""The time between two looks at the folder while another process trains the wanted runs."""


@dataclass(frozen=True)
class RunRow:
    """The row of one searched run: its specification and its scores on validation rows, in plain JSON.

    Attributes:
        digest: the digest of the run, see `emofuse.training.data.TrainingData.digest`; with halving, it includes
            the bracket.
        configuration: the key of the configuration, the same for its folds and seeds.
        name: the name of the configuration.
        settings: factor -> value, for the factors that vary in the sweep.
        spec: the `RunSpec` as plain data.
        fold: the index of the fold; None for the plain split.
        seed: the seed of weights and dropout.
        val_macro_f1: the macro F1 of the best epoch; None if no epoch had a finite loss, or if there are no classes.
        val_accuracy: the accuracy of the best epoch, or None.
        val_loss: the loss of the best epoch, or None.
        best_epoch: the best epoch, counted from 1; 0 if no epoch had a finite loss.
        last_epoch: the last epoch that was trained.
        ended: the reason for the end: `epochs`, `patience`, `halved` or `diverged`.
        parameters: the number of trainable parameters of the head.
        seconds: the run's share of the wall time of its group.
        history: one entry for each finite epoch: {epoch, train_loss, val_loss, val_accuracy, val_macro_f1, ...}.
        sweep: the name of the sweep that trained it.
        device: the device it was trained on.
        created: the time of the end, UTC in ISO 8601.
        versions: package -> version.
        val_ccc: the mean concordance correlation of the best epoch; None if the target is no regression.
        val_map: the mean average precision of the best epoch; None if the target is not several labels.
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
    val_ccc: float | None = None
    val_map: float | None = None
    format: int = field(default=FORMAT)

    @property
    def drawn_fold(self) -> tuple[int, int] | None:
        """The seed of the folds and the index of the run's fold; None for the plain split."""
        if self.fold is None:
            return None
        fold: Mapping[str, Any] = self.spec.get("fold") or {}
        return fold.get("seed", 0), self.fold


@dataclass(frozen=True)
class Holder:
    """A living process with the runs that it has claimed.

    Attributes:
        pid: the process id.
        host: the name of the machine.
        digests: the digests of the runs.
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
    """A folder of rows, and of claims of the processes that train more of them.

    Args:
        path: the path of the folder, which is made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = path / "rows"
        self._claims = path / "claims"
        self._read: dict[str, list[RunRow]] = {}

    def rows(self) -> list[RunRow]:
        """Return the row of every run, in the order in which the runs ended. No file is read twice.

        Two files with the same run were written by processes that could not see each other's claims. Their rows are
        equal, and the first one counts.

        Raises:
            ResultsError: a file is damaged or not a file of rows.
        """
        dated = [(row.created, name, row) for name, rows in self._read_files().items() for row in rows]
        unique: dict[str, RunRow] = {}
        for _, _, row in sorted(dated, key=lambda entry: entry[:2]):
            unique.setdefault(row.digest, row)
        return list(unique.values())

    def write(self, rows: Sequence[RunRow]) -> Path:
        """Write the rows of a group as one file, which is complete or absent if this process is killed."""
        text = "".join(json.dumps(_written(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        self._files.mkdir(parents=True, exist_ok=True)
        target = self._files / f"{secrets.token_hex(8)}.jsonl"
        replace_file(target, text, flush=True)
        return target

    @contextmanager
    def claim(self, digests: Collection[str]) -> Iterator[frozenset[str]]:
        """Claim runs, so that no other process trains them until the block is left or this process ends.

        Rows must be written inside the block, so that a run is always either claimed or there.

        Args:
            digests: the digests of the wanted runs.

        Yields:
            The digests of the runs without a row that no other process has claimed.
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
        """Claim one digest, and wait while another living process has it.

        Args:
            digest: the digest to claim, which is not that of a row.
            say: receives the processes that are waited for, whenever they change.
        """
        announced: str | None = None
        while True:
            with self.claim([digest]) as claimed:
                if claimed:
                    yield
                    return
            holders = " and ".join(map(str, self.holders([digest])))
            if holders and holders != announced:
                say(holders)
                announced = holders
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def holders(self, digests: Collection[str]) -> list[Holder]:
        """Return the living processes that have claimed some of these runs, each with the runs that it has claimed."""
        if not self._claims.is_dir():
            return []
        wanted = set(digests)
        with self._claiming():
            holders = self._holders()
        of_wanted = [Holder(each.pid, each.host, tuple(sorted(wanted & set(each.digests)))) for each in holders]
        return [holder for holder in of_wanted if holder.digests]

    def _read_files(self) -> Mapping[str, list[RunRow]]:
        if self._files.is_dir():
            present = {path.name: path for path in sorted(self._files.iterdir()) if not path.name.startswith(".")}
            self._read = {name: self._read.get(name) or _read_rows(path) for name, path in present.items()}
        return self._read

    def _holders(self) -> list[Holder]:
        """Return the claims of living processes and remove those of dead ones. The caller holds the lock."""
        holders = []
        for path in sorted(self._claims.glob("*.json")):
            with suppress(FileNotFoundError):  # its process has just removed it
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


def _written(row: RunRow) -> dict[str, Any]:
    """Return the keys of a row; the scores of a target that it does not have are left out."""
    return {key: value for key, value in asdict(row).items() if value is not None or key not in {"val_ccc", "val_map"}}


def _read_rows(path: Path) -> list[RunRow]:
    if path.suffix != ".jsonl" or not path.is_file():
        raise ResultsError(f"{path}: not a file of rows (ID.jsonl). Move it out of this folder")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            format_number = _FORMAT.validate_json(line).format
            if format_number != FORMAT:
                raise ResultsError(
                    f"{where}: format {format_number}, this emofuse reads format {FORMAT}. Name another folder, or "
                    "delete the file; the sweep trains its runs again"
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
    """Write a claim, which this process keeps locked until it closes the file. The caller holds the lock."""
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
    """Return whether the process of this claim is alive: the system frees the locks of processes that end."""
    if sys.platform == "win32":
        return False
    import fcntl

    with path.open("rb") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
