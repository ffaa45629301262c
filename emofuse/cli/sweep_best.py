"""`emofuse sweep best`: the search for the best model of a cache that comes with emofuse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from emofuse.cli.options import (
    RUNS,
    CachePath,
    DeviceOfHeads,
    Images,
    Labels,
    Numbers,
    PlanAlone,
    Plugins,
    TrainingMemory,
    TrainingScheduler,
    Votes,
    WeightColumn,
    load_given_plugins,
    parse_names,
    target_of_columns,
)
from emofuse.cli.progress import show_progress
from emofuse.cli.tracking import LogTo, log_to_given, open_given_trackers


def sweep_best(
    cache: CachePath,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Time for the search and the recommended model on this machine.")
    ] = 10.0,
    score: Annotated[
        Literal["accuracy", "macro_f1", "loss", "ccc", "map"] | None,
        typer.Option(
            help="Score that compares candidates, on rows that a head did not learn from.",
            show_default="accuracy, ccc of numbers, map of several labels",
        ),
    ] = None,
    numbers: Numbers = "",
    votes: Votes = "",
    labels: Labels = "",
    weight_column: WeightColumn = "",
    streams: Annotated[
        str, typer.Option(help="Streams that may be used, with commas: lbp,resnet50.", show_default="all of the cache")
    ] = "",
    split: Annotated[
        Literal["official", "stratified", "holdout"],
        typer.Option(help="The split whose test rows are scored once, at the end: as for `emofuse train`."),
    ] = "official",
    split_seed: Annotated[
        int | None, typer.Option(help="Seed of --split stratified or holdout.", show_default="0")
    ] = None,
    test_folds: Annotated[
        int,
        typer.Option(
            min=0,
            help="Repeat the search inside this number of outer folds, for an estimate on all rows; the searches share "
            "the minutes.",
            show_default="none",
        ),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of rows, the recommended run and the report.", show_default="emofuse-runs/best-CACHE"
        ),
    ] = None,
    device: DeviceOfHeads = "auto",
    memory_gb: TrainingMemory = None,
    dry_run: PlanAlone = False,
    scheduler: TrainingScheduler = None,
    images: Images = True,
    log_to: LogTo = None,
    plugin: Plugins = None,
) -> None:
    """Find the best model of a cache within some minutes, and save it.

    Kernels on all subsets of the streams come first, then other exact heads and networks on the best subsets. Each
    candidate is trained in five folds of the training and validation rows and scored on the rows that its heads did
    not learn from. The recommended run is the mean of the five heads of the best candidate; the test rows are scored
    once, for this run. An interrupted search continues where it stopped.
    """
    if split_seed is not None and split == "official":
        raise typer.BadParameter(
            "the official split has no seed; add --split stratified or --split holdout",
            param_hint="--split-seed",
        )
    if test_folds == 1:
        raise typer.BadParameter("one fold would hold all rows; give 2 or more", param_hint="--test-folds")
    load_given_plugins(plugin)

    from emofuse.cache.reader import open_cache
    from emofuse.results import ResultPaths, check_results_folder, list_runs
    from emofuse.specs import RunSpec, parse_spec
    from emofuse.sweep.best import BestOptions, plan_best, run_best
    from emofuse.sweep.options import SweepOptions

    names = parse_names(streams)
    asked = {"kind": split} | ({} if split_seed is None else {"seed": split_seed})
    plain = {"name": "best", "features": {"streams": names or ["-"]}, "split": asked}
    spec = parse_spec(RunSpec, plain | target_of_columns(numbers, votes, labels), "sweep best")
    options = BestOptions(
        minutes=minutes,
        score=score,
        split=spec.split,
        streams=tuple(names),
        target=spec.target,
        weight_column=weight_column or None,
        test_folds=test_folds,
    )
    memory_bytes = None if memory_gb is None else int(memory_gb * 1e9)
    machine = SweepOptions(device=device, memory_bytes=memory_bytes, scheduler=scheduler, images=images)
    folder = out or RUNS / f"best-{cache.stem}"
    if dry_run:
        with show_progress():
            plan = plan_best(open_cache(cache), options, folder, machine)
        typer.echo(plan)
        return
    check_results_folder(folder)
    trackers = open_given_trackers(log_to, folder)
    with show_progress() as progress:
        found = run_best(open_cache(cache), options, folder, machine, say=typer.echo, progress=progress)
    typer.echo("\n" + "\n".join(found.sentences))
    if trackers:
        log_to_given(trackers, list_runs(ResultPaths(folder).runs), folder)
