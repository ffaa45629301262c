"""`emofuse results`: rows of searched runs, listed, filtered, averaged and exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from emofuse.sweep.store import RunRow
    from emofuse.sweep.table import Condition, ResultsTable


def results(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a sweep.")],
    where: Annotated[
        list[str] | None,
        typer.Option(help="head=concat,fold=0 or val_macro_f1>=0.4 (= != > < >= <=); may be repeated, all must hold."),
    ] = None,
    by: Annotated[
        Literal["run", "configuration"],
        typer.Option(help="A row a run, or a row a configuration: mean and standard error over folds and seeds."),
    ] = "run",
    sort: Annotated[str, typer.Option(help="Column; scores from the best, all else ascending; -COLUMN turns it.")] = (
        "val_macro_f1"
    ),
    top: Annotated[
        int | None, typer.Option(min=0, help="At most so many rows; 0 is all.", show_default="20, all with --export")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Which, with commas; `all` is every one.", show_default="the scores")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write a .csv or .parquet file with all columns instead.")] = None,
) -> None:
    """Lists what a sweep has found on validation rows. Test rows are scored for what was chosen alone: its report."""
    from emofuse.sweep.table import SHOWN_CONFIGURATIONS, SHOWN_RUNS, parse_conditions

    table = _table(_read_rows(folder), parse_conditions(where or []), by).sorted_by(sort)
    count = len(table.rows)
    if top is None:
        top = 0 if export else 20
    if top:
        table = table.top(top)
    if columns is not None and columns != "all":
        table = table.select([name.strip() for name in columns.split(",")])
    elif columns is None and export is None:
        table = table.select(SHOWN_CONFIGURATIONS if by == "configuration" else SHOWN_RUNS)
    if export is not None:
        table.export(export)
        typer.echo(f"{export}: {len(table.rows)} rows, {len(table.columns)} columns")
        return
    typer.echo(table.text())
    typer.echo(f"{by}s: {count}" if len(table.rows) == count else f"{by}s: {len(table.rows)} of {count}")


def _read_rows(folder: Path) -> list[RunRow]:
    from emofuse.errors import ResultsError
    from emofuse.sweep.store import ResultsFolder

    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; make it with: emofuse sweep NAME")
    rows = ResultsFolder(folder).rows()
    if not rows:
        raise ResultsError(f"{folder}: no results in this folder; those of emofuse sweep NAME are in emofuse-runs/NAME")
    return rows


def _table(rows: list[RunRow], conditions: list[Condition], by: str) -> ResultsTable:
    from emofuse.sweep.table import ResultsTable

    if by == "run":
        return ResultsTable.of_runs(rows).where(conditions)
    # A condition on what a configuration has no column for (fold, ended) is one on the runs that it is the mean of.
    known = ResultsTable.of_configurations(rows).columns
    kept = ResultsTable.of_runs(rows).where([each for each in conditions if each.column not in known])
    digests = {row["digest"] for row in kept.rows}
    table = ResultsTable.of_configurations([row for row in rows if row.digest in digests])
    return table.where([each for each in conditions if each.column in known])
