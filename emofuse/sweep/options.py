"""The options and results of a sweep, and what a search may try in place of its factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emofuse.report import ReportFiles
from emofuse.report.search import SearchKind
from emofuse.results import RunRecord
from emofuse.specs import SweepSpec
from emofuse.sweep.choice import Choice, ScoredConfiguration
from emofuse.sweep.final_runs import FinalRuns
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.strategies import SearchStrategy
from emofuse.sweep.trainers import Trainer

Say = Callable[[str], None]


@dataclass(frozen=True)
class SweepOptions:
    """The options of one call on one machine, which are part of no digest.

    Attributes:
        device: the device of training: `cpu`, `cuda`, `cuda:N` or `auto`.
        memory_bytes: the memory that training may use; by default a share of the device's.
        scheduler: the address of a running Dask scheduler, `tcp://...`, whose workers train the search; None for this
            process.
        images: whether the page of the report has thumbnails of samples; None for what the sweep says.
    """

    device: str = "auto"
    memory_bytes: int | None = None
    scheduler: str | None = None
    images: bool | None = None

    def shows_images(self, spec: SweepSpec) -> bool:
        """Return whether the page of the report of a sweep has thumbnails of samples."""
        return spec.report.images if self.images is None else self.images


DEFAULT_OPTIONS = SweepOptions()


@dataclass(frozen=True)
class SweepSummary:
    """The results of a sweep, and what this call has done.

    Attributes:
        scored: every configuration with its score, in the order of the search.
        trained: the number of heads that this call trained for the search.
        choice: the choice among the configurations.
        finals: the final runs of the finalists and fallbacks.
        table: the finalists and their scores, in Markdown.
        report: the files of the report.
        report_written: whether this call wrote the report.
        references: the runs of the reference models.
    """

    scored: tuple[ScoredConfiguration, ...]
    trained: int
    choice: Choice
    finals: FinalRuns
    table: str
    report: ReportFiles
    report_written: bool
    references: tuple[RunRecord, ...] = ()


MakeStrategy = Callable[[SweepSpec, Trainer, ResultsFolder], SearchStrategy]
"""Makes the strategy of a search."""


@dataclass(frozen=True)
class SearchPlan:
    """What a sweep tries that is not written as factors.

    Attributes:
        make: makes the strategy, in place of the one that the sweep names.
        kind: the kind of the search in the report.
        has_baseline: whether the best configuration with the baseline's streams is trained too.
    """

    make: MakeStrategy
    kind: SearchKind
    has_baseline: bool
