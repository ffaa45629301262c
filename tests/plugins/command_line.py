"""The command line in this process, for tests of plugins."""

from __future__ import annotations

from typer.testing import CliRunner

from emofuse.cli import app


def call(*arguments: object) -> str:
    """Run a command that must succeed, and return what it printed."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output
