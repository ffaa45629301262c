"""`emofuse train`: trains one configuration on a cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emofuse.cli.options import (
    Labels,
    Numbers,
    Plugins,
    Votes,
    WeightColumn,
    load_given_plugins,
    parse_names,
    target_of_columns,
)
from emofuse.cli.progress import show_progress
from emofuse.cli.tracking import LogTo, open_given_trackers

if TYPE_CHECKING:
    from emofuse.results import RunRecord


def train(
    cache: Annotated[Path, typer.Option(help="Path of the feature cache.")],
    streams: Annotated[str, typer.Option(help="Streams of the cache to fuse, with commas: lbp,resnet50.")],
    lbp_bins: Annotated[
        int | None, typer.Option(help="Number of LBP bins that the head sees.", show_default="256")
    ] = None,
    action_units: Annotated[
        int | None, typer.Option(help="Number of action units that the head sees.", show_default="25")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Number of hidden layers of the head.", show_default="2")] = None,
    width: Annotated[int | None, typer.Option(help="Width of a hidden layer.", show_default="512")] = None,
    epochs: Annotated[int | None, typer.Option(help="Largest number of epochs.", show_default="100")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Number of epochs without a better one that end the training.", show_default="never"),
    ] = None,
    select: Annotated[
        Literal["loss", "macro_f1", "accuracy", "ccc", "map"] | None,
        typer.Option(help="Validation score that chooses the epoch whose weights are kept.", show_default="loss"),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Number of rows in a step.", show_default="64")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of Adam.", show_default="0.0001")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and dropout.", show_default="0")] = None,
    split: Annotated[
        Literal["official", "stratified", "holdout"],
        typer.Option(
            help="official: the split of the dataset; stratified: 70/20/10 of every label; holdout: the test rows of "
            "the dataset, and a tenth of the others for validation."
        ),
    ] = "official",
    split_seed: Annotated[
        int | None, typer.Option(help="Seed of --split stratified or holdout.", show_default="0")
    ] = None,
    numbers: Numbers = "",
    votes: Votes = "",
    labels: Labels = "",
    weight_column: WeightColumn = "",
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    name: Annotated[
        str | None, typer.Option(help="Name of the configuration in tables.", show_default="streams joined by +")
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the head: auto, cpu, cuda or cuda:N.")] = "auto",
    memory_gb: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="Memory for training. Features that do not fit are streamed from the cache.",
            show_default="a share of the memory of the device",
        ),
    ] = None,
    log_to: LogTo = None,
    plugin: Plugins = None,
) -> None:
    """Train one head on cached streams and print its scores. A run that exists is read and not trained again.

    The defaults are those of the paper, except --select: the paper takes macro_f1. A pipeline file has all other
    options of a run; see `emofuse run`.
    """
    if split_seed is not None and split == "official":
        raise typer.BadParameter(
            "the official split has no seed; add --split stratified or --split holdout",
            param_hint="--split-seed",
        )
    names = parse_names(streams)
    asked = {
        "name": name or "+".join(names),
        "features": _given(streams=names, lbp_bins=lbp_bins, action_units=action_units),
        "head": _given(depth=depth, width=width),
        "train": _given(
            epochs=epochs,
            patience=patience,
            select=select,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
        ),
        "split": _given(kind=split, seed=split_seed),
        **target_of_columns(numbers, votes, labels),
        **_given(weight_column=weight_column or None),
    }
    load_given_plugins(plugin)

    from emofuse.specs import RunSpec, parse_spec

    spec = parse_spec(RunSpec, asked, "emofuse train")

    from emofuse.cache.reader import open_cache
    from emofuse.results import run_dir
    from emofuse.tracking.log import log_results, place_of_runs
    from emofuse.training.runs import train_run

    place = place_of_runs(runs)
    trackers = open_given_trackers(log_to, place.out)
    memory_bytes = None if memory_gb is None else int(memory_gb * 1e9)
    with show_progress():
        record, trained_now = train_run(open_cache(cache), spec, runs, device=device, memory_bytes=memory_bytes)
    typer.echo(_describe(record, trained_now))
    typer.echo(run_dir(runs, record.digest))
    log_results(trackers, [record], place, with_report=False, say=typer.echo)


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given; the spec has defaults for the others."""
    return {key: value for key, value in options.items() if value is not None}


def _describe(record: RunRecord, trained_now: bool) -> str:
    from emofuse.report.configurations import find_metric
    from emofuse.report.formats import format_score
    from emofuse.report.targets import reported_target
    from emofuse.specs import is_random

    scores = reported_target(record.target_kind).leading
    how = f"trained in {record.seconds:.1f} s" if trained_now else "already trained"
    random = [name for name, stream in record.streams.items() if is_random(stream["weights"])]
    lines = [
        f"{record.name}: {how}",
        *([f"mean of {len(record.heads)} heads; epochs and losses are means over them"] if record.heads else []),
        f"best epoch {record.best_epoch} of {len(record.history)}, {record.parameters:,} parameters",
        *record.notes,
        *([f"RANDOM WEIGHTS in {', '.join(random)}: a demonstration, not a finding."] if random else []),
        f"{'split':<6} {'rows':>7}  " + "  ".join(score.name for score in scores),
    ]
    for split in ("val", "test"):
        values = [format_score(find_metric(record, score.path, split), score.decimals) for score in scores]
        shown = "  ".join(f"{value:>{len(score.name)}}" for value, score in zip(values, scores, strict=True))
        lines.append(f"{split:<6} {record.rows[split]['rows']:>7}  {shown}")
    return "\n".join(lines)
