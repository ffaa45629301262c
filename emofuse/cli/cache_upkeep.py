"""`emofuse cache problems`, `verify`, `repair`, `retry`: rows without features, damaged blocks, and their remedies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emofuse.cli.options import CachePath, Device, Plugins, Runtime, Scheduler, Workers, load_given_plugins, parse_names
from emofuse.cli.progress import show_progress
from emofuse.progress import step
from emofuse.stores import as_path

if TYPE_CHECKING:
    import polars as pl

    from emofuse.status import Status

_LISTED = 50

Data = Annotated[Path | None, typer.Option(help="Root of the dataset.", show_default="the root of the last build")]


def problems(
    path: CachePath,
    stream: Annotated[list[str] | None, typer.Option(help="List only this stream; repeat for several.")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="List only these statuses, with commas: no_detection, unreadable, failed.", show_default="all three"
        ),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write all rows to this .csv file instead.")] = None,
) -> None:
    """List rows without features and the reasons: first the counts of each kind, then the rows."""
    from emofuse.cache.reader import open_cache
    from emofuse.upkeep.problems import list_problems

    cache = open_cache(path)
    rows = list_problems(cache, stream or (), parse_statuses(status))
    if export is not None:
        rows.write_csv(export)
        typer.echo(f"{export}: {rows.height} rows")
        return
    _print_problems(rows)
    for each in cache.streams.values():
        lacking = len(each.lacking_blocks(each.views))
        if lacking:
            typer.echo(f"{each.name} lacks {lacking} of {cache.layout.blocks} blocks, whose rows are not listed")


def verify(
    path: CachePath,
    sample: Annotated[int, typer.Option(min=0, help="Number of rows to extract again and compare.")] = 0,
    data: Data = None,
    device: Device = "auto",
    runtime: Runtime = "auto",
    plugin: Plugins = None,
) -> None:
    """Read every byte of a cache and list damaged parts. Exit with status 1 if there are any.

    With --sample, rows drawn at random are also extracted again and compared with the cache.
    """
    load_given_plugins(plugin)

    from emofuse.upkeep.verify import verify_cache

    path = as_path(path)
    with show_progress(), step("checking", unit="blocks") as on_block:
        result = verify_cache(path, on_block)
    for fault in result.faults:
        typer.echo(str(fault))
    for name, blocks in result.lacking.items():
        typer.echo(f"{name}: {blocks} blocks not computed yet")
    if result.faults:
        count = f"{len(result.faults)} fault{'s' * (len(result.faults) > 1)}"
        typer.echo(f"{path}: {count}. Repair with: emofuse cache repair {path}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{path}: {result.blocks} blocks read, nothing is damaged")
    if sample:
        _verify_sample(path, sample, data, device, runtime)


def _verify_sample(path: Path, sample: int, data: Path | None, device: str, runtime: Runtime) -> None:
    from emofuse.upkeep import compare_sample

    with show_progress(), step("extracting rows again"):
        comparison = compare_sample(path, sample, data=data, device=device, runtime=runtime)
    for difference in comparison.differences:
        typer.echo(str(difference))
    for name, largest in comparison.largest.items():
        typer.echo(f"{name}: extracted again, {largest:.2g} of a row's length apart at most")
    if comparison.differences:
        typer.echo(f"{path}: {len(comparison.differences)} differences in {comparison.rows} rows", err=True)
        raise typer.Exit(1)
    typer.echo(f"{path}: {comparison.rows} rows extracted again, all as cached")


def repair(
    path: CachePath,
    data: Data = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    device: Device = "auto",
    runtime: Runtime = "auto",
    plugin: Plugins = None,
) -> None:
    """Compute the damaged blocks again, and no others."""
    load_given_plugins(plugin)

    from emofuse.extraction import BuildOptions
    from emofuse.upkeep import repair_cache

    with show_progress() as progress:
        summary = repair_cache(path, BuildOptions(scheduler, workers, device, runtime=runtime), progress, data=data)
    for name in summary.metadata:
        typer.echo(f"{name} written anew")
    typer.echo(f"{path}: {summary.blocks} blocks computed again" if summary.blocks else f"{path}: no damaged blocks")


def retry(
    path: CachePath,
    status: Annotated[
        str, typer.Option(help="Statuses of the rows to try, with commas: failed, unreadable, no_detection.")
    ] = ("failed,unreadable"),
    data: Data = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    device: Device = "auto",
    runtime: Runtime = "auto",
    plugin: Plugins = None,
) -> None:
    """Extract rows without features again, after files were replaced or with more memory."""
    load_given_plugins(plugin)

    from emofuse.extraction import BuildOptions
    from emofuse.upkeep import retry_rows

    statuses = parse_statuses(status)
    with show_progress() as progress:
        summary = retry_rows(
            path, statuses, BuildOptions(scheduler, workers, device, runtime=runtime), progress, data=data
        )
    for name, counts in summary.counts.items():
        typer.echo(f"{name}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    each = " (a row counts once for each stream)" if len(summary.counts) > 1 else ""
    typer.echo(f"{path}: {summary.rows} rows tried again{each}, {summary.written} blocks written")


def parse_statuses(text: str | None) -> tuple[Status, ...]:
    """Return the statuses named with commas, except ok and pending; all of them for None.

    Raises:
        typer.BadParameter: a status is unknown.
    """
    from emofuse.upkeep.problems import PROBLEM_STATUSES

    known = {status.name.lower(): status for status in PROBLEM_STATUSES}
    if text is None:
        return PROBLEM_STATUSES
    names = parse_names(text)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise typer.BadParameter(f"{text!r}: expected some of {', '.join(known)}", param_hint="--status")
    return tuple(known[name] for name in names)


def _print_problems(problems: pl.DataFrame) -> None:
    """Print counts by status and reason, then one line for each row and all streams that share its reason."""
    import polars as pl

    if not problems.height:
        typer.echo("There are no such rows.")
        return
    kinds = problems.group_by("stream", "status", "reason", maintain_order=True).len()
    for kind in (
        kinds.sort("stream", "status", "len", descending=[False, False, True]).head(_LISTED).iter_rows(named=True)
    ):
        typer.echo(f"{kind['len']:8} {kind['stream']} {kind['status']}: {kind['reason'] or 'no reason kept'}")
    rows = problems.group_by("row", "sample_id", "view", "status", "reason", maintain_order=True).agg(
        pl.col("stream").str.join(", ")
    )
    typer.echo("")
    for row in rows.head(_LISTED).iter_rows(named=True):
        view = f" view {row['view']}" if row["view"] else ""
        typer.echo(f"row {row['row']}{view}, {row['sample_id']} ({row['stream']}): {row['status']}, {row['reason']}")
    if rows.height > _LISTED:
        typer.echo(f"and {rows.height - _LISTED} more; write all with --export problems.csv")
