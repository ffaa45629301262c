"""The page of `emofuse ui`: a loopback server that renders what a folder holds, and hands out files of its reports."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import time
from dataclasses import asdict
from functools import cache
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from jinja2 import Environment, StrictUndefined, Template

from emofuse.errors import ResultsError
from emofuse.machine.loopback import LOOPBACK, LoopbackHandler, LoopbackServer
from emofuse.ui.states import ACTIVITIES
from emofuse.ui.watch import FolderState, FolderWatch, file_of_report

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".tex": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".pdf": "application/pdf",
}
"""The types of files that reports have; no others are handed out."""
_REPORT_POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; font-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; worker-src blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "sandbox allow-scripts allow-downloads allow-modals allow-popups"
)
"""Lets scripts of a report work on their own page alone: the sandbox keeps them from asking this server for others."""


class WatchPage:
    """The server of the page.

    Args:
        root: the folder to watch.
        port: the port; 0 for a free one.
        host: the address to bind, which must be a loopback address.

    Raises:
        ResultsError: there is no such folder.
        DeviceError: the address is not a loopback address, or the port is taken.
    """

    def __init__(self, root: Path, port: int = 0, host: str = LOOPBACK) -> None:
        if not root.is_dir():
            raise ResultsError(f"{root}: no such folder. Name the folder of your results, such as emofuse-runs")
        self._server = _Server(port, host, FolderWatch(root.absolute()))
        self._server.start("ui")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are bound."""
        return self._server.address

    @property
    def url(self) -> str:
        """The address of the page for a browser of this machine."""
        return self._server.url

    def close(self) -> None:
        """End the server. A second call does nothing."""
        self._server.stop()


class _Server(LoopbackServer):
    def __init__(self, port: int, host: str, watch: FolderWatch) -> None:
        self.watch = watch
        super().__init__(port, host, "the page of emofuse ui", _Handler)


class _Handler(LoopbackHandler):
    server: _Server

    def answer(self, path: str) -> None:
        """Answer a request of a browser."""
        if path == "":
            self._send_page()
        elif path == "state.json":
            body = json.dumps(plain_state(self.server.watch.state()), ensure_ascii=False).encode()
            self.send_body(HTTPStatus.OK, "application/json", body, {"Cross-Origin-Resource-Policy": "same-origin"})
        elif path.startswith("files/"):
            self._send_file(unquote(path.removeprefix("files/"), errors="replace"))
        else:
            self.send_text(HTTPStatus.NOT_FOUND, "no such page")

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(12)
        policy = (
            f"default-src 'none'; connect-src 'self'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        headers = {"Content-Security-Policy": policy, "Cross-Origin-Resource-Policy": "same-origin"}
        page = render_page(self.server.watch.state(), nonce).encode("utf-8", "backslashreplace")
        self.send_body(HTTPStatus.OK, "text/html; charset=utf-8", page, headers)

    def _send_file(self, path: str) -> None:
        file = file_of_report(self.server.watch, path)
        kind = _TYPES.get(file.suffix.lower()) if file else None
        body = _read_file(file) if file and kind else None
        if body is None or kind is None:
            self.send_text(HTTPStatus.NOT_FOUND, "no such file of a report")
        else:
            self.send_body(HTTPStatus.OK, kind, body, {"Content-Security-Policy": _REPORT_POLICY})


def _read_file(file: Path) -> bytes | None:
    """Return the bytes of a file whose path has no links; None for anything else that takes its place now.

    A link is not followed, and a pipe is not waited for.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as opened:
            return opened.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def plain_state(state: FolderState) -> dict[str, Any]:
    """Return what is known of a folder as plain JSON data."""
    data: dict[str, Any] = json.loads(json.dumps(asdict(state), default=str))
    return data


def render_page(state: FolderState, nonce: str) -> str:
    """Return the page as HTML text, with every text from files escaped.

    Args:
        state: what is known of the folder.
        nonce: the random word that marks the style and the script of the page as its own.
    """
    return _template().render(
        state=state,
        nonce=nonce,
        activities=ACTIVITIES,
        summary=_summary(state),
        age=lambda written: format_age(state.looked - written),
        key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12],
        quote=lambda path: quote(path, errors="surrogateescape"),
        clock=lambda seconds: time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)),
    )


def _summary(state: FolderState) -> str:
    """Return how many places do what, in one sentence."""
    counts = {words: sum(place.activity == name for place in state.places) for name, words in ACTIVITIES.items()}
    parts = [f"{count} {words}" for words, count in counts.items() if count]
    return ", ".join(parts) if parts else "nothing here yet"


def format_age(seconds: float) -> str:
    """Return how long ago something was, such as `5 min ago`."""
    if seconds < 10:
        return "just now"
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (unit != "days" and seconds >= size):
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds // 10) * 10} s ago"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = resources.files("emofuse.ui").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)
