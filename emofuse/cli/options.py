"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

RUNS = Path("emofuse-runs")
"""The folder that holds a folder for each pipeline and sweep, by default."""

Target = Annotated[
    str, typer.Argument(help="A kind of dataset (folder, csv, fer2013, ...) or a pipeline: its name or YAML file.")
]
Pipeline = Annotated[str, typer.Argument(help="Name of a pipeline that comes with emofuse, or a YAML file.")]
CachePath = Annotated[Path, typer.Argument(help="Path of the cache.")]
Data = Annotated[Path | None, typer.Option(help="Root of the dataset; overrides that of the pipeline.")]
Split = Annotated[
    Literal["official", "stratified", "holdout"] | None,
    typer.Option(
        help="official: the split of the dataset; stratified: 70/20/10 of every label; holdout: the test rows of the "
        "dataset, and a tenth of the others for validation.",
        show_default="that of the pipeline, or official",
    ),
]
FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links",
        help="Follow all links that lead out of the root of the dataset. Without it, only links to the content of a "
        "Hugging Face hub snapshot (blobs), git-annex or DVC are followed.",
    ),
]
OnBadRows = Annotated[
    Literal["raise", "keep"], typer.Option(help="Stop with a list of bad rows, or keep them as marked rows.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a running Dask scheduler, tcp://...; without it, this machine works alone."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0, help="Number of extraction processes; 0 extracts in this process.", show_default="one for each core"
    ),
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device of the backbones.")]
Runtime = Annotated[
    Literal["auto", "torch", "openvino"],
    typer.Option(help="Runtime of the backbones; auto is openvino on a CPU where it is installed (extra fast)."),
]
DeviceOfHeads = Annotated[str, typer.Option(help="Device of the heads: auto, cpu, cuda or cuda:N.")]
TrainingMemory = Annotated[
    float | None,
    typer.Option(min=0.01, help="Memory for training.", show_default="a share of the memory of the device"),
]
_IMAGES = "Show thumbnails of samples on the page, at most 160 pixels large."
Images = Annotated[bool, typer.Option("--images/--no-images", help=_IMAGES)]
ImagesOfSpec = Annotated[
    bool | None,
    typer.Option("--images/--no-images", help=_IMAGES, show_default="images, or what `report` of the YAML file says"),
]
PlanAlone = Annotated[bool, typer.Option("--dry-run", help="Print the plan; train nothing.")]
TrainingScheduler = Annotated[
    str | None, typer.Option(help="Address of a running Dask scheduler, tcp://..., whose workers train.")
]


Model = Annotated[
    Path,
    typer.Option(
        "--run",
        help="Folder of a saved run (OUT/runs/DIGEST), or of a pipeline or sweep: its best run on validation rows.",
    ),
]
Ensemble = Annotated[
    bool,
    typer.Option("--ensemble", help="Average the outputs of all runs of the configuration: its seeds or folds."),
]

Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file with further kinds, whose code is run; repeat for several."),
]


def load_given_plugins(paths: list[Path] | None) -> None:
    """Load the plugin files of a command line, which runs their code.

    Raises:
        PluginError: a file is missing or faulty.
    """
    if paths:
        from emofuse.specs import load_plugins

        load_plugins(paths)


def parse_names(text: str) -> list[str]:
    """Return the names in a text such as `lbp, resnet50`."""
    return [name.strip() for name in text.split(",") if name.strip()]


Numbers = Annotated[
    str, typer.Option(help="Columns of numbers to learn, with commas: valence,arousal.", show_default="the label")
]
Votes = Annotated[
    str, typer.Option(help="Columns of votes or probabilities to learn, one a class.", show_default="the label")
]
Labels = Annotated[str, typer.Option(help="Columns of several labels to learn, each 0 or 1.", show_default="the label")]

WeightColumn = Annotated[
    str, typer.Option(help="Column of the weights of rows in training.", show_default="equal weights")
]


def target_of_columns(numbers: str, votes: str, labels: str) -> dict[str, Any]:
    """Return `{"target": ...}` of the columns that were given, as in a pipeline file; nothing for the label.

    Raises:
        BadParameter: columns of several kinds of targets.
    """
    asked = {"regression": numbers, "distribution": votes, "multilabel": labels}
    given = {kind: parse_names(columns) for kind, columns in asked.items() if columns}
    if len(given) > 1:
        raise typer.BadParameter("give one of them: there is one target", param_hint="--numbers, --votes, --labels")
    return next(({"target": {"kind": kind, "columns": columns}} for kind, columns in given.items()), {})
