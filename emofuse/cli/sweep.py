"""`emofuse sweep`: one question asked of a cache, hundreds of heads, one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from emofuse.cli.options import (
    RUNS,
    DeviceOfHeads,
    FollowLinks,
    ImagesOfSpec,
    OnBadRows,
    PlanAlone,
    Runtime,
    TrainingMemory,
    TrainingScheduler,
)
from emofuse.cli.progress import show_progress
from emofuse.cli.tracking import LogTo, log_to_given, open_given_trackers

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache
    from emofuse.extraction import BuildOptions
    from emofuse.specs import PipelineSpec, SweepSpec


def sweep(
    name: Annotated[str, typer.Argument(help="Name of a sweep that comes with emofuse, or a YAML file.")],
    cache: Annotated[
        Path | None, typer.Option(help="Path of a feature cache.", show_default="the cache of the sweep's pipeline")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Root of the pipeline's dataset, if its cache must be built.")
    ] = None,
    follow_links: FollowLinks = False,
    on_bad_rows: OnBadRows = "raise",
    out: Annotated[
        Path | None, typer.Option(help="Folder of rows, final runs and report.", show_default="emofuse-runs/NAME")
    ] = None,
    device: DeviceOfHeads = "auto",
    runtime: Runtime = "auto",
    memory_gb: TrainingMemory = None,
    dry_run: PlanAlone = False,
    scheduler: TrainingScheduler = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Number of processes that build the cache.", show_default="one for each core"),
    ] = None,
    images: ImagesOfSpec = None,
    log_to: LogTo = None,
) -> None:
    """Search on validation rows, choose, score the choice on the test rows once, and write a report.

    Finished work is skipped, so an interrupted sweep continues. Several processes may share a folder. A sweep with
    `test: {folds: 5}` repeats the whole search inside outer folds, so that every row is tested. `emofuse sweep best
    CACHE` needs no file: see its --help.
    """
    of_dataset = {"--data": data is not None, "--follow-links": follow_links, "--on-bad-rows": on_bad_rows == "keep"}
    for option, is_given in of_dataset.items():
        if cache is not None and is_given:
            raise typer.BadParameter(f"a cache needs no dataset: give --cache or {option}", param_hint=option)
    from emofuse.specs import read_sweep_spec

    spec = read_sweep_spec(name)
    folder = out or RUNS / spec.name

    from emofuse.sweep.nested import run_nested
    from emofuse.sweep.options import SweepOptions
    from emofuse.sweep.plan import plan_sweep
    from emofuse.sweep.run import run_sweep

    if images is None and cache is None and not _pipeline_of(spec).report.images:
        images = False  # the pipeline says so of its dataset
    memory_bytes = None if memory_gb is None else int(memory_gb * 1e9)
    options = SweepOptions(device=device, memory_bytes=memory_bytes, scheduler=scheduler, images=images)
    if dry_run:
        with show_progress():
            plan = plan_sweep(_open_built(spec, cache), spec, folder, options)
        typer.echo(plan)
        return

    from emofuse.cache.reader import open_cache
    from emofuse.extraction import BuildOptions
    from emofuse.machine.devices import resolve_device
    from emofuse.results import check_results_folder

    check_results_folder(folder)  # before the cache is built, which may take hours
    if scheduler is None:
        resolve_device(device)
    trackers = open_given_trackers(log_to, folder)
    if cache is None:
        build = BuildOptions(scheduler=scheduler, workers=workers, device=device, runtime=runtime)
        features = _build(spec, data, build, follow_links=follow_links, on_bad_rows=on_bad_rows)
    else:
        features = open_cache(cache)
    with show_progress() as progress:
        if spec.test is not None:
            nested = run_nested(features, spec, folder, options, say=typer.echo, progress=progress)
            table = nested.report.summary_markdown.read_text(encoding="utf-8")
            records = [*nested.records, *nested.references]
        else:
            summary = run_sweep(features, spec, folder, options, say=typer.echo, progress=progress)
            table, records = summary.table, [*summary.finals.records, *summary.references]
    typer.echo(f"\n{table}")
    log_to_given(trackers, records, folder, spec.title or spec.name)


def _build(
    spec: SweepSpec,
    data: Path | None,
    build: BuildOptions,
    *,
    follow_links: bool,
    on_bad_rows: Literal["raise", "keep"],
) -> Cache:
    """Build the cache of the sweep's pipeline as far as it is missing, and return it."""
    from emofuse.datasets.split_needs import needs_of_sweep
    from emofuse.pipeline import PipelineOptions, prepare_cache

    pipeline = _pipeline_of(spec)
    options = PipelineOptions(
        out=RUNS / pipeline.name,
        data=data,
        follow_links=follow_links,
        on_bad_rows=on_bad_rows,
        build=build,
        device=build.device,
    )
    with show_progress() as progress:
        built, _ = prepare_cache(pipeline, options, needs_of_sweep(spec), say=typer.echo, progress=progress)
    return built


def _open_built(spec: SweepSpec, cache: Path | None) -> Cache:
    """Return the same cache as it is, without building."""
    from emofuse.cache.reader import open_cache
    from emofuse.errors import CacheError

    if cache is None:
        from emofuse.results import ResultPaths

        cache = ResultPaths(RUNS / _pipeline_of(spec).name).cache
        if not cache.exists():
            raise CacheError(
                f"{cache}: a plan needs the cache, which does not exist yet. Name another with --cache, or build it: "
                f"emofuse run {spec.pipeline}"
            )
    return open_cache(cache)


def _pipeline_of(spec: SweepSpec) -> PipelineSpec:
    from emofuse.errors import SpecError
    from emofuse.specs import read_pipeline_spec

    if spec.pipeline is None:
        raise SpecError(f"sweep {spec.name!r}", ["it names no pipeline with a cache; name a cache with --cache"])
    return read_pipeline_spec(spec.pipeline)
