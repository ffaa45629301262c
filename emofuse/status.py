"""What became of a row, and of a step of a sequence: codes that streams, cache, training and reports share."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What became of one row of one stream. Stored as uint8; the numbers never change."""

    PENDING = 0
    OK = 1
    NO_DETECTION = 2
    UNREADABLE = 3
    FAILED = 4


class Step(IntEnum):
    """What became of one step of a row of a sequence. Stored as uint8; the numbers never change."""

    PADDING = 0
    OK = 1
    NO_DETECTION = 2
