"""Fixtures of the weights tests: a registry of our own and a small web server on the loopback."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from emofuse.weights import registry, resolve, store
from emofuse.weights.registry import REGISTRY, WeightsEntry

sys.path.append(str(Path(__file__).parents[1]))  # python2_checkpoint.py


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The weights folder of this test, not made yet."""
    path = tmp_path / "own weights"
    monkeypatch.setenv("EMOFUSE_WEIGHTS_DIR", str(path))
    return path


@pytest.fixture
def register(monkeypatch):
    """Adds entries to the registry for the length of the test."""

    def _register(**fields) -> WeightsEntry:
        entry = WeightsEntry(**{"model": "resnet18", "licence": "free", "source": "a test", **fields})
        known = {**registry.REGISTRY, entry.name: entry}
        for module in (registry, store, resolve):
            monkeypatch.setattr(module, "REGISTRY", known)
        return entry

    assert registry.REGISTRY is REGISTRY
    return _register


@dataclass
class Server:
    """What the web server does, and what it was asked.

    `cuts` holds, per response, after how many bytes of the body the connection is closed; `statuses` the HTTP status of
    the next responses, 200 when it is empty.
    """

    body: bytes = b""
    etag: str | None = '"first"'
    ranges: bool = True
    length: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    does = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            does.asked.append(wanted)
            status = does.statuses.pop(0) if does.statuses else 200
            if status != 200:
                self.send_error(status)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            resumes = does.ranges and wanted and self.headers.get("If-Range") == does.etag
            if resumes and start >= len(does.body):
                self.send_error(416)
                return
            part = does.body[start:] if resumes else does.body
            self.send_response(206 if resumes else 200)
            if resumes:
                self.send_header("Content-Range", f"bytes {start}-{len(does.body) - 1}/{len(does.body)}")
            if does.etag:
                self.send_header("ETag", does.etag)
            if does.length:
                self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: does.cuts.pop(0)] if does.cuts else part)

        def log_message(self, *args):
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *args):
            """A client that hangs up is part of the tests."""

    web = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    does.url = f"http://127.0.0.1:{web.server_port}/files/model.pth"
    yield does
    web.shutdown()
    web.server_close()
