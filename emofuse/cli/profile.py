"""`emofuse profile`: what the configurations of a pipeline cost to store, to run and to train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emofuse.cli.options import RUNS, Pipeline
from emofuse.cli.progress import show_progress


def profile(
    pipeline: Pipeline,
    data: Annotated[
        Path | None, typer.Option(help="Folder of images to measure on.", show_default="drawn as in the demo")
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="How many of them; a batch that needs more takes some again.")
    ] = 64,
    cache: Annotated[
        Path | None,
        typer.Option(help="Whose rows heads train on.", show_default="where `emofuse run` has the pipeline's"),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=2, help="Train on so many synthetic rows instead.", show_default="2048 without a cache"),
    ] = None,
    classes: Annotated[int | None, typer.Option(min=2, help="Labels of synthetic rows.", show_default="8")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Calls that are timed at most; 10 s end them earlier.")] = 100,
    device: Annotated[str, typer.Option(help="Of networks and heads: auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of native libraries.", show_default="the cores it may use")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write profile.json, profile.csv and profile.md there.")] = None,
) -> None:
    """Parameters, size, FLOPs, latency, peak memory and seconds an epoch of every configuration of a pipeline.

    Extraction and head apart, each configuration in processes of its own. Weights that are not on this machine are
    stood in for by random ones, which the output says: nothing that is measured depends on their values.
    """
    if cache is not None and rows is not None:
        raise typer.BadParameter("heads train on the rows of --cache or on synthetic ones", param_hint="--rows")
    from emofuse.specs import read_pipeline_spec

    spec = read_pipeline_spec(pipeline)
    if out is not None:
        _make_folder(out)

    from emofuse.pipeline import PipelinePaths
    from emofuse.profile import ProfileOptions, Repeats, profile_pipeline
    from emofuse.profile.tables import as_markdown, write_profile

    built = PipelinePaths(RUNS / spec.name).cache
    if cache is None and rows is None and built.exists():
        cache = built
    options = ProfileOptions(
        data=data,
        images=images,
        cache=cache,
        rows=rows or 2048,
        classes=classes,
        repeats=Repeats(most=repeats),
        device=device,
        threads=threads,
    )
    with show_progress():
        found = profile_pipeline(spec, options, say=lambda line: typer.echo(line, err=True))
    typer.echo(as_markdown(found))
    for path in write_profile(found, out) if out else []:
        typer.echo(path, err=True)


def _make_folder(out: Path) -> None:
    """Before minutes of measuring, not after."""
    from emofuse.errors import ProfileError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProfileError(f"{out}: no folder can be made here ({error.strerror}). Name another with --out") from None
