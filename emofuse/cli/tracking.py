"""The option `--log-to` of commands that train, and `emofuse results log`: saved runs for experiment trackers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emofuse.cli.progress import show_progress

if TYPE_CHECKING:
    from emofuse.results import RunRecord
    from emofuse.tracking.log import Tracker
    from emofuse.tracking.logged import Logged


class KnownTracker(StrEnum):
    """The trackers that a command line may name."""

    MLFLOW = "mlflow"
    WANDB = "wandb"
    TENSORBOARD = "tensorboard"


TrackerNames = list[KnownTracker]
LogTo = Annotated[
    TrackerNames | None,
    typer.Option(
        "--log-to",
        help="Log the runs to an experiment tracker once they are saved; repeat for several.",
        show_default="none",
    ),
]


def open_given_trackers(names: TrackerNames | None, out: Path) -> list[Tracker]:
    """Open the trackers of a command line, before any work, for the results in a folder.

    Raises:
        TrackingError: the package of a tracker is not installed, or its settings do not allow to log.
    """
    if not names:
        return []
    from emofuse.tracking import open_trackers

    return open_trackers(names, out)


def log_to_given(
    trackers: Sequence[Tracker],
    records: Sequence[RunRecord],
    out: Path,
    title: str = "",
    further: Sequence[Logged] = (),
) -> None:
    """Log the runs of a pipeline or sweep, and its report, to the trackers of a command line.

    Raises:
        TrackingError: a tracker has not taken all of them; they are saved all the same.
    """
    if not trackers:
        return
    from emofuse.tracking import find_results, log_results

    with show_progress():
        log_results(trackers, records, find_results(out), title=title, further=further, say=typer.echo)


def results_log(
    folder: Annotated[
        Path, typer.Argument(metavar="RUNS", help="Folder of a pipeline or sweep, or a folder of saved runs.")
    ],
    to: Annotated[TrackerNames, typer.Option("--to", help="The experiment tracker; repeat for several.")],
    searched: Annotated[
        bool, typer.Option("--searched", help="Log every run of the search of a sweep too, with validation scores.")
    ] = False,
) -> None:
    """Log saved runs and their report to an experiment tracker; those that it has already are passed over.

    MLflow logs to MLFLOW_TRACKING_URI, Weights & Biases to the project WANDB_PROJECT (offline with
    WANDB_MODE=offline), TensorBoard to the folder `tensorboard` beside the runs.
    """
    from emofuse.errors import ResultsError
    from emofuse.results import list_runs
    from emofuse.sweep.rows import ResultsFolder
    from emofuse.tracking import find_results, logged_searched_run

    place = find_results(folder)
    trackers = open_given_trackers(to, place.out)
    records = list_runs(place.runs)
    rows = ResultsFolder(place.out).rows() if searched else []
    if not records and not rows:
        raise ResultsError(f"{place.runs}: no saved runs in this folder; those of a sweep are in OUT/runs")
    log_to_given(trackers, records, folder, further=[logged_searched_run(asdict(row)) for row in rows])
