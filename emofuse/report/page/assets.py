"""Styles and scripts of the page, put into it, and the policy that allows these scripts and nothing else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
from functools import cache
from importlib import resources
from pathlib import Path

from emofuse.errors import ResultsError

STYLES = ("base.css", "tables.css", "samples.css", "print.css")
SCRIPTS = ("theme.js", "tables.js", "samples.js", "charts.js")
"""The files in the order in which they are put into the page."""


def read_part(folder: str, name: str) -> str:
    """Return the text of a template, style sheet or script of the page."""
    return resources.files("emofuse.report.page").joinpath(folder, name).read_text("utf-8")


@cache
def style_sheet() -> str:
    """Return all style sheets."""
    return "\n".join(read_part("styles", name) for name in STYLES)


@cache
def script() -> str:
    """Return all scripts as one."""
    return "\n".join(read_part("scripts", name) for name in SCRIPTS)


@cache
def plotly() -> tuple[str, str]:
    """Return plotly.js as gzip in base64, and the source of the policy that allows it.

    Raises:
        ResultsError: plotly is not installed.
    """
    found = importlib.util.find_spec("plotly")  # importing it would take a second
    path = Path(found.origin or "").parent / "package_data" / "plotly.min.js" if found else None
    if path is None or not path.is_file():
        raise ResultsError("a report needs plotly, which is not installed: pip install plotly")
    code = path.read_bytes().replace(b"\r\n", b"\n")
    packed = gzip.compress(code, compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii"), _source(code)


def policy() -> str:
    """Return the content security policy: scripts by their hashes, and styles and pictures of the page itself."""
    sources = f"{_source(script().encode())} {plotly()[1]}"
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _source(code: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode('ascii')}'"
