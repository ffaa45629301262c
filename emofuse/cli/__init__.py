"""The command line. Each file has one group of commands, which parse, import lazily and call one function."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import emofuse
from emofuse.cli import (
    cache,
    camera,
    check_statistics,
    dataset,
    doctor,
    evaluate,
    explain,
    export,
    predict,
    probe,
    profile,
    report,
    results,
    run,
    sweep,
    sweep_best,
    tracking,
    train,
    ui,
    weights,
)
from emofuse.cli.commands import Commands
from emofuse.cli.failures import describe_error
from emofuse.cli.terminal import INTERRUPTED, StoppedByUser, make_output_safe
from emofuse.errors import EmofuseError
from emofuse.machine.signals import sigterm_as_interrupt

app = typer.Typer(
    name="emofuse",
    cls=Commands,
    help="Extract once, fuse many times: a feature cache and a fusion trainer for visual emotion recognition.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.add_typer(dataset.app, name="dataset")
app.add_typer(weights.app, name="weights")
app.add_typer(cache.app, name="cache")
app.command("probe")(probe.probe)
app.command("train")(train.train)
app.command("sweep")(sweep.sweep)
app.command("sweep best")(sweep_best.sweep_best)
app.command("results")(results.results)
app.command("results log")(tracking.results_log)
app.command("report")(report.report)
app.command("ui")(ui.ui)
app.command("explain")(explain.explain)
app.command("check-statistics")(check_statistics.check_statistics)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("live")(camera.live)
app.command("export")(export.export)
app.command("profile")(profile.profile)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"emofuse {emofuse.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit.

    Errors of emofuse and of the system (a full disk, a read-only folder) print their message without a traceback;
    `EMOFUSE_DEBUG=1` shows tracebacks. Exit status: 0 for success, 1 for an error, 2 for wrong usage, 130 for Ctrl-C
    and SIGTERM.
    """
    # OpenMP reads this when torch is loaded. Waiting threads then sleep instead of spinning, without which small heads
    # train many times slower on cores that other processes use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    make_output_safe()
    try:
        with sigterm_as_interrupt():
            app()
    except (EmofuseError, OSError) as error:
        if os.environ.get("EMOFUSE_DEBUG") == "1":
            raise
        typer.echo(f"{type(error).__name__}: {describe_error(error)}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as leaving:
        # Typer turns Ctrl-C in a command into this exit status and prints nothing.
        if isinstance(leaving, StoppedByUser) or (isinstance(leaving, SystemExit) and leaving.code != INTERRUPTED):
            raise
        typer.echo("Interrupted. Finished work is kept; the same command continues from there.", err=True)
        sys.exit(INTERRUPTED)
