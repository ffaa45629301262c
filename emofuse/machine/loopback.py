"""Serve pages to browsers of this machine alone.

Only the loopback address is bound, so that no other machine can connect. The address of a page holds a random word, so
that other users and web pages of this machine do not find it. A request that names another host is refused: a page
elsewhere could otherwise let its own name mean this machine (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from emofuse.errors import DeviceError

LOOPBACK = "127.0.0.1"
_POLL_S = 0.1  # `stop` takes at most this long
SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The headers of every answer."""


def check_is_loopback(host: str, page: str) -> None:
    """Raise if an address can be reached from other machines.

    Args:
        host: the address to bind.
        page: the name of the page in the error message.

    Raises:
        DeviceError: it can, or is no address.
    """
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise DeviceError(f"{page} is for this machine alone: it binds to {LOOPBACK}, not to {host!r}")


class LoopbackServer(ThreadingHTTPServer):
    """A server on the loopback address of this machine, whose pages lie below a random word.

    Args:
        port: the port; 0 for a free one.
        host: the address to bind, which must be a loopback address.
        page: the name of the page in error messages.
        handler: the class that answers requests.

    Raises:
        DeviceError: the address is not a loopback address, or the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, port: int, host: str, page: str, handler: type[LoopbackHandler]) -> None:
        check_is_loopback(host, page)
        self._word = secrets.token_urlsafe(12)
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            raise DeviceError(
                f"port {port} of this machine cannot be used ({error.strerror or error}): take another one, or 0 for "
                "any free one: --port 0"
            ) from None

    def server_bind(self) -> None:
        """Bind the address without the name look-up of `HTTPServer`, which takes seconds on some networks."""
        TCPServer.server_bind(self)
        host, port = self.socket.getsockname()[:2]
        self.server_name, self.server_port = str(host), int(port)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are bound, or were before the server has ended."""
        return self.server_name, self.server_port

    @property
    def url(self) -> str:
        """The address of the page for a browser of this machine."""
        host, port = self.address
        return f"http://{host}:{port}/{self._word}/"

    def start(self, name: str) -> None:
        """Answer requests in a background thread."""
        threading.Thread(target=self.serve_forever, args=(_POLL_S,), name=name, daemon=True).start()

    def stop(self) -> None:
        """End the server. A second call does nothing."""
        self.shutdown()
        self.server_close()

    def path_of(self, request: str) -> str | None:
        """Return what a request path asks for below the random word; None without it."""
        start = f"/{self._word}/"
        path = request.partition("?")[0]
        return path[len(start) :] if secrets.compare_digest(path[: len(start)].encode(), start.encode()) else None

    def names_this_machine(self, host: str | None) -> bool:
        """Return whether the `Host` header of a request names this machine, with any port."""
        name = (host or "").rpartition(":")[0] or host or ""
        return name in {LOOPBACK, "localhost", self.address[0]}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that closes its connection is no error."""


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers requests that name this machine and know the random word; subclasses have `answer`."""

    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Answer a request of a browser."""
        if not self.server.names_this_machine(self.headers.get("Host")):
            self.send_text(HTTPStatus.FORBIDDEN, "this page is for its own machine alone")
            return
        path = self.server.path_of(self.path)
        if path is None:
            self.send_text(HTTPStatus.NOT_FOUND, "no such page")
        else:
            self.answer(path)

    def answer(self, path: str) -> None:
        """Answer a request for a path below the random word."""
        raise NotImplementedError

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of the library
        """Write nothing."""

    def send_text(self, status: HTTPStatus, text: str) -> None:
        """Send a line of plain text."""
        self.send_body(status, "text/plain; charset=utf-8", text.encode())

    def send_body(self, status: HTTPStatus, kind: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.begin(status, kind, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def begin(self, status: HTTPStatus, kind: str, headers: Mapping[str, str]) -> None:
        """Send the status and the headers of an answer."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, **SAFE_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
