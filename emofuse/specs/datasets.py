"""Which images, labels and splits.

`follow_links` of a dataset says that links in it may lead out of its root: they are the user's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emofuse.specs.base import Spec


class OfficialSplit(Spec):
    """The split that the dataset itself defines."""

    kind: Literal["official"] = "official"


class StratifiedSplit(Spec):
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


SplitSpec = Annotated[OfficialSplit | StratifiedSplit, Field(discriminator="kind")]


class EmoSetSpec(Spec):
    """EmoSet as released: `info.json`, `train.json`, `val.json`, `test.json`, `image/`, `annotation/`."""

    kind: Literal["emoset"] = "emoset"
    root: Path | None = None
    follow_links: bool = False
    split: SplitSpec = OfficialSplit()


class FolderSpec(Spec):
    """`root/<label>/*.jpg`, or `root/<train|val|test>/<label>/*.jpg`."""

    kind: Literal["folder"] = "folder"
    root: Path | None = None
    follow_links: bool = False
    split: SplitSpec = OfficialSplit()


class CsvSpec(Spec):
    """A table with a path column, a label column and, if there is one, a split column. Paths are relative to `root`."""

    kind: Literal["csv"] = "csv"
    root: Path | None = None
    follow_links: bool = False
    table: Path = Path("labels.csv")
    path_column: str = "path"
    label_column: str = "label"
    split_column: str | None = None
    image_dir: Path = Path()
    split: SplitSpec = OfficialSplit()


class DemoSpec(Spec):
    """A generated dataset in EmoSet's layout for machines without data; see `emofuse.datasets.demo`."""

    kind: Literal["demo"] = "demo"
    root: Path | None = None
    images: int = Field(640, ge=24)
    seed: int = Field(0, ge=0)


DatasetSpec = Annotated[EmoSetSpec | FolderSpec | CsvSpec | DemoSpec, Field(discriminator="kind")]
