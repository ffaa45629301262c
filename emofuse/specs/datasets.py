"""The base of the specs of datasets, and the splits that a run can have.

`follow_links` of a dataset allows links in it that lead out of its root.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, PlainValidator, SerializeAsAny, model_validator

from emofuse.registry import Family
from emofuse.specs.base import ExtendedSpec, Spec
from emofuse.specs.faults import note_family
from emofuse.specs.kinds import kind_of_class, parse_by_kind

if TYPE_CHECKING:
    from emofuse.datasets.rows import Listing


class OfficialSplit(Spec):
    """The split that the dataset itself defines."""

    kind: Literal["official"] = "official"


class DrawnSplit(ExtendedSpec):
    """Base class of the splits that are drawn: they keep the groups of a dataset together.

    `grouped: false` parts groups (speakers, films): their rows are then in train, val and test at once.
    """

    added: ClassVar[frozenset[str]] = frozenset({"grouped"})
    grouped: bool = True


class StratifiedSplit(DrawnSplit):
    """A seeded random split that keeps the proportion of every label (the paper's is 70/20/10)."""

    kind: Literal["stratified"] = "stratified"
    train: float = Field(0.7, gt=0, lt=1)
    val: float = Field(0.2, gt=0, lt=1)
    test: float = Field(0.1, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, got {total:g}")
        return self


class HoldoutSplit(DrawnSplit):
    """The test rows of the dataset, with validation rows drawn from all other rows in proportion to the labels.

    It is for datasets with training and test rows alone (FER2013's folders, RAF-DB). If the dataset has validation
    rows, they join the training rows before the draw. `test: val` uses the dataset's validation rows as test rows, as
    papers do where the labels of the test rows are not published (AffectNet).
    """

    kind: Literal["holdout"] = "holdout"
    val: float = Field(0.1, gt=0, lt=1)
    test: Literal["test", "val"] = "test"
    seed: int = 0


class OuterFoldsSplit(DrawnSplit):
    """One split of an outer cross-validation: the rows of fold `index` are the test rows.

    All labelled rows of the dataset are dealt to `count` folds, in proportion to the labels, whatever its own split is.
    Over the `count` splits of one repeat, every row is tested exactly once. Validation rows are drawn from the rows
    that are not tested. Another `repeat` deals the rows anew, by the seed `seed + repeat`.
    """

    kind: Literal["outer_folds"] = "outer_folds"
    count: int = Field(5, ge=2)
    index: int = Field(0, ge=0)
    repeat: int = Field(0, ge=0)
    val: float = Field(0.2, gt=0, lt=1, description="the share of the rows that are not tested")
    seed: int = 0

    @model_validator(mode="after")
    def _index_is_of_a_fold(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"index: must be below the count of folds, got {self.index} of {self.count}")
        return self


class OuterTestSpec(Spec):
    """An outer cross-validation, which tests every row of a dataset once in each repeat (see `OuterFoldsSplit`).

    Attributes:
        folds: the number of folds.
        repeats: how often the rows are dealt to folds, with the seeds `seed`, `seed + 1`, and so on.
        seed: the first seed.
        val: the share of the rows that are not tested that become validation rows.
        grouped: whether groups of the dataset stay together.
    """

    folds: int = Field(5, ge=2)
    repeats: int = Field(1, ge=1)
    seed: int = 0
    val: float = Field(0.2, gt=0, lt=1)
    grouped: bool = True

    def splits(self) -> list[OuterFoldsSplit]:
        """Return the split of every fold of every repeat; the folds of a repeat are neighbours."""
        return [
            OuterFoldsSplit(
                count=self.folds, index=index, repeat=repeat, val=self.val, seed=self.seed, grouped=self.grouped
            )
            for repeat in range(self.repeats)
            for index in range(self.folds)
        ]

    def describe(self) -> str:
        """Return what the folds do to the split of a dataset, in one sentence."""
        return f"every row is tested once in {self}; the dataset's own split plays no part"

    def __str__(self) -> str:
        """Return how many folds there are, in words."""
        return f"{self.folds} outer folds" + (f", {self.repeats} times" if self.repeats > 1 else "")


DatasetSplitSpec = Annotated[OfficialSplit | StratifiedSplit | HoldoutSplit, Field(discriminator="kind")]
SplitSpec = Annotated[OfficialSplit | StratifiedSplit | HoldoutSplit | OuterFoldsSplit, Field(discriminator="kind")]


class DatasetSpecBase(Spec):
    """Base class of the specs of all datasets: a kind, its root, its parameters, and how it is read.

    Attributes:
        kind: the name of the kind, a `Literal` with one value.
        root: the folder of the dataset.
        ids_from_paths: whether sample ids are made from paths, so that a row of a cache is found again by its path.
    """

    ids_from_paths: ClassVar[bool] = False
    kind: str
    root: Path | None = None

    def read(self) -> Listing:
        """Return the rows with their paths, labels and splits, and their faults (see `emofuse.datasets.rows`).

        Raises:
            DatasetError: the dataset as a whole is missing or not what its kind demands.
        """
        raise NotImplementedError(f"{type(self).__name__}.read() must return what check_rows of a dataset gives")

    def look(self) -> Listing:
        """Return the rows as `read` does, but generate nothing: for commands that only look at a dataset."""
        return self.read()

    @property
    def generated_rows(self) -> int | None:
        """The number of rows that `read` generates if there is no dataset; None for a kind that generates nothing."""
        return None

    @property
    def is_to_be_generated(self) -> bool:
        """Whether the dataset is one that `read` generates, and is not there yet."""
        return self.generated_rows is not None and not (self.root and self.root.is_dir())


class CustomDatasetSpec(DatasetSpecBase):
    """Base class of the spec of a dataset of files below a root: it adds `follow_links` and `split` to the spec."""

    follow_links: bool = False
    split: DatasetSplitSpec = OfficialSplit()


def _own_datasets() -> Iterable[type[DatasetSpecBase]]:
    package = import_module("emofuse.datasets")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            yield from DATASETS.declared_in(import_module(f"emofuse.datasets.{module.name}"))


DATASETS: Family[type[DatasetSpecBase]] = Family(
    noun="dataset",
    group="emofuse.datasets",
    name_of=lambda value: kind_of_class(value, DatasetSpecBase),
    load_own=_own_datasets,
)
note_family(DatasetSpecBase, DATASETS)

DatasetSpec = Annotated[
    SerializeAsAny[DatasetSpecBase], PlainValidator(lambda value: parse_by_kind(DATASETS, DatasetSpecBase, value))
]
