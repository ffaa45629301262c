"""What a build did: counted while it runs, told when it ends or fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from emofuse.errors import CacheError, StreamError, UnwritableCacheError
from emofuse.extraction.tasks import BlockDone, BlockFailed, Problem
from emofuse.status import Status

# A block that fails does not cost the others, but when several fail the cause is the machine or the spec.
_MAX_FAILED_BLOCKS = 3
_KEPT_PROBLEMS = 1000
# A stream may refuse pictures of a kind, and a label's pictures lie together: it is judged over many rows, and in a
# large dataset over so much of it that hardly one label is all of that.
_REFUSED_ROWS = 1000
_REFUSED_SHARE = 0.25


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
        planned: rows to compute in all.
        has_worked: whether a stream has features of any picture, from an earlier build too.
        failures: blocks that could not be computed or written.
    """

    rows: int = 0
    planned: int = 0
    has_worked: Callable[[str], bool] = lambda _: False
    failures: list[BlockFailed] = field(default_factory=list)
    _counts: dict[str, list[int]] = field(default_factory=dict)
    _problems: list[Problem] = field(default_factory=list)
    _problem_count: int = 0
    _written: int = 0
    _refused: dict[str, list[tuple[int, Problem]]] = field(default_factory=dict)
    _works: set[str] = field(default_factory=set)

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
            self._judge(stream, counts, result)
        self._problem_count += len(result.problems)
        self._problems.extend(result.problems[: _KEPT_PROBLEMS - len(self._problems)])

    def _judge(self, stream: str, counts: Sequence[int], result: BlockDone) -> None:
        if stream in self._works:
            return
        is_new = counts[Status.FAILED] and stream not in self._refused  # earlier builds are asked once
        if counts[Status.OK] or counts[Status.NO_DETECTION] or (is_new and self.has_worked(stream)):
            self._works.add(stream)
            self._refused.pop(stream, None)
        elif counts[Status.FAILED]:
            first = next(problem for problem in result.problems if problem.stream == stream)
            self._refused.setdefault(stream, []).append((counts[Status.FAILED], first))

    def broken_streams(self, least: int = 2) -> dict[str, tuple[int, Problem]]:
        """Streams that failed on every readable picture there was, so many or more: how many, and the first."""
        counted = {name: (sum(rows for rows, _ in found), found[0][1]) for name, found in self._refused.items()}
        return {name: (rows, first) for name, (rows, first) in counted.items() if rows >= least}

    def refused_rows(self, stream: str) -> list[int]:
        """The first failed row of each block that a broken stream failed on."""
        return [problem.row for _, problem in self._refused[stream]]

    @property
    def is_hopeless(self) -> bool:
        """Whether so much has failed that the rest need not be tried."""
        if self.broken_streams(max(_REFUSED_ROWS, int(_REFUSED_SHARE * self.planned))):
            return True
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
