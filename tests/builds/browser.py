"""A real Chromium without a window, for tests of pages: it is spoken to by its DevTools protocol over two pipes.

The path of the browser is that of the variable `EMOFUSE_CHROMIUM`, or of a Chromium or Chrome on the path.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_S = 60
KEYS = {"Escape": 27, "Enter": 13, "Tab": 9, " ": 32}


def find_browser() -> str | None:
    """The path of the browser; None without one."""
    named = os.environ.get("EMOFUSE_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One process of the browser with one tab."""

    def __init__(self, path: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="emofuse-browser-", ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser reads from 3 and writes to 4. Higher numbers first, so that no pipe is overwritten.
        high = [fcntl.fcntl(each, fcntl.F_DUPFD, 20) for each in (to_browser, from_browser)]

        def place() -> None:
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        options += ["--disable-background-networking", f"--user-data-dir={self._profile.name}"]
        self._process = subprocess.Popen(
            [path, *options, "about:blank"],
            pass_fds=(3, 4),
            preexec_fn=place,  # noqa: PLW1509 - it calls dup2 alone
            stderr=subprocess.DEVNULL,
        )
        for each in (*high, to_browser, from_browser):
            os.close(each)
        self._buffer, self._number, self.events, self._session = b"", 0, [], None
        tabs = [each for each in self.send("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        attached = self.send("Target.attachToTarget", targetId=tabs[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, until - time.monotonic()))
            assert ready, f"the browser did not answer in {TIMEOUT_S} s"
            data = os.read(self._read, 1 << 16)
            assert data, "the browser ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def wait_for(self, method: str) -> dict[str, Any]:
        """Return the first event of a method that is not read yet."""
        while True:
            for place, event in enumerate(self.events):
                if event.get("method") == method:
                    return self.events.pop(place)
            self.events.append(self._next())

    def open(self, page: Path | str) -> None:
        """Open a file or an address and wait until it is loaded."""
        self.events.clear()
        self.send("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
        self.wait_for("Page.loadEventFired")

    def show(self, width: int, height: int = 900, theme: str = "light") -> None:
        """Set the size of the window in CSS pixels, and the theme of the system."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def run(self, script: str) -> Any:
        """Run the body of an async function in the page and return its value, which must be plain JSON."""
        expression = f"(async () => {{ {script} }})()"
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result.get("exceptionDetails")
        return result["result"].get("value")

    def value(self, expression: str) -> Any:
        """Return the value of an expression on the page, which must be plain JSON."""
        return self.run(f"return {expression}")

    def until(self, expression: str) -> None:
        """Wait until an expression on the page is true."""
        end = time.monotonic() + TIMEOUT_S
        while not self.value(expression):
            assert time.monotonic() < end, f"not within {TIMEOUT_S} s: {expression}"
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """Press and release a key, as a person does."""
        text = {"Enter": "\r", " ": " "}.get(key)
        code = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **code)

    def problems(self) -> list[str]:
        """Errors and warnings of the console, refused scripts and uncaught errors since the page was opened."""
        self.run("await new Promise((done) => setTimeout(done, 50))")
        problems = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                problems.append(json.dumps(params["exceptionDetails"]))
            if event.get("method") == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
                problems.append(params["entry"]["text"])
            if event.get("method") == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
                problems.append(json.dumps(params["args"]))
        return problems

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        sent = (event for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def close(self) -> None:
        """End the browser."""
        try:
            self.send("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait(TIMEOUT_S)
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()
