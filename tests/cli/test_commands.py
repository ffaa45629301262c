"""The help of all commands, and what the command line says of errors of the system."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from emofuse import cli
from emofuse.cli import app
from emofuse.cli.commands import fill_paragraphs
from emofuse.cli.failures import describe_error
from emofuse.errors import CacheError


def test_paragraphs_of_the_help_are_wrapped_once_at_the_width_of_the_terminal():
    shown = CliRunner().invoke(app, ["sweep", "best", "--help"], env={"COLUMNS": "70"}).stdout
    paragraph = shown.split("and save it.")[1].split("\u256d")[0].strip().splitlines()
    assert len(paragraph) > 3
    assert all(len(line.strip()) > 50 for line in paragraph[:-1])  # none is cut at the width of the source


def test_every_command_of_every_group_has_its_help_filled():
    group = get_command(app)
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        for each in [command, *[command.get_command(None, below) for below in getattr(command, "commands", {})]]:
            assert each.help
            assert "\n" not in each.help.replace("\n\n", "")


def test_paragraphs_stay_apart():
    assert fill_paragraphs("One.\n\n    Two\n    lines.\n    ") == "One.\n\nTwo lines."


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left", "/a/b"), "/a/b: the disk is full. Free some space and run the same"),
        (OSError(errno.ENOSPC, "No space left"), "the disk is full. Free some space"),
        (OSError(errno.EROFS, "Read-only", "b"), "b: the disk is read-only. Name another folder"),
        (PermissionError(errno.EACCES, "Permission denied", "b"), "b: this user may not read or write it."),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a", None, "b"), "a -> b: No such file"),
        (OSError(errno.EACCES, "", "a/.rows.csv.3c5b4210.partial"), "a/rows.csv: this user may not read or write it."),
        (OSError("of a library"), "of a library"),
        (CacheError("a.zarr: damaged"), "a.zarr: damaged"),
    ],
)
def test_errors_of_the_system_are_sentences_with_their_file(error, message):
    assert describe_error(error).startswith(message)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_an_output_that_is_full_is_one_sentence():
    program = "from emofuse.cli import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("OSError: the disk is full.")


def test_sigterm_ends_any_command_as_an_interrupt_does(monkeypatch):
    shown: list[str] = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            shown.append("removed what was half done")

    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(cli, "make_output_safe", lambda: None)
    monkeypatch.setattr(cli, "app", work)
    monkeypatch.setattr(cli.typer, "echo", lambda text, **_: shown.append(text))
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 130
    assert shown == [
        "removed what was half done",
        "Interrupted. Finished work is kept; the same command continues from there.",
    ]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
