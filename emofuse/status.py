"""The status codes of rows, and of the steps of sequences, that streams, cache, training and reports share."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The result of one row of one stream. Stored as uint8; the numbers never change."""

    PENDING = 0
    OK = 1
    NO_DETECTION = 2
    UNREADABLE = 3
    FAILED = 4


class Step(IntEnum):
    """The result of one step of a sequence. Stored as uint8; the numbers never change."""

    PADDING = 0
    OK = 1
    NO_DETECTION = 2
