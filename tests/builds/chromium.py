"""A headless Chromium for tests of pages, driven by its own protocol, without a further library."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LEAKS = """(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = ({ parentElement: parent }) =>
    parent && (getComputedStyle(parent).overflowX !== "visible" || scrolls(parent));
  const leaks = each => {
    const box = each.getBoundingClientRect();
    return box.width && (box.right > width + 1 || box.left < -1) && !scrolls(each);
  };
  return [...document.body.querySelectorAll("*")].filter(leaks)
    .map(each => each.tagName + "." + each.className + " " + each.textContent.slice(0, 40));
})()"""
"""Returns the elements that leak out of the page sideways, apart from those in boxes that scroll."""


class Visit:
    """A page that is open in the browser.

    Attributes:
        problems: the errors of its console, and uncaught exceptions.
    """

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.problems: list[str] = []

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol, and return its result."""
        self._number += 1
        await self._connection.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = await self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    async def _next(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self._connection.read_message(), 30)
        assert text is not None, "the browser has closed the page"
        message = json.loads(text)
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(message["params"]["exceptionDetails"]["text"])
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.problems.append(message["params"]["entry"]["text"])
        return message

    async def open(self, url: str, width: int, height: int = 900, *, scheme: str = "light") -> None:
        """Open an address at a width in CSS pixels, and wait until it is loaded."""
        for domain in ("Runtime", "Log", "Page"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def value(self, script: str) -> Any:
        """Return the value of an expression on the page."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str, seconds: float = 30.0) -> None:
        """Wait until an expression on the page is true."""
        end = time.monotonic() + seconds
        while not await self.value(script):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            await asyncio.sleep(0.1)

    async def press(self, key: str) -> None:
        """Press a key, by its name in the protocol such as `Tab` or `Enter`."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)


class Chromium:
    """A running browser. `visit` runs a function on a fresh page and returns its result."""

    def __init__(self, port: int) -> None:
        self._port = port

    def visit(self, steps: Any) -> Any:
        """Run `await steps(page)` on a fresh page."""

        async def run() -> Any:
            import tornado.httpclient

            client = tornado.httpclient.AsyncHTTPClient()
            made = await client.fetch(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT", body=b"")
            page = json.loads(made.body)
            connection = await websocket_connect(page["webSocketDebuggerUrl"], max_message_size=1 << 28)
            try:
                return await steps(Visit(connection))
            finally:
                connection.close()
                await client.fetch(f"http://127.0.0.1:{self._port}/json/close/{page['id']}")

        return asyncio.run(run())


@contextmanager
def open_chromium(folder: Path) -> Iterator[Chromium]:
    """Start a headless browser with its profile in a folder; the test is skipped where none is installed."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium is installed ({', '.join(NAMES)})")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            told, end = folder / "DevToolsActivePort", time.monotonic() + 60
            while not told.is_file() or not told.read_text().strip():
                assert process.poll() is None, "Chromium has ended"
                assert time.monotonic() < end, "Chromium does not start"
                time.sleep(0.1)
            yield Chromium(int(told.read_text().split()[0]))
        finally:
            process.terminate()
            process.wait(30)
