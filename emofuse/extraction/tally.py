"""What a build did: counted while it runs, told when it ends or fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from emofuse.errors import CacheError, StreamError, UnwritableCacheError
from emofuse.extraction.tasks import BlockDone, BlockFailed, Problem
from emofuse.status import Status

# A block that fails does not cost the others, but when several fail the cause is the machine or the spec.
_MAX_FAILED_BLOCKS = 3
_KEPT_PROBLEMS = 1000


@dataclass(frozen=True)
class BuildSummary:
    """What a build did.

    Attributes:
        rows: computed by this build.
        seconds: from the start of extraction to its end.
        counts: stream -> status name in lower case -> rows computed by this build.
        problems: rows without features and why, the first thousand.
        problem_count: all of them.
        written: blocks that were written, once for each group of streams that were computed together.
        changes: what became of the dataset since the cache was built, in words.
    """

    rows: int
    seconds: float
    counts: Mapping[str, Mapping[str, int]]
    problems: tuple[Problem, ...] = ()
    problem_count: int = 0
    written: int = 0
    changes: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line."""
        if self.rows == 0:
            return "complete, nothing to do"
        return f"{self.rows} rows computed in {self.seconds:.1f} s ({self.rows / self.seconds:.1f} images/s)"


@dataclass
class Tally:
    """What has been done so far, kept small whatever the size of the dataset.

    Attributes:
        rows: computed.
        failures: blocks that could not be computed or written.
    """

    rows: int = 0
    failures: list[BlockFailed] = field(default_factory=list)
    _counts: dict[str, list[int]] = field(default_factory=dict)
    _problems: list[Problem] = field(default_factory=list)
    _problem_count: int = 0
    _written: int = 0

    def add(self, result: BlockDone | BlockFailed) -> None:
        """Takes note of one block."""
        if isinstance(result, BlockFailed):
            self.failures.append(result)
            return
        self.rows += result.rows
        self._written += result.written
        for stream, counts in result.counts.items():
            total = self._counts.setdefault(stream, [0] * len(Status))
            self._counts[stream] = [a + b for a, b in zip(total, counts, strict=True)]
        self._problem_count += len(result.problems)
        self._problems.extend(result.problems[: _KEPT_PROBLEMS - len(self._problems)])

    @property
    def is_hopeless(self) -> bool:
        """Whether so much has failed that the rest need not be tried."""
        return len(self.failures) >= _MAX_FAILED_BLOCKS or any(failed.is_hopeless for failed in self.failures)

    def named_counts(self) -> dict[str, dict[str, int]]:
        """Stream -> status name in lower case -> rows; statuses of no row are left out."""
        return {
            stream: {status.name.lower(): counts[status] for status in Status if counts[status]}
            for stream, counts in self._counts.items()
        }

    def summary(self, seconds: float) -> BuildSummary:
        """Of a build that took so long."""
        problems = tuple(sorted(self._problems, key=lambda problem: (problem.row, problem.stream)))
        return BuildSummary(self.rows, seconds, self.named_counts(), problems, self._problem_count, self._written)

    def failure(self, blocks: int) -> StreamError | CacheError:
        """The error of a build of so many blocks of which some failed; the workers' tracebacks are its notes."""
        kind: type[StreamError | CacheError] = StreamError
        if all(failed.in_cache for failed in self.failures):
            kind = UnwritableCacheError if any(failed.is_hopeless for failed in self.failures) else CacheError
        listed = " | ".join(f"{failed.rows}: {failed.reason}" for failed in self.failures)
        is_given_up = len(self.failures) >= _MAX_FAILED_BLOCKS or kind is UnwritableCacheError
        stopped = ", then it was given up" if is_given_up else ""
        error = kind(
            f"{len(self.failures)} of {blocks} blocks failed{stopped}: {listed}. "
            "Finished blocks are kept; run the same build again when the cause is removed."
        )
        for failed in self.failures:
            if failed.details:
                error.add_note(f"{failed.rows}, in the worker:\n{failed.details}")
        return error
