"""What became of a row: the one fact that streams, cache, training and reports all speak of."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What became of one row of one stream. Stored as uint8; the numbers never change."""

    PENDING = 0
    OK = 1
    NO_DETECTION = 2
    UNREADABLE = 3
    FAILED = 4
