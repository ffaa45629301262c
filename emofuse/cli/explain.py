"""`emofuse explain`: what the streams of runs and caches are worth, for whom, and why."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from emofuse.cli.options import Plugins, load_given_plugins, parse_names
from emofuse.cli.progress import show_progress

if TYPE_CHECKING:
    from emofuse.analysis.samples import ExplainedSample


def explain(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|FOLDER|CACHE", help="Folder of a run, of a pipeline or sweep, or a cache."),
    ],
    cache: Annotated[
        Path | None, typer.Option(help="Cache of the runs.", show_default="features.zarr beside the runs")
    ] = None,
    configuration: Annotated[
        str | None,
        typer.Option(help="Configuration to look at.", show_default="the best by its validation score"),
    ] = None,
    parts: Annotated[str, typer.Option(help="Parts to make, with commas: worth,suppression.", show_default="all")] = "",
    streams: Annotated[
        str,
        typer.Option(
            help="Streams whose worth is measured, with commas.",
            show_default="of the configuration, or all of the cache",
        ),
    ] = "",
    rows: Annotated[
        Literal["test", "folds"] | None,
        typer.Option(
            help="Rows that measure the worth of streams: the test rows of the dataset, or every row in outer folds.",
            show_default="those that the runs tested",
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of outer folds.")] = 5,
    sample: Annotated[
        list[str] | None,
        typer.Option(help="Explain the answer to this sample instead; repeat for several.", show_default="none"),
    ] = None,
    image_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures, for --sample.", show_default="that of the cache's manifest"),
    ] = None,
    explained_class: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="Class, column or label to explain, for --sample.",
            show_default="the answer, or the first column",
        ),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Whether --sample draws the picture of the sample.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the analysis.", show_default="FOLDER/analysis, CACHE.analysis")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Shuffles of each kind.")] = 10,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
    umap: Annotated[
        bool, typer.Option("--umap", help="Draw maps of features by UMAP too (extra umap), not by t-SNE alone.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Say what each stream is worth, for which rows, and why; write tables, figures and one JSON file.

    An analysis describes results and may read test rows. It chooses nothing.
    """
    load_given_plugins(plugin)

    from emofuse.analysis.explain import ExplainOptions, explain
    from emofuse.report.tables import markdown

    options = ExplainOptions(
        parts=parse_names(parts),
        configuration=configuration,
        cache=cache,
        out=out,
        streams=parse_names(streams),
        rows=rows,
        folds=folds,
        draws=draws,
        seed=seed,
        resamples=resamples,
        umap=umap,
    )
    if sample:
        from emofuse.analysis.explain import explain_samples

        for each in explain_samples(
            source, options, sample, image_root=image_root, explained=explained_class, images=images
        ):
            typer.echo(_sample_text(each))
        return
    with show_progress():
        written, sections = explain(source, options, partial(typer.echo, err=True))
    for section in sections:
        typer.echo(f"## {section.title}\n")
        for sentence in section.sentences:
            typer.echo(f"- {sentence}")
        for table in section.tables:
            typer.echo(f"\n{table.caption}\n\n{markdown(table.table)}")
    typer.echo(written)


def _sample_text(each: ExplainedSample) -> str:
    """Return what is printed of a sample."""
    answers = ", ".join(f"{name} {value:.3f}" for name, value in list(each.outputs.items())[:3])
    lines = [f"{each.sample_id} (label {each.label or 'none'}): {answers}", f"  score of {each.explained}:"]
    lines += [f"    {value:+.3f} {stream}" for stream, value in sorted(each.streams.items(), key=lambda pair: -pair[1])]
    for stream, values in each.values.items():
        named = ", ".join(f"{name} {value:+.3f}" for name, value in values.items())
        lines.append(f"  {stream}: {named}")
    if each.missing:
        lines.append(f"  missing: {', '.join(each.missing)}")
    return "\n".join([*lines, *(f"  note: {note}" for note in each.notes), *map(str, each.files)])
