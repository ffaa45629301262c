"""Reading in a thread of its own: order, errors, the newest alone, and the end."""

from __future__ import annotations

import threading
import time

import pytest

from emofuse.errors import DecodeError
from emofuse.predict.ahead import ReadAhead
from emofuse.predict.interrupt import StopRequest


def test_all_items_come_in_order():
    with ReadAhead(iter(range(100)), size=4) as ahead:
        assert list(ahead) == list(range(100))


def test_an_error_is_raised_behind_the_items_before_it():
    def items():
        yield from (1, 2)
        raise DecodeError("damaged")

    read = []
    with ReadAhead(items()) as ahead, pytest.raises(DecodeError, match="damaged"):
        read.extend(ahead)
    assert read == [1, 2]


def test_with_newest_the_items_in_between_are_skipped_and_counted():
    last = threading.Event()

    def items():
        for number in range(50):
            if number == 49:
                last.set()
            yield number

    with ReadAhead(items(), newest=True) as ahead:
        read = iter(ahead)
        first = next(read)
        last.wait(600)
        time.sleep(0.3)
        rest = list(read)
    assert rest[-1:] == [49] or first == 49
    assert 1 + len(rest) + ahead.skipped == 50


def test_a_stop_ends_the_iteration_while_the_next_item_is_waited_for():
    stop = StopRequest()
    release = threading.Event()

    def items():
        yield 1
        release.wait(600)

    with ReadAhead(items(), stop=stop) as ahead:
        threading.Timer(0.2, stop.ask).start()
        began = time.monotonic()
        assert list(ahead) == [1]
        assert time.monotonic() - began < 300
        release.set()


def test_closing_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def items():
        try:
            yield from range(10**9)
        finally:
            closed.set()

    with ReadAhead(items()) as ahead:
        assert next(iter(ahead)) == 0
    assert closed.wait(5)
