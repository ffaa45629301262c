"""Find results, caches and reports below a folder with a bounded walk that never leaves it."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MOST_FOLDERS = 3000
MOST_ENTRIES = 20_000
DEEPEST = 8

_RUN = re.compile(r"[0-9a-f]{16}")
_OF_WORK = {"runs", "rows", "claims", "progress", "dataset"}


@dataclass(frozen=True)
class Work:
    """A folder of results: of a pipeline, a sweep, or of single runs.

    Attributes:
        path: the folder.
        runs: the folder with a folder for each run.
    """

    path: Path
    runs: Path


@dataclass(frozen=True)
class Places:
    """What lies below a folder.

    Attributes:
        works: the folders of results.
        caches: the feature caches.
        reports: the folders of reports.
        notes: sentences on what was not looked at.
    """

    works: tuple[Work, ...] = ()
    caches: tuple[Path, ...] = ()
    reports: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Walk:
    """The walk through one folder."""

    root: Path
    works: list[Work] = field(default_factory=list)
    caches: list[Path] = field(default_factory=list)
    reports: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def visit(self, folder: Path, entries: Mapping[str, bool]) -> list[str]:
        """Record what a folder is, and return the names of the folders in it that are looked at too."""
        if "zarr.json" in entries or folder.suffix == ".zarr":
            if entries.get("streams") and "zarr.json" in entries:
                self.caches.append(folder)
            return []
        if "index.html" in entries and "report.json" in entries:
            self.reports.append(folder)
            return []
        below = [name for name, is_folder in entries.items() if is_folder and not name.startswith(".")]
        work = self._work(folder, below)
        if work is not None:
            self.works.append(work)
            below = [name for name in below if name not in _OF_WORK and not _RUN.fullmatch(name)]
        return sorted(below)

    def _work(self, folder: Path, below: list[str]) -> Work | None:
        if any(_RUN.fullmatch(name) and (folder / name / "run.json").is_file() for name in below):
            return Work(folder, folder)
        is_work = (
            ("runs" in below and _has(folder / "runs", r"[0-9a-f]{16}(\.diverged\.json)?"))
            or ("rows" in below and _has(folder / "rows", r"[0-9a-f]{16}\.jsonl"))
            or ("claims" in below and _has(folder / "claims", r"lock|[0-9a-f]{16}\.json"))
            or ("progress" in below and _has(folder / "progress", r"[0-9a-f]{16}\.json"))
        )
        return Work(folder, folder / "runs") if is_work else None


def find_places(root: Path) -> Places:
    """Find what lies below a folder. Links that lead out of it, and folders that cannot be read, are passed over."""
    walk = _Walk(root)
    inside = os.path.realpath(root)
    waiting = deque([(root, 0)])
    seen: set[str] = set()
    while waiting:
        folder, depth = waiting.popleft()
        real = os.path.realpath(folder)
        if real in seen or not is_inside(real, inside):
            continue
        seen.add(real)
        if len(seen) > MOST_FOLDERS:
            walk.notes.append(
                f"Only the first {MOST_FOLDERS:,} folders are looked at. Name a folder with fewer to see the others."
            )
            break
        entries = _entries(folder)
        if len(entries) > MOST_ENTRIES:
            walk.notes.append(
                f"{folder.relative_to(root)} has more than {MOST_ENTRIES:,} entries; only these are looked at."
            )
        below = walk.visit(folder, entries)
        if depth < DEEPEST:
            waiting.extend((folder / name, depth + 1) for name in below)
    return Places(tuple(walk.works), tuple(walk.caches), tuple(walk.reports), tuple(walk.notes))


def is_inside(path: str, folder: str) -> bool:
    """Return whether a path without links is a folder, or lies below it."""
    return os.path.commonpath([path, folder]) == folder


def _entries(folder: Path) -> dict[str, bool]:
    """Return the names in a folder, and whether each is a folder; none if it is gone."""
    found: dict[str, bool] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found[entry.name] = entry.is_dir()
                if len(found) > MOST_ENTRIES:
                    break
    except OSError:
        pass
    return found


def _has(folder: Path, pattern: str) -> bool:
    """Return whether a folder has an entry with such a name."""
    try:
        with os.scandir(folder) as entries:
            return any(re.fullmatch(pattern, entry.name) for entry in entries)
    except OSError:
        return False
