"""Runs that are not finished: their heads, the groups in which these train, and which of them are trained already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emofuse.specs import RunSpec
from emofuse.training.data import TrainingData
from emofuse.training.kept_heads import KeptHead, KeptHeads
from emofuse.training.members import MemberResult
from emofuse.training.refits import RefitRun
from emofuse.training.together import Trained, trained_of
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
        memory_bytes: the memory that they take, with their features.
    """

    data: TrainingData
    heads: Sequence[HeadInTraining]
    seconds: float
    refit_seconds: float
    memory_bytes: int


class RunInTraining:
    """The heads of a run that are trained so far; they may be in several groups.

    Args:
        run: the run.
        kept: the heads that an interrupted call has kept on disk.
    """

    def __init__(self, run: IdentifiedRun, kept: KeptHeads) -> None:
        self.run = run
        self._heads = run.spec.heads()
        self._kept = kept
        self._first: dict[int, Trained] = {}
        self._second: dict[int, Trained] = {}
        self._on_disk: set[str] = set()
        self._take_up()

    def _take_up(self) -> None:
        """Read the heads that are kept on disk, and second trainings of those alone."""
        for number, spec in enumerate(self._heads):
            first = self._read(_name(number, is_refit=False), spec)
            if first is None:
                continue
            self._first[number] = first
            second = RefitRun.of(spec, first.result) if self.run.refits else None
            trained = None if second is None else self._read(_name(number, is_refit=True), second)
            if trained is not None:
                self._second[number] = trained

    def _read(self, name: str, spec: RunSpec) -> Trained | None:
        head = self._kept.read(self.run.digest, name) if self._count > 1 else None
        if head is None:
            return None
        self._on_disk.add(name)
        return trained_of(self.run.data, spec, head.result, head.seconds)

    @property
    def _count(self) -> int:
        """The number of trainings."""
        return len(self._heads) * (2 if self.run.refits else 1)

    def missing(self) -> list[HeadInTraining]:
        """Return the trainings that can begin: those of new heads, and the second ones of trained heads."""
        missing = []
        for number, spec in enumerate(self._heads):
            first = self._first.get(number)
            if first is None:
                missing.append(HeadInTraining(self.run, spec))
            elif self.run.refits and number not in self._second:
                missing.append(HeadInTraining(self.run, RefitRun.of(spec, first.result)))
        return missing

    def add(self, trained: Trained, *, is_refit: bool) -> None:
        """Add a trained head."""
        (self._second if is_refit else self._first)[self._number(trained)] = trained

    def keep(self) -> None:
        """Write the heads that are trained to the disk, where a run lacks others."""
        for is_refit, part in ((False, self._first), (True, self._second)):
            for number, trained in part.items():
                name = _name(number, is_refit=is_refit)
                if name not in self._on_disk:
                    self._kept.write(self.run.digest, name, KeptHead(trained.result, trained.seconds))
                    self._on_disk.add(name)

    @property
    def is_complete(self) -> bool:
        """Whether all heads are trained."""
        return len(self._first) + len(self._second) == self._count

    def trained_run(self) -> TrainedRun:
        """Return the run with its heads in the order of `RunSpec.heads`."""
        first, second = (tuple(part[number] for number in sorted(part)) for part in (self._first, self._second))
        return TrainedRun(self.run.spec, first, second)

    def _number(self, trained: Trained) -> int:
        """Return the place of a head in `RunSpec.heads`."""
        keys = [(head.train.seed, head.fold) for head in self._heads]
        return keys.index((trained.spec.train.seed, trained.spec.fold))


def _name(number: int, *, is_refit: bool) -> str:
    """Return the name of a training within its run."""
    return f"{'refit' if is_refit else 'head'}-{number}"
