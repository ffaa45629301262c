"""One working folder in which the commands and code of all pages run, the tutorial first."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from typer.testing import CliRunner

from emofuse.cli import app

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # the scripts that make the site are not installed

from docs_site.markdown import DOCS, Block, pages, read_blocks  # noqa: E402

__all__ = ["DOCS", "ROOT", "Block", "Workshop", "commands_of", "inside", "pages", "read_blocks"]


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def commands_of(block: Block) -> list[str]:
    """The commands of a block, each on one line, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    commands = [line.split(" #")[0].strip() for line in lines]
    return [command for command in commands if command and not command.startswith("#")]


@dataclass
class Workshop:
    """A working folder, and what each block of commands printed in it."""

    folder: Path
    printed: dict[str, str] = field(default_factory=dict)

    def run(self, block: Block) -> str:
        """Run the commands of emofuse in a block, once, and return what they print; tests check all other commands."""
        if str(block) not in self.printed:
            said = ""
            for command in commands_of(block):
                if not command.startswith("emofuse "):
                    continue
                with inside(self.folder):
                    done = CliRunner().invoke(app, shlex.split(command)[1:])
                assert done.exit_code == 0, f"{block}: {command}\n{done.output}\n{done.exception!r}"
                said += done.output
            self.printed[str(block)] = said
        return self.printed[str(block)]

    def save(self, block: Block) -> None:
        """Save a block under the name in its first line, as a reader does."""
        if block.file_name:
            (self.folder / block.file_name).write_text(block.text, encoding="utf-8")
