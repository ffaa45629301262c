"""What a build tells while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class BuildState:
    """How far a build is.

    Attributes:
        rows: computed by this build so far.
        total: rows that this build has to compute.
        seconds: since extraction started.
        counts: stream -> status name in lower case -> rows computed by this build; statuses of no row are left out.
    """

    rows: int
    total: int
    seconds: float
    counts: Mapping[str, Mapping[str, int]]

    @property
    def images_per_s(self) -> float:
        """Mean speed of this build, 0 before the first block."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the mean speed, None before the first block."""
        return (self.total - self.rows) / self.images_per_s if self.rows else None


class Progress(Protocol):
    """Follows a build."""

    def update(self, state: BuildState) -> None:
        """Called before the first block and after each one, in the process that builds."""
        ...
