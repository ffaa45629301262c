"""`emofuse report`: makes tables, figures and one page from saved runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from emofuse.cli.browser import open_in_browser
from emofuse.cli.options import Images, Plugins, load_given_plugins, parse_names
from emofuse.cli.progress import show_progress
from emofuse.progress import step


def report(
    runs: Annotated[
        Path, typer.Argument(metavar="RUNS", help="Folder of saved runs, or of the pipeline or sweep that made them.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report.", show_default="report, in the folder of runs")
    ] = None,
    title: Annotated[
        str, typer.Option(help="Title of the page.", show_default="Fusion configurations on DATASET")
    ] = "",
    baseline: Annotated[
        str | None,
        typer.Option(help="Configuration that others are compared with.", show_default="the first trained"),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Further metrics, with commas: balanced_accuracy,kappa,roc_auc.", show_default="none")
    ] = "",
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A=B",
            help="Compare configuration A with B as well; repeat for more.",
            show_default="none",
        ),
    ] = None,
    images: Images = True,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the default browser, if there is one.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Write tables (CSV, Markdown, LaTeX), figures (SVG, PNG, PDF) and one HTML page; print the summary."""
    load_given_plugins(plugin)

    from emofuse.report import write_report
    from emofuse.results import check_results_folder, runs_of_folder

    runs = runs_of_folder(runs)
    if runs.is_dir():
        check_results_folder(out or runs / "report")
    with show_progress(), step("writing the report"):
        files = write_report(
            runs,
            out or runs / "report",
            title=title,
            baseline=baseline,
            metrics=parse_names(metrics),
            compare=compare or (),
            images=images,
            say=partial(typer.echo, err=True),
        )
    typer.echo(files.summary_markdown.read_text(encoding="utf-8"))
    for path in files:
        typer.echo(path)
    if open_page and not open_in_browser(files.page.resolve().as_uri()):
        typer.echo(f"No browser can be opened here. The page is {files.page.resolve()}", err=True)
