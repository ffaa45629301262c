"""`emofuse run`: runs a whole pipeline."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from emofuse.cli.options import RUNS, Data, FollowLinks, ImagesOfSpec, OnBadRows, Pipeline, Runtime, Scheduler, Workers
from emofuse.cli.progress import show_progress
from emofuse.cli.tracking import LogTo, log_to_given, open_given_trackers


def run(
    pipeline: Pipeline,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of cache, runs and report.", show_default="emofuse-runs/NAME")
    ] = None,
    follow_links: FollowLinks = False,
    on_bad_rows: OnBadRows = "raise",
    scheduler: Scheduler = None,
    workers: Workers = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device of backbones and heads.")] = "auto",
    runtime: Runtime = "auto",
    images: ImagesOfSpec = None,
    log_to: LogTo = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is left to do, its time and size; write nothing.")
    ] = False,
) -> None:
    """Run a pipeline: dataset, cache, runs and report. Finished work is skipped, so an interrupted run continues."""
    from emofuse.specs import read_pipeline_spec

    spec = read_pipeline_spec(pipeline)

    from emofuse.extraction import BuildOptions
    from emofuse.extraction.ahead import template_ahead
    from emofuse.results import ResultPaths, check_results_folder

    out = out or RUNS / spec.name
    build = BuildOptions(scheduler=scheduler, workers=workers, device=device, runtime=runtime)
    if not dry_run:
        check_results_folder(out)
    trackers = [] if dry_run else open_given_trackers(log_to, out)
    # PyTorch is imported here for the training, and in the template for the extraction, at once.
    with nullcontext() if dry_run else template_ahead(ResultPaths(out).cache, spec.cache, build):
        from emofuse.pipeline import PipelineOptions, estimate_pipeline, run_pipeline

        options = PipelineOptions(
            out=out,
            data=data,
            follow_links=follow_links,
            on_bad_rows=on_bad_rows,
            build=build,
            device=device,
            images=images,
        )
        if dry_run:
            with show_progress():
                estimate_pipeline(spec, options, say=typer.echo)
            return
        with show_progress() as progress:
            summary = run_pipeline(spec, options, say=typer.echo, progress=progress)
    typer.echo(summary.report.summary_markdown.read_text(encoding="utf-8"))
    log_to_given(trackers, [*summary.records, *summary.references], out, spec.title or spec.name)
