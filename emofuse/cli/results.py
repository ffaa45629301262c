"""`emofuse results`: lists, filters, averages and exports the runs of a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import polars as pl

    from emofuse.sweep.rows import RunRow
    from emofuse.sweep.table import Condition


def results(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a sweep.")],
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Conditions such as head=concat,fold=0 or val_macro_f1>=0.4 (= != > < >= <=); repeat for more."
        ),
    ] = None,
    by: Annotated[
        Literal["run", "configuration"],
        typer.Option(
            help="One row for each run, or mean and standard error over folds and seeds for each configuration."
        ),
    ] = "run",
    sort: Annotated[
        str | None,
        typer.Option(
            help="Column to sort by: scores with the best first, others ascending; -COLUMN reverses.",
            show_default="val_macro_f1, val_ccc of numbers, val_map of several labels",
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=0, help="Largest number of rows; 0 for all.", show_default="20, all with --export")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Names of columns, with commas; `all` for every column.", show_default="the scores"),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write a .csv or .parquet file with all columns instead.")] = None,
) -> None:
    """List the validation scores of a sweep. The report of the sweep has the test scores of what was chosen."""
    from emofuse.sweep.table import (
        SHOWN_CONFIGURATIONS,
        SHOWN_RUNS,
        export_table,
        format_table,
        main_score,
        parse_conditions,
        select_columns,
        shown_columns,
        sort_rows,
    )

    table = _table(_read_rows(folder), parse_conditions(where or []), by)
    table = sort_rows(table, sort or main_score(table))
    count = len(table)
    if top is None:
        top = 0 if export else 20
    if top:
        table = table.head(top)
    if columns is not None and columns != "all":
        table = select_columns(table, [name.strip() for name in columns.split(",")])
    elif columns is None and export is None:
        shown = SHOWN_CONFIGURATIONS if by == "configuration" else SHOWN_RUNS
        table = select_columns(table, shown_columns(table, shown))
    if export is not None:
        export_table(table, export)
        typer.echo(f"{export}: {len(table)} rows, {table.width} columns")
        return
    typer.echo(format_table(table))
    typer.echo(f"{by}s: {count}" if len(table) == count else f"{by}s: {len(table)} of {count}")


def _read_rows(folder: Path) -> list[RunRow]:
    from emofuse.errors import ResultsError
    from emofuse.results import runs_of_folder
    from emofuse.sweep.rows import ResultsFolder

    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; make it with: emofuse sweep NAME")
    rows = ResultsFolder(folder).rows()
    if not rows and runs_of_folder(folder) != folder:
        raise ResultsError(
            f"{folder}: no search in this folder, but runs of a pipeline. Show their scores with: "
            f"emofuse report {folder}"
        )
    if not rows:
        raise ResultsError(f"{folder}: no results in this folder; those of emofuse sweep NAME are in emofuse-runs/NAME")
    return rows


def _table(rows: list[RunRow], conditions: list[Condition], by: str) -> pl.DataFrame:
    from emofuse.sweep.table import configuration_table, filter_rows, run_table

    runs = run_table(rows)
    if by == "run":
        return filter_rows(runs, conditions)
    # A condition on a column that only runs have (fold, ended) chooses the runs that a mean is taken of.
    columns = configuration_table(rows).columns
    digests = set(filter_rows(runs, [each for each in conditions if each.column not in columns])["digest"])
    table = configuration_table([row for row in rows if row.digest in digests])
    return filter_rows(table, [each for each in conditions if each.column in columns])
