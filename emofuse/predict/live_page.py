"""A page on this machine that shows live predictions: JPEG after JPEG, and numbers as server-sent events.

The server is that of `emofuse.machine.loopback`, so that no other machine, user or web page finds the picture. Nothing
is written to disk, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.machine.loopback import LOOPBACK, LoopbackHandler, LoopbackServer

_PAGE = Path(__file__).with_name("live_page.html")
_JPEG_QUALITY = 85
_WAIT_S = 1.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'",
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
        self._news = threading.Condition()
        self._number = 0
        self._jpeg = b""
        self._state = b"{}"
        self._is_open = True
        self._server = _Server(port, host, self)
        self._server.start("page")

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
        self._server.stop()

    def newest(self, seen: int) -> tuple[int, bytes, bytes] | None:
        """Wait for a picture newer than the one with this number; return None when the page is closed.

        Returns:
            The number of the picture, the JPEG and the state as JSON. After a while without a picture, those of before.
        """
        with self._news:
            self._news.wait_for(lambda: self._number > seen or not self._is_open, timeout=_WAIT_S)
            return (self._number, self._jpeg, self._state) if self._is_open else None


class _Server(LoopbackServer):
    def __init__(self, port: int, host: str, page: LivePage) -> None:
        self.page = page
        super().__init__(port, host, "the live page", _Handler)


class _Handler(LoopbackHandler):
    server: _Server

    def answer(self, path: str) -> None:
        """Answer a request of a browser."""
        match path:
            case "":
                self.send_body(HTTPStatus.OK, "text/html; charset=utf-8", _PAGE.read_bytes(), _HEADERS)
            case "video":
                self._send_video()
            case "events":
                self._send_events()
            case _:
                self.send_text(HTTPStatus.NOT_FOUND, "no such page")

    def _begin_stream(self, kind: str) -> None:
        self.begin(HTTPStatus.OK, kind, {"Connection": "close", **_HEADERS})
        self.close_connection = True

    def _send_video(self) -> None:
        self._begin_stream("multipart/x-mixed-replace; boundary=frame")
        seen = 0
        while (news := self.server.page.newest(seen)) is not None:
            if news[0] > seen and news[1]:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(news[1])}\r\n\r\n"
                self.wfile.write(head.encode() + news[1] + b"\r\n")
            seen = news[0]

    def _send_events(self) -> None:
        self._begin_stream("text/event-stream")
        seen = 0
        while (news := self.server.page.newest(seen)) is not None:
            self.wfile.write(b"data: " + news[2] + b"\n\n" if news[0] > seen else b": waiting\n\n")
            self.wfile.flush()
            seen = news[0]
        self.wfile.write(b"event: end\ndata: {}\n\n")
