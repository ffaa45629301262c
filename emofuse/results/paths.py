"""The names and places of results in a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from emofuse.errors import ResultsError

CACHE_NAME = "features.zarr"
RECORD_FILE = "run.json"
_RUNS = "runs"
_LISTED = 10


@dataclass(frozen=True)
class ResultPaths:
    """The paths of the results of a pipeline, of a sweep or of a test on other data, all below `out`.

    Which of them exist depends on the command: only a test writes `predictions`, only a sweep `choice`.
    """

    out: Path

    @property
    def generated_dataset(self) -> Path:
        """The dataset of a pipeline that generates its own."""
        return self.out / "dataset"

    @property
    def cache(self) -> Path:
        """The feature cache."""
        return self.out / CACHE_NAME

    @property
    def runs(self) -> Path:
        """The folder of the runs, one folder each."""
        return self.out / _RUNS

    @property
    def choice(self) -> Path:
        """The Markdown file with the finalists of a sweep and their scores."""
        return self.out / "choice.md"

    @property
    def predictions(self) -> Path:
        """The table of all rows of a test."""
        return self.out / "predictions.csv"

    @property
    def report(self) -> Path:
        """The folder of tables, figures and the page."""
        return self.out / "report"

    @property
    def analysis(self) -> Path:
        """The folder of an analysis."""
        return self.out / "analysis"


def runs_of_folder(folder: Path) -> Path:
    """Return the folder of runs that a folder means: its `runs` if it has one, or else itself.

    Raises:
        ResultsError: the folder has no runs, and folders below it have; the message names them.
    """
    runs = folder / _RUNS
    if runs.is_dir():
        return runs
    if not any(folder.glob(f"*/{RECORD_FILE}")) and (below := results_below(folder)):
        raise ResultsError(f"{folder}: no runs in this folder, but below it. Name one of them: {below}")
    return folder


def results_below(folder: Path) -> str:
    """Return the folders of pipelines and sweeps right below a folder, for messages; an empty text without any."""
    paths = sorted({path.parents[2] for path in folder.glob(f"*/{_RUNS}/*/{RECORD_FILE}")})
    more = f", and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(map(str, paths[:_LISTED])) + more


def folder_of_runs(runs: Path) -> Path:
    """Return the folder of results that a folder of runs belongs to: the one above `runs`, or the folder itself."""
    return runs.parent if runs.name == _RUNS else runs


def run_dir(runs: Path, digest: str) -> Path:
    """Return the folder of the run with this digest."""
    return runs / digest[:16]


def check_results_folder(path: Path) -> None:
    """Check that results can be written to this folder, or that it can be made. Nothing is written.

    Raises:
        ResultsError: a file is in its place or in that of a folder above it, or this process may not write there.
    """
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise ResultsError(
            f"{path}: results cannot be written there, {there} is a file. Name another folder with --out"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ResultsError(f"{path}: results cannot be written there, {there} is read-only. Name another with --out")
