"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

RUNS = Path("emofuse-runs")
"""Below it every pipeline and sweep has a folder of its name, unless told otherwise."""

Target = Annotated[
    str, typer.Argument(help="A kind of dataset (emoset, folder, csv, demo) or a pipeline: its name or YAML file.")
]
Pipeline = Annotated[str, typer.Argument(help="Name of a pipeline that travels with emofuse, or a YAML file.")]
CachePath = Annotated[Path, typer.Argument(help="Path of the cache.")]
Data = Annotated[Path | None, typer.Option(help="Root of the dataset; overrides the pipeline's.")]
Split = Annotated[
    Literal["official", "stratified", "holdout"] | None,
    typer.Option(
        help="The dataset's own split; a stratified 70/20/10; or its own test rows, and a tenth of the others to "
        "validate on.",
        show_default="pipeline's, or official",
    ),
]
FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links",
        help="Follow all links of the dataset that lead out of its root: they are yours. Those to the content of a "
        "Hugging Face hub snapshot (blobs), git-annex or DVC are followed unasked.",
    ),
]
OnBadRows = Annotated[
    Literal["raise", "keep"], typer.Option(help="List bad rows in an error, or keep them as marked rows.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a running Dask scheduler, tcp://...; processes of this machine otherwise."),
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Extraction processes; 0 works in this one.", show_default="one a core")
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where backbones run.")]


Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file with kinds of your own. Its code runs; repeat for several."),
]


def load_given_plugins(paths: list[Path] | None) -> None:
    """Runs the plugin files of a command line.

    Raises:
        PluginError: one is missing or faulty.
    """
    if paths:
        from emofuse.specs import load_plugins

        load_plugins(paths)


def parse_names(text: str) -> list[str]:
    """Names with commas between them: `lbp, resnet50`."""
    return [name.strip() for name in text.split(",") if name.strip()]
