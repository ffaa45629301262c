"""Starts Python anew so that it imports what this process would import, and nothing else.

`python -m` and `python -c` look into the working folder first: a `queue.py` or `copy.py` in it, in a folder of data
that came from somewhere, would run in place of the library's. The search path of the new process is that of this one
instead, handed over whole: in `PYTHONPATH` a folder with a colon in its name would become two.
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
"""For the environment of a Python that another library starts."""


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a new interpreter that calls `main` of a module with these arguments."""
    # An empty entry is the working folder: this process imports from there, because somebody started it that way.
    paths = json.dumps([os.path.abspath(path) for path in sys.path])  # noqa: PTH100  links stay as they are
    return [sys.executable, *_flags(), "-P", "-c", _START, paths, module, *arguments]


def _flags() -> list[str]:
    """What this process was told to leave aside, the new one leaves aside too."""
    if sys.flags.isolated:
        return ["-I"]
    told = {"-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site, "-S": sys.flags.no_site}
    return [flag for flag, is_set in told.items() if is_set]
