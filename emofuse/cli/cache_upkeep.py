"""`emofuse cache problems` and `verify`: what has no features and why, what is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emofuse.stores import as_path

if TYPE_CHECKING:
    import polars as pl

    from emofuse.status import Status

_LISTED = 50


def problems(
    path: Annotated[Path, typer.Argument(help="Path of the cache.")],
    stream: Annotated[list[str] | None, typer.Option(help="Only this stream; may be repeated.")] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Only these, with commas: no_detection, unreadable, failed.", show_default="all three"),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write all of them to a .csv file instead.")] = None,
) -> None:
    """List rows without features and why: how many of each kind, then the rows."""
    from emofuse.cache.problems import list_problems
    from emofuse.cache.reader import open_cache

    cache = open_cache(path)
    found = list_problems(cache, stream or (), parse_statuses(status))
    if export is not None:
        found.write_csv(export)
        typer.echo(f"{export}: {found.height} rows")
        return
    _print_problems(found)
    for each in cache.streams.values():
        lacking = len(each.lacking_blocks(each.views))
        if lacking:
            typer.echo(f"{each.name} lacks {lacking} of {cache.layout.blocks} blocks, whose rows are not listed")


def verify(path: Annotated[Path, typer.Argument(help="Path of the cache.")]) -> None:
    """Read every byte of a cache and list what is damaged. Exit status 1 if anything is."""
    from emofuse.cache.verify import verify_cache

    path = as_path(path)
    found = verify_cache(path)
    for fault in found.faults:
        typer.echo(str(fault))
    for name, blocks in found.lacking.items():
        typer.echo(f"{name}: {blocks} blocks not computed yet")
    if found.faults:
        typer.echo(f"{path}: {len(found.faults)} faults. Mend them with: emofuse cache repair {path}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{path}: {found.blocks} blocks read, nothing is damaged")


def parse_statuses(text: str | None) -> tuple[Status, ...]:
    """Statuses other than ok and pending, named with commas; all of them for None.

    Raises:
        typer.BadParameter: an unknown one.
    """
    from emofuse.cache.problems import PROBLEM_STATUSES

    known = {status.name.lower(): status for status in PROBLEM_STATUSES}
    if text is None:
        return PROBLEM_STATUSES
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise typer.BadParameter(f"{text!r}: expected some of {', '.join(known)}", param_hint="--status")
    return tuple(known[name] for name in names)


def _print_problems(found: pl.DataFrame) -> None:
    """Counts by status and reason, then one line a row for all streams that share its reason."""
    import polars as pl

    if not found.height:
        typer.echo("no such rows")
        return
    kinds = found.group_by("stream", "status", "reason", maintain_order=True).len()
    for kind in (
        kinds.sort("stream", "status", "len", descending=[False, False, True]).head(_LISTED).iter_rows(named=True)
    ):
        typer.echo(f"{kind['len']:8} {kind['stream']} {kind['status']}: {kind['reason'] or 'no reason kept'}")
    rows = found.group_by("row", "sample_id", "view", "status", "reason", maintain_order=True).agg(
        pl.col("stream").str.join(", ")
    )
    typer.echo("")
    for row in rows.head(_LISTED).iter_rows(named=True):
        view = f" view {row['view']}" if row["view"] else ""
        typer.echo(f"row {row['row']}{view}, {row['sample_id']} ({row['stream']}): {row['status']}, {row['reason']}")
    if rows.height > _LISTED:
        typer.echo(f"and {rows.height - _LISTED} more; all of them: --export problems.csv")
