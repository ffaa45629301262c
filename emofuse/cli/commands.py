"""The groups of the command line: help that fills the terminal, and commands of two words."""

from __future__ import annotations

import inspect
from typing import Any

from typer.core import TyperGroup

_OF_TWO_WORDS = ("sweep best", "results log")


class Commands(TyperGroup):
    """A group of commands, of which some have two words beside a command that is the first of them alone."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments begin with, and the other arguments."""
        words = " ".join(args[:2])
        return super().resolve_command(ctx, [words, *args[2:]] if words in _OF_TWO_WORDS else args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name; None without one."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help:
            command.help = fill_paragraphs(command.help)
        return command


def fill_paragraphs(docstring: str) -> str:
    """Return a docstring with each paragraph on one line, which the help wraps at the width of the terminal.

    Typer keeps the line breaks of all paragraphs but the first, so that a narrower terminal would break lines twice.
    """
    return "\n\n".join(" ".join(lines.split()) for lines in inspect.cleandoc(docstring).split("\n\n"))
