"""`emofuse profile`: measures what the configurations of a pipeline cost to store, to run and to train."""

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
    images: Annotated[int, typer.Option(min=1, help="Number of images; larger batches repeat some.")] = 64,
    cache: Annotated[
        Path | None,
        typer.Option(help="Cache whose rows train heads.", show_default="the cache of `emofuse run`"),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=2, help="Number of synthetic training rows, instead of a cache.", show_default="2048 without a cache"
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="Number of labels of synthetic rows.", show_default="8")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Largest number of timed calls; 10 s end them earlier.")] = 100,
    device: Annotated[str, typer.Option(help="Device of networks and heads: auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Number of threads of native libraries.", show_default="the available cores"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for profile.json, profile.csv and profile.md.")] = None,
) -> None:
    """Measure parameters, size, FLOPs, latency, peak memory and seconds an epoch of every configuration.

    Extraction and head are measured apart, each configuration in fresh processes. Random weights replace those that are
    not on this machine, and the output names them; no measurement depends on their values.
    """
    if cache is not None and rows is not None:
        raise typer.BadParameter("heads train either on the rows of --cache or on synthetic ones", param_hint="--rows")
    from emofuse.specs import read_pipeline_spec

    spec = read_pipeline_spec(pipeline)
    if out is not None:
        _make_folder(out)

    from emofuse.profile import ProfileOptions, Repeats, profile_pipeline
    from emofuse.profile.tables import as_markdown, write_profile
    from emofuse.results import ResultPaths

    built = ResultPaths(RUNS / spec.name).cache
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
        result = profile_pipeline(spec, options, say=lambda line: typer.echo(line, err=True))
    typer.echo(as_markdown(result))
    for path in write_profile(result, out) if out else []:
        typer.echo(path, err=True)


def _make_folder(out: Path) -> None:
    """Make the folder before minutes of measuring, or raise."""
    from emofuse.errors import ProfileError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProfileError(f"{out}: cannot make this folder ({error.strerror}). Name another with --out") from None
