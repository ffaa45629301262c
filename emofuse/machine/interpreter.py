"""Command lines that start another Python interpreter with exactly the import path of this process.

`python -m` and `python -c` search the working folder first: a `queue.py` or `copy.py` in a folder of somebody else's
data would run in place of the standard library's. The new process takes the search path of this one instead, as JSON:
in `PYTHONPATH`, a folder with a colon in its name would become two.
"""

from __future__ import annotations

import json
import os
import sys

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from importlib import import_module; "
    "sys.exit(import_module(sys.argv.pop(1)).main(sys.argv[1:]))"
)
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""The environment variable for an interpreter that another library starts."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line of a new interpreter that calls `main` of a module with these arguments."""
    return [sys.executable, *_flags(), "-P", "-c", _START, json.dumps(import_paths()), module, *arguments]


def import_paths() -> list[str]:
    """Return the import path of this process, in absolute paths."""
    # An empty entry is the working folder, from which this process was started to import.
    return [os.path.abspath(path) for path in sys.path]  # noqa: PTH100  links stay as they are


def _flags() -> list[str]:
    """Return the flags with which this process ignores user settings, so that the new one ignores them too."""
    if sys.flags.isolated:
        return ["-I"]
    options = {"-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site, "-S": sys.flags.no_site}
    return [flag for flag, is_set in options.items() if is_set]
