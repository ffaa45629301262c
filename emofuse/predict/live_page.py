"""A page on this machine that shows live predictions: JPEG after JPEG, and numbers as server-sent events.

Only the loopback address is bound, so that no other machine can connect. The address of the page holds a random word,
so that other users and web pages of this machine do not find the picture; a request that names another host is refused
(a page elsewhere could otherwise let its own name mean this machine). Nothing is written to disk, and nothing is loaded
from elsewhere.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.errors import DeviceError

LOOPBACK = "127.0.0.1"
_PAGE = Path(__file__).with_name("live_page.html")
_JPEG_QUALITY = 85
_WAIT_S = 1.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class LivePage:
    """The server of the page. `show` hands over a picture; browsers take the newest.

    Args:
        port: the port; 0 for a free one.
        host: the address to bind, which must be a loopback address.

    Raises:
        DeviceError: the address is not a loopback address, or the port is taken.
    """

    def __init__(self, port: int = 0, host: str = LOOPBACK) -> None:
        check_is_loopback(host)
        self._word = secrets.token_urlsafe(12)
        self._news = threading.Condition()
        self._number = 0
        self._jpeg = b""
        self._state = b"{}"
        self._is_open = True
        try:
            self._server = _Server((host, port), self)
        except OSError as error:
            raise DeviceError(
                f"port {port} of this machine cannot be used ({error.strerror or error}): take another one, or 0 for "
                "any free one: --port 0"
            ) from None
        threading.Thread(target=self._server.serve_forever, name="page", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are bound."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    @property
    def url(self) -> str:
        """The address of the page for a browser of this machine."""
        host, port = self.address
        return f"http://{host}:{port}/{self._word}/"

    def show(self, image: npt.NDArray[np.uint8], state: Mapping[str, Any]) -> bool:
        """Show a picture (H, W, 3) uint8 RGB and a state of plain data; return True, since a page cannot be closed."""
        import cv2

        is_encoded, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        with self._news:
            self._number += 1
            self._jpeg = jpeg.tobytes() if is_encoded else b""
            self._state = json.dumps(state).encode()
            self._news.notify_all()
        return True

    def close(self) -> None:
        """End the server and all connections. A second call does nothing."""
        with self._news:
            self._is_open = False
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def newest(self, seen: int) -> tuple[int, bytes, bytes] | None:
        """Wait for a picture behind the one with this number; None when the page is closed.

        Returns:
            The number of the picture, the JPEG and the state as JSON. After a while without a picture, those of before.
        """
        with self._news:
            self._news.wait_for(lambda: self._number > seen or not self._is_open, timeout=_WAIT_S)
            return (self._number, self._jpeg, self._state) if self._is_open else None

    def path_of(self, request: str) -> str | None:
        """Return what a request path asks for below the random word; None without it."""
        start = f"/{self._word}/"
        path = request.partition("?")[0]
        return path[len(start) :] if secrets.compare_digest(path[: len(start)].encode(), start.encode()) else None


def check_is_loopback(host: str) -> None:
    """Raise if an address can be reached from other machines.

    Raises:
        DeviceError: it can, or is no address.
    """
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise DeviceError(f"the live page is for this machine alone: it binds to {LOOPBACK}, not to {host!r}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, address: tuple[str, int], page: LivePage) -> None:
        self.page = page
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that closes its connection is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Answer a request of a browser."""
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host") or ""
        if host not in {LOOPBACK, "localhost", self.server.page.address[0]}:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for its own machine alone")
            return
        match self.server.page.path_of(self.path):
            case "":
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", _PAGE.read_bytes())
            case "video":
                self._send_video()
            case "events":
                self._send_events()
            case _:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"no such page")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of the library
        """Write nothing."""

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._begin(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)

    def _send_video(self) -> None:
        self._begin(HTTPStatus.OK, "multipart/x-mixed-replace; boundary=frame")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        seen = 0
        while (news := self.server.page.newest(seen)) is not None:
            if news[0] > seen and news[1]:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(news[1])}\r\n\r\n"
                self.wfile.write(head.encode() + news[1] + b"\r\n")
            seen = news[0]

    def _send_events(self) -> None:
        self._begin(HTTPStatus.OK, "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        seen = 0
        while (news := self.server.page.newest(seen)) is not None:
            self.wfile.write(b"data: " + news[2] + b"\n\n" if news[0] > seen else b": waiting\n\n")
            self.wfile.flush()
            seen = news[0]
        self.wfile.write(b"event: end\ndata: {}\n\n")
