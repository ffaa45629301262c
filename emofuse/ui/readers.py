"""Read runs and rows of a search while they are written: each file once, and only so many at each look.

What a file says is remembered by its time and size. Reading stops when the time of a look is used, and goes on at the
next one, so that a page of thousands of runs answers at once.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from emofuse.errors import ResultsError
from emofuse.report.configurations import find_metric
from emofuse.report.targets import reported_target
from emofuse.results import read_record

Fact = TypeVar("Fact")

_RUN = re.compile(r"[0-9a-f]{16}")
_ROWS = re.compile(r"[0-9a-f]{16}\.jsonl")
_DIVERGED = ".diverged.json"
_SCORES = {"val_macro_f1": "macro F1", "val_ccc": "mean CCC", "val_map": "mAP"}
_FURTHER_SCORES = {"val_accuracy": "accuracy", "val_loss": "loss"}


class Budget:
    """The time that one look may read for. The first file is always read, so that each look gets further."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._files = 0

    def allows_another(self) -> bool:
        """Return whether another file may be read."""
        self._files += 1
        return self._files == 1 or self._clock() < self._end


@dataclass(frozen=True)
class RunFact:
    """What the page shows of a run.

    Attributes:
        name: the name of its configuration.
        is_reference: whether it is a reference model.
        score: its main score on the validation rows; None without one.
        measure: the name of that score.
        larger_is_better: whether a larger score is better.
    """

    name: str
    is_reference: bool
    score: float | None
    measure: str
    larger_is_better: bool = True


@dataclass(frozen=True)
class RowFact:
    """What the page shows of a searched run.

    Attributes:
        digest: its digest.
        configuration: the key of its configuration.
        name: the name of its configuration.
        scores: the name of a validation score -> its value, without those that it lacks.
        is_diverged: whether its loss stopped being finite.
    """

    digest: str
    configuration: str
    name: str
    scores: dict[str, float]
    is_diverged: bool


@dataclass
class Reading(Generic[Fact]):
    """What is known of the files of a folder.

    Attributes:
        facts: what the files say that were read.
        problems: a sentence for each file that cannot be read.
        unread: the files that are read at later looks.
        diverged: the runs that are recorded as diverged.
        written: the time of the newest file, seconds since 1970; 0 without any.
    """

    facts: list[Fact] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unread: int = 0
    diverged: int = 0
    written: float = 0.0


class FileMemory(Generic[Fact]):
    """Remembers what files say, by their time and size.

    Args:
        read: reads one file; raises `ResultsError` for one that cannot be used.
    """

    def __init__(self, read: Callable[[Path], Fact]) -> None:
        self._read = read
        self._known: dict[str, tuple[tuple[int, int], Fact | str]] = {}

    def look(self, paths: Iterable[str], budget: Budget) -> Reading[Fact]:
        """Return what these files say. Files that are gone are forgotten.

        Args:
            paths: the files as text: thousands of `Path` take longer than all else.
            budget: the time of this look.
        """
        reading: Reading[Fact] = Reading()
        known = {}
        for path in paths:
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:
                continue
            reading.written = max(reading.written, status.st_mtime)
            stamp = status.st_mtime_ns, status.st_size
            entry = self._known.get(path)
            if entry is None or entry[0] != stamp:
                if not budget.allows_another():
                    reading.unread += 1
                    continue
                entry = stamp, self._try(Path(path))
            known[path] = entry
            if isinstance(entry[1], str):
                reading.problems.append(entry[1])
            else:
                reading.facts.append(entry[1])
        self._known = known
        return reading

    def _try(self, path: Path) -> Fact | str:
        try:
            return self._read(path)
        except (ResultsError, OSError) as error:
            return str(error)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return f"{path}: cannot be read ({error!r})"


class RunsReader:
    """Reads the runs of a folder."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._memory = FileMemory(_run_fact)

    def look(self, budget: Budget) -> Reading[RunFact]:
        """Return the runs that are there."""
        names = _names(self._runs)
        folders = [name for name in names if _RUN.fullmatch(name)]
        reading = self._memory.look((f"{self._runs}/{name}/run.json" for name in folders), budget)
        reading.diverged = sum(name.endswith(_DIVERGED) for name in names)
        return reading


class RowsReader:
    """Reads the rows of the search of a sweep."""

    def __init__(self, folder: Path) -> None:
        self._rows = folder / "rows"
        self._memory = FileMemory(_row_facts)

    def look(self, budget: Budget) -> Reading[RowFact]:
        """Return the rows that are there, each run once."""
        paths = (f"{self._rows}/{name}" for name in _names(self._rows) if _ROWS.fullmatch(name))
        files = self._memory.look(paths, budget)
        rows = list({row.digest: row for of_file in files.facts for row in of_file}.values())
        return Reading(rows, files.problems, files.unread, sum(row.is_diverged for row in rows), files.written)


def _run_fact(path: Path) -> RunFact:
    record = read_record(path.parent)
    main = reported_target(record.target_kind).main
    # Test scores are for the report alone: whoever watches a search must not choose by them.
    score = find_metric(record, main.path, "val")
    return RunFact(
        record.name,
        bool(record.spec.get("reference")),
        None if math.isnan(score) else score,
        main.name,
        main.larger_is_better,
    )


def _row_facts(path: Path) -> list[RowFact]:
    rows = []
    for line in path.read_bytes().splitlines():
        data: dict[str, Any] = json.loads(line)
        scores = {
            words: float(data[name])
            for name, words in {**_SCORES, **_FURTHER_SCORES}.items()
            if data.get(name) is not None
        }
        diverged = data["ended"] == "diverged"
        rows.append(RowFact(data["digest"], data["configuration"], data["name"], scores, diverged))
    return rows


def _names(folder: Path) -> list[str]:
    """Return the names in a folder in alphabetical order; none if it is gone."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except OSError:
        return []
