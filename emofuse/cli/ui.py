"""`emofuse ui`: a page on this machine with the pipelines, sweeps, caches and reports of a folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from emofuse.cli.browser import open_in_browser
from emofuse.cli.options import RUNS


def ui(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of results, at any depth.", show_default="emofuse-runs")
    ] = RUNS,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 for a free one.")] = 0,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the default browser.")] = True,
) -> None:
    """Show pipelines, sweeps, caches and reports of a folder on a page that follows them while they run.

    The page can be opened on this machine alone. Nothing is written or locked, so that running work is not disturbed.
    Ctrl-C ends.
    """
    from emofuse.ui import WatchPage

    with WatchPage(folder, port) as page:
        typer.echo(f"Open on this machine: {page.url}")
        typer.echo(f"It shows {folder} and follows what runs there. Ctrl-C ends.")
        if open_page:
            open_in_browser(page.url)
        try:
            # A wait without end could not be interrupted on Windows.
            while not threading.Event().wait(3600):
                pass
        except KeyboardInterrupt:
            pass
    typer.echo(f"The page of {folder} is closed. Nothing was changed; what runs there goes on.")
