"""Stop on Ctrl-C after the current frame, so that files are finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the work should end."""

    def __init__(self) -> None:
        self._is_asked = False

    def ask(self) -> None:
        """Ask for the end of the work."""
        self._is_asked = True

    def is_asked(self) -> bool:
        """Return whether the work should end."""
        return self._is_asked


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """Note the first Ctrl-C, or SIGTERM, inside the context as a request; a second Ctrl-C interrupts at once.

    Outside of the main thread, which alone receives signals, nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        if request.is_asked():
            raise KeyboardInterrupt
        request.ask()

    before = {each: signal.signal(each, ask) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
