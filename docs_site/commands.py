"""The reference of the command line, from the same declarations as `--help`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from emofuse.cli import app


def find_command(words: list[str]) -> tuple[str, Any, list[str]]:
    """Return the name of a command of emofuse, the command, and the arguments behind its name.

    Raises:
        KeyError: there is no such command.
    """
    command: Any = typer.main.get_command(app)
    names: list[str] = []
    rest = list(words)
    while hasattr(command, "commands"):
        two = " ".join(rest[:2])
        name = two if two in command.commands else rest[0]
        command = command.commands[name]
        names.append(name)
        rest = rest[len(name.split()) :]
    return " ".join(names), command, rest


def leaves(command: Any = None, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Return every command that can be called, with its name."""
    command = typer.main.get_command(app) if command is None else command
    if not hasattr(command, "commands"):
        yield " ".join(names), command
        return
    for name, each in command.commands.items():
        yield from leaves(each, (*names, name))


def reference() -> str:
    """Return all commands with their arguments and options in Markdown."""
    return "\n".join(part for name, command in leaves() for part in _describe(name, command))


def _describe(name: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=f"emofuse {name}")
    yield f"### `emofuse {name}`\n"
    yield f"{_one_line(command.help)}\n"
    yield "| argument or option | what it says |"
    yield "| --- | --- |"
    for parameter in command.params:
        record = None if parameter.name == "help" else parameter.get_help_record(context)
        if record is not None:
            yield f"| `{record[0].strip()}` | {_cell(record[1])} |"
    yield ""


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _one_line(text: str | None) -> str:
    return " ".join((text or "").replace("\b", " ").split())
