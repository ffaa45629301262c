"""What is trained: features, head, optimisation, split."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from emofuse.specs.base import Spec
from emofuse.specs.datasets import OfficialSplit, SplitSpec


class FeaturesSpec(Spec):
    """Which cached streams a run reads and what is derived from them when they are read."""

    streams: tuple[str, ...] = Field(min_length=1)
    lbp_bins: Literal[128, 256, 512] = 256
    action_units: Literal[15, 20, 25, 30] = 25
    neutral_label: str | None = Field(
        None, description="FAU baseline: mean and deviation of this label's training faces; else median and MAD of all"
    )

    @model_validator(mode="after")
    def _streams_are_unique(self) -> Self:
        if len(set(self.streams)) != len(self.streams):
            raise ValueError(f"a stream is named twice: {', '.join(self.streams)}")
        return self


class ConcatHeadSpec(Spec):
    """The paper's head: each stream projected and batch-normalised, concatenated, hidden layers with ReLU, softmax."""

    kind: Literal["concat"] = "concat"
    embed_dim: int = Field(512, ge=1)
    depth: int = Field(2, ge=0, le=8)
    width: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


HeadSpec = ConcatHeadSpec


class TrainSpec(Spec):
    """Optimisation. The defaults are the paper's: Adam, 1e-4, 100 epochs, batch 64, cross-entropy.

    The epoch kept is the best one on validation rows by `select`; `patience` epochs without a better one end the run.
    """

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    optimizer: Literal["adam", "adamw"] = "adam"
    select: Literal["macro_f1", "accuracy", "loss"] = "macro_f1"
    patience: int | None = Field(None, ge=1)
    seed: int = 0


class RunSpec(Spec):
    """One trained head: features, head, optimisation and split (`official` = the manifest's own).

    `name` is what tables call the configuration; it is no part of the digest.
    """

    name: str
    features: FeaturesSpec
    head: HeadSpec = ConcatHeadSpec()
    train: TrainSpec = TrainSpec()
    split: SplitSpec = OfficialSplit()
