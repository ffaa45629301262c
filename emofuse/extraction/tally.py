"""The counts of a build while it runs, and its summary or error at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from emofuse.errors import CacheError, StreamError, UnwritableCacheError
from emofuse.extraction.tasks import BlockDone, BlockFailed, Problem
from emofuse.status import Status

# A block that fails does not cost the others, but when several fail the cause is the machine or the spec.
_MAX_FAILED_BLOCKS = 3
_KEPT_PROBLEMS = 1000
# A stream may fail on images of one kind, and the images of a label follow each other. It counts as broken only after
# many rows, and in a large dataset after more of it than one label usually has.
_REFUSED_ROWS = 1000
_REFUSED_SHARE = 0.25


@dataclass(frozen=True)
class BuildSummary:
    """The summary of a build.

    Attributes:
        rows: the number of rows that this build computed.
        seconds: the duration of the extraction.
        counts: stream -> status name in lower case -> number of rows that this build computed.
        problems: the first thousand rows without features, and the reasons.
        problem_count: the number of all rows without features.
        written: the number of blocks that were written, once for each group of streams that were computed together.
        changes: a description of each change of the dataset since the cache was built.
        noun: what the rows are, in the plural.
        notes: why networks ran in PyTorch although they would be compiled, one line each.
    """

    rows: int
    seconds: float
    counts: Mapping[str, Mapping[str, int]]
    problems: tuple[Problem, ...] = ()
    problem_count: int = 0
    written: int = 0
    changes: tuple[str, ...] = ()
    noun: str = "images"
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the summary as one line."""
        if self.rows == 0:
            return "complete, nothing to do"
        return f"{self.rows} rows computed in {self.seconds:.1f} s ({self.rows / self.seconds:.1f} {self.noun}/s)"


@dataclass
class Tally:
    """The counts of a build so far. Its size does not grow with the dataset.

    Attributes:
        rows: the number of rows that were computed.
        planned: the number of rows to compute.
        noun: what the rows are, in the plural.
        has_worked: a function that returns whether a stream has features of any image, also from an earlier build.
        failures: the blocks that could not be computed or written.
    """

    rows: int = 0
    planned: int = 0
    has_worked: Callable[[str], bool] = lambda _: False
    noun: str = "images"
    failures: list[BlockFailed] = field(default_factory=list)
    _counts: dict[str, list[int]] = field(default_factory=dict)
    _problems: list[Problem] = field(default_factory=list)
    _problem_count: int = 0
    _written: int = 0
    _refused: dict[str, list[tuple[int, Problem]]] = field(default_factory=dict)
    _works: set[str] = field(default_factory=set)
    _notes: dict[str, None] = field(default_factory=dict)

    def add(self, result: BlockDone | BlockFailed) -> None:
        """Count one block."""
        if isinstance(result, BlockFailed):
            self.failures.append(result)
            return
        self.rows += result.rows
        self._written += result.written
        self._notes |= dict.fromkeys(result.notes)
        for stream, counts in result.counts.items():
            total = self._counts.setdefault(stream, [0] * len(Status))
            self._counts[stream] = [a + b for a, b in zip(total, counts, strict=True)]
            self._classify(stream, counts, result)
        self._problem_count += len(result.problems)
        self._problems.extend(result.problems[: _KEPT_PROBLEMS - len(self._problems)])

    def _classify(self, stream: str, counts: Sequence[int], result: BlockDone) -> None:
        """Decide whether a stream works, or record the rows of the block that it failed on."""
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
        """Return the streams that failed on every readable image, `least` or more: their number, and the first."""
        counted = {name: (sum(rows for rows, _ in blocks), blocks[0][1]) for name, blocks in self._refused.items()}
        return {name: (rows, first) for name, (rows, first) in counted.items() if rows >= least}

    def refused_rows(self, stream: str) -> list[int]:
        """Return the first failed row of each block that a broken stream failed on."""
        return [problem.row for _, problem in self._refused[stream]]

    @property
    def is_hopeless(self) -> bool:
        """Whether so much has failed that the rest is not tried."""
        if self.broken_streams(max(_REFUSED_ROWS, int(_REFUSED_SHARE * self.planned))):
            return True
        return len(self.failures) >= _MAX_FAILED_BLOCKS or any(failed.is_hopeless for failed in self.failures)

    def named_counts(self) -> dict[str, dict[str, int]]:
        """Return stream -> status name in lower case -> number of rows, without statuses that no row has."""
        return {
            stream: {status.name.lower(): counts[status] for status in Status if counts[status]}
            for stream, counts in self._counts.items()
        }

    def summary(self, seconds: float) -> BuildSummary:
        """Return the summary of a build of this duration."""
        problems = tuple(sorted(self._problems, key=lambda problem: (problem.row, problem.stream)))
        counts = self.named_counts()
        return BuildSummary(
            self.rows,
            seconds,
            counts,
            problems,
            self._problem_count,
            self._written,
            noun=self.noun,
            notes=tuple(self._notes),
        )

    def failure(self, blocks: int) -> StreamError | CacheError:
        """Return the error of a build with failed blocks; the workers' tracebacks are its notes."""
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
