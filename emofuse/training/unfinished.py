"""Runs that are not finished: their heads, the groups in which these train, and which of them are trained already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emofuse.specs import RunSpec
from emofuse.training.data import TrainingData
from emofuse.training.members import MemberResult
from emofuse.training.refits import RefitRun
from emofuse.training.together import Trained
from emofuse.training.trained_runs import TrainedRun


@dataclass(frozen=True)
class IdentifiedRun:
    """A run, the rows of its split, and its digest with all targets."""

    index: int
    spec: RunSpec
    data: TrainingData
    digest: str

    @property
    def refits(self) -> bool:
        """Whether its heads are trained a second time."""
        return self.spec.refit != "none"


@dataclass
class HeadInTraining:
    """One training of one head of a run.

    Attributes:
        run: the run.
        spec: the head as a run of its own (`RunSpec.heads`), or its second training.
        result: the result, once it is trained.
    """

    run: IdentifiedRun
    spec: RunSpec
    result: MemberResult | None = None

    @property
    def is_refit(self) -> bool:
        """Whether this is the second training."""
        return isinstance(self.spec, RefitRun)

    @property
    def train_rows(self) -> int:
        """The number of rows that it learns from in an epoch."""
        return len(self.run.data.folds(self.spec)[self.spec.fold.index if self.spec.fold else 0].train)


@dataclass(frozen=True)
class HeadsOfGroup:
    """Heads that train at the same time.

    Attributes:
        data: of their split.
        heads: the heads, all in their first or all in their second training.
        seconds: the estimated time.
        refit_seconds: the estimated time of the second trainings that follow.
    """

    data: TrainingData
    heads: Sequence[HeadInTraining]
    seconds: float
    refit_seconds: float


class RunInTraining:
    """The heads of a run that are trained so far; they may be in several groups.

    Args:
        run: the run.
        heads: the number of its heads.
    """

    def __init__(self, run: IdentifiedRun, heads: int) -> None:
        self.run = run
        self._count = heads * (2 if run.refits else 1)
        self._first: list[Trained] = []
        self._second: list[Trained] = []

    def add(self, trained: Trained, *, is_refit: bool) -> None:
        """Add a trained head."""
        (self._second if is_refit else self._first).append(trained)

    @property
    def is_complete(self) -> bool:
        """Whether all heads are trained."""
        return len(self._first) + len(self._second) == self._count

    def trained_run(self) -> TrainedRun:
        """Return the run with its heads in the order of `RunSpec.heads`."""
        order = [(head.train.seed, head.fold) for head in self.run.spec.heads()]

        def place(trained: Trained) -> int:
            return order.index((trained.spec.train.seed, trained.spec.fold))

        return TrainedRun(self.run.spec, tuple(sorted(self._first, key=place)), tuple(sorted(self._second, key=place)))
