"""Read frames in a separate thread during the prediction: all frames a little ahead, or only the newest."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

from emofuse.predict.interrupt import StopRequest

Item = TypeVar("Item")

_WAIT_S = 0.1


class ReadAhead(Generic[Item]):
    """An iterator whose items another thread makes. An error of that thread is raised after the items before it.

    Args:
        items: the items; only the other thread uses it.
        size: the largest number of items that wait.
        newest: whether an item that nobody took yet is replaced by the next one, as for a camera, whose frames do not
            wait. Otherwise the thread waits.
        stop: ends the iteration when it is asked for, also while the next item is waited for.

    Attributes:
        skipped: the number of items that were replaced.
    """

    def __init__(
        self, items: Iterator[Item], *, size: int = 8, newest: bool = False, stop: StopRequest | None = None
    ) -> None:
        self._items = items
        self._stop_request = stop or StopRequest()
        self._newest = newest
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(1 if newest else size)
        self._stop = threading.Event()
        self.skipped = 0
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Item]:
        while not self._stop_request.is_asked():
            try:
                item, error = self._queue.get(timeout=_WAIT_S)
            except queue.Empty:
                continue
            if error is not None:
                if isinstance(error, StopIteration):
                    return
                raise error
            yield item  # type: ignore[misc]  # an item may be None

    def close(self) -> None:
        """Stop the thread. It ends after its current item; a source that never answers is not waited for."""
        self._stop.set()
        self._thread.join(timeout=2)

    def _read(self) -> None:
        last: BaseException = StopIteration()
        try:
            for item in self._items:
                if not self._put((item, None)):
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            last = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                with contextlib.suppress(Exception):
                    close()
        self._put((None, last), keep=True)

    def _put(self, entry: tuple[Item | None, BaseException | None], *, keep: bool = False) -> bool:
        """Hand on an item; return False if nobody wants more."""
        while not self._stop.is_set():
            if self._newest and not keep:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self.skipped += 1
            try:
                self._queue.put(entry, timeout=_WAIT_S)
            except queue.Full:
                continue
            return True
        return False
