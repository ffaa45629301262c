"""The command line: parse, import lazily, call one function. One file a command group; no torch until it is needed."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import emofuse
from emofuse.cli import cache, dataset, doctor, predict, probe, profile, report, results, run, sweep, train, weights
from emofuse.cli.terminal import make_output_safe
from emofuse.errors import EmofuseError

_INTERRUPTED = 130

app = typer.Typer(
    name="emofuse",
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
app.command("results")(results.results)
app.command("report")(report.report)
app.command("predict")(predict.predict)
app.command("profile")(profile.profile)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"emofuse {emofuse.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the console script: errors of emofuse print their message alone, Ctrl-C leaves quietly.

    So does what the system refuses: a full disk, a folder that may not be written to. Exit status: 0 done, 1 an error,
    2 wrong usage, 130 interrupted. `EMOFUSE_DEBUG=1` shows tracebacks.
    """
    # Read by OpenMP when torch is loaded: waiting threads sleep instead of spinning, without which small heads train
    # many times slower on cores that others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    make_output_safe()
    try:
        app()
    except (EmofuseError, OSError) as error:
        if os.environ.get("EMOFUSE_DEBUG") == "1":
            raise
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as leaving:
        # Typer turns Ctrl-C in a command into this exit status, without a word.
        if isinstance(leaving, SystemExit) and leaving.code != _INTERRUPTED:
            raise
        typer.echo("Interrupted. What is finished is kept; the same command goes on from there.", err=True)
        sys.exit(_INTERRUPTED)
