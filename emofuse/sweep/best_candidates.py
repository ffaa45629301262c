"""The candidates of `emofuse sweep best`: which subsets, heads and options are tried, and in which order.

    look      kernel ridge regression on every subset of the streams, with few landmarks
    exact     every exact head on the best subsets
    networks  heads that are trained, on the best subset and on all streams
    refine    changes of one option of the best network and of the best kernel

A stage begins with what is most likely to win, because the time may end within it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from emofuse.specs import (
    AttentionHeadSpec,
    AveragedLogisticHeadSpec,
    ClassTarget,
    ConcatHeadSpec,
    FeaturesSpec,
    HeadSpec,
    KernelRidgeHeadSpec,
    LateHeadSpec,
    LogisticHeadSpec,
    RunSpec,
    SplitSpec,
    TargetSpec,
    TrainSpec,
)
from emofuse.specs.head_kinds import EXACT_HEADS
from emofuse.specs.runs import settled
from emofuse.sweep.configurations import Configuration, StreamType

STAGES = ("look", "exact", "networks", "refine")
LOOK_LANDMARKS, LOOK_PENALTIES = 512, 13
"""A look needs the ranks of the subsets alone, so that it is coarse and takes a tenth of the time."""
LANDMARKS = 2048
ALL_SUBSETS_OF = 6
"""All subsets are looked at of at most this many streams; of more, one or two streams, all, and all but one."""

_FACTORS = (0.5, 2.0, 0.25, 4.0)
_MANY_ROWS = 3_000
_BEST_SUBSETS = 3
_LEARNING_RATES = (1e-3, 3e-4)
_DROPOUTS = (0.3, 0.5)
_CHANGES: tuple[dict[str, Any], ...] = (
    {"embed_dim": 256, "width": 512},
    {"dropout": 0.6},
    {"weight_decay": 0.1},
    {"label_smoothing": 0.0},
    {"schedule": "cosine", "warmup": 0.1},
    {"depth": 2},
    {"stream_dropout": 0.2},
    {"learning_rate": 3e-3},
    {"learning_rate": 1e-4},
)
"""The changes of one option that are tried on the best network."""
_OF_KERNELS = ("kernel", "factor", "landmarks", "penalties")
_OF_NETWORKS = ("embed_dim", "width", "depth", "dropout")
_OF_TRAINING = ("learning_rate", "weight_decay", "label_smoothing", "schedule", "stream_dropout", "class_weights")
"""The options that are settings of the candidates."""
_ADJUSTMENTS = (0.5, 0.25)
"""The logit adjustments of kernel ridge regression that are tried where rare classes count as much as frequent ones."""
_SIZES: dict[str, Any] = {"embed_dim": 128, "width": 256, "depth": 1}
_USUAL: dict[str, Any] = {
    **_SIZES,
    "weight_decay": 1e-2,
    "label_smoothing": 0.1,
    "schedule": "constant",
    "stream_dropout": 0.0,
    "class_weights": "none",
    "logit_adjustment": 0.0,
    "landmarks": KernelRidgeHeadSpec().landmarks,
    "penalties": KernelRidgeHeadSpec().penalties,
}
"""The values that names leave out."""


@dataclass(frozen=True)
class Ranked:
    """A configuration that was tried, with its score (larger is better)."""

    configuration: Configuration
    objective: float

    @property
    def run(self) -> RunSpec:
        """The run of the configuration."""
        return self.configuration.run

    @property
    def is_exact(self) -> bool:
        """Whether its head is solved and not trained."""
        return self.run.head.kind in EXACT_HEADS


@dataclass(frozen=True)
class Candidates:
    """The candidates for a cache and a split.

    Attributes:
        types: the type of every stream that may be used, in the cache's order.
        split: the split of all runs.
        rows: the number of training rows of a fold.
        target: what all runs learn.
        score: the score that compares candidates.
        weight_column: the column of the weights of rows in training; None for equal weights.
    """

    types: Mapping[str, StreamType]
    split: SplitSpec
    rows: int
    target: TargetSpec = field(default_factory=ClassTarget)
    score: str = "accuracy"
    weight_column: str | None = None

    def of_stage(self, stage: str, ranked: Sequence[Ranked]) -> list[Configuration]:
        """Return the candidates of a stage, the most promising first.

        Args:
            stage: one of `STAGES`.
            ranked: the configurations that were tried before, the best first.
        """
        match stage:
            case "look":
                coarse = self._kernel(1.0, LOOK_LANDMARKS).model_copy(update={"penalties": LOOK_PENALTIES})
                return [self.configuration(subset, coarse) for subset in self.subsets()]
            case "exact":
                best, *others = [*_best_subsets(ranked, _BEST_SUBSETS), self.vectors]
                return list(self._exact(list(dict.fromkeys([best, self.vectors, *others]))))
            case "networks":
                subsets = dict.fromkeys([*_best_subsets(ranked, 1), self.streams])
                return [candidate for subset in subsets for candidate in self._networks(subset)]
            case "refine":
                return list(self._refined(ranked))
        raise ValueError(f"no stage {stage!r}, expected one of {', '.join(STAGES)}")

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of all streams."""
        return tuple(self.types)

    @property
    def vectors(self) -> tuple[str, ...]:
        """The streams that exact heads take: vectors."""
        return tuple(name for name, each in self.types.items() if not each.is_sequence and not each.has_maps)

    def subsets(self) -> list[tuple[str, ...]]:
        """Return the subsets of vectors to look at: all, all but one, single ones, then the others, the largest first.

        Large subsets come first, because they usually win and the time may end.
        """
        names = self.vectors
        count = len(names)
        few = range(count - 2, 1, -1) if count <= ALL_SUBSETS_OF else (2,)
        sizes = [size for size in dict.fromkeys((count, count - 1, 1, *few)) if size > 0]
        return [subset for size in sizes for subset in combinations(names, size)]

    def _exact(self, subsets: Sequence[tuple[str, ...]]) -> Iterator[Configuration]:
        """Yield every exact head on subsets of vectors."""
        for subset in subsets:
            if not subset or not set(subset) <= set(self.vectors):
                continue
            for factor in (1.0, *_FACTORS):
                yield self.configuration(subset, self._kernel(factor, LANDMARKS))
            if self.target.kind != "regression":  # logistic regressions give probabilities
                if len(subset) > 1:
                    yield self.configuration(subset, AveragedLogisticHeadSpec())
                yield self.configuration(subset, LogisticHeadSpec())
            yield self.configuration(subset, self._kernel(1.0, LANDMARKS, "cosine"))
            yield self.configuration(subset, self._kernel(1.0, LANDMARKS, "linear"))

    def _networks(self, subset: tuple[str, ...]) -> Iterator[Configuration]:
        for dropout in _DROPOUTS:
            for rate in _LEARNING_RATES:
                train = self._train(learning_rate=rate)
                sizes = {**_SIZES, "dropout": dropout}
                yield self.configuration(subset, ConcatHeadSpec(**sizes), train)
                if len(subset) > 1:
                    yield self.configuration(subset, LateHeadSpec(**sizes), train)
                    yield self.configuration(subset, AttentionHeadSpec(**sizes), train)

    def _refined(self, ranked: Sequence[Ranked]) -> Iterator[Configuration]:
        kernel = next((each.run for each in ranked if isinstance(each.run.head, KernelRidgeHeadSpec)), None)
        network = next((each.run for each in ranked if not each.is_exact), None)
        if kernel is not None and isinstance(kernel.head, KernelRidgeHeadSpec):
            head, streams = kernel.head, kernel.features.streams
            if self.rows > head.landmarks:
                yield self.configuration(streams, self._kernel(head.factor, 2 * LANDMARKS, head.kernel))
            if self.favours_rare_classes:
                for tau in _ADJUSTMENTS:
                    fine = self._kernel(head.factor, LANDMARKS, head.kernel)
                    yield self.configuration(streams, fine, TrainSpec(logit_adjustment=tau))
            if head.kernel == "rbf":
                for times in (1 / math.sqrt(2), math.sqrt(2)):
                    yield self.configuration(streams, self._kernel(round(head.factor * times, 3), LANDMARKS))
        if network is not None:
            for change in (*([{"class_weights": "balanced"}] if self.favours_rare_classes else []), *_CHANGES):
                if len(network.features.streams) == 1 and "stream_dropout" in change:
                    continue
                if "label_smoothing" in change and not self._smooths:
                    continue
                of_train = {name: value for name, value in change.items() if name in TrainSpec.model_fields}
                head_fields = {name: value for name, value in change.items() if name not in of_train}
                yield self.configuration(
                    network.features.streams,
                    network.head.model_copy(update=head_fields),
                    network.train.model_copy(update=of_train),
                )

    def _kernel(self, factor: float, landmarks: int, kernel: Any = "rbf") -> KernelRidgeHeadSpec:
        """Return a kernel head; where every row is a landmark, their number is the default: equal heads are equal."""
        if landmarks >= self.rows:
            landmarks = KernelRidgeHeadSpec().landmarks
        return KernelRidgeHeadSpec(kernel=kernel, factor=factor, landmarks=landmarks)

    @property
    def favours_rare_classes(self) -> bool:
        """Whether rare classes count as much as frequent ones in the score, so that options for them are tried."""
        return self.target.kind == "class" and self.score == "macro_f1"

    @property
    def _smooths(self) -> bool:
        """Whether the loss of the target has label smoothing."""
        return self.target.kind in {"class", "distribution"}

    def _train(self, *, learning_rate: float) -> TrainSpec:
        many = self.rows > _MANY_ROWS
        return TrainSpec(
            epochs=30 if many else 60,
            batch_size=128 if many else 64,
            learning_rate=learning_rate,
            weight_decay=_USUAL["weight_decay"],
            label_smoothing=_USUAL["label_smoothing"] if self._smooths else 0.0,
            optimizer="adamw",
            patience=10,
        )

    def configuration(self, streams: Sequence[str], head: HeadSpec, train: TrainSpec | None = None) -> Configuration:
        """Return a candidate; its settings are what differs between candidates."""
        train = train or TrainSpec()
        kinds = {name: self.types[name].kind for name in streams}
        settings: dict[str, Any] = {"streams": list(streams), "head": head.kind}
        if isinstance(head, KernelRidgeHeadSpec):
            settings |= {name: getattr(head, name) for name in _OF_KERNELS}
            settings["logit_adjustment"] = train.logit_adjustment
        elif head.kind not in EXACT_HEADS:
            settings |= {name: getattr(head, name) for name in _OF_NETWORKS}
            of_training = (name for name in _OF_TRAINING if name != "label_smoothing" or self._smooths)
            settings |= {name: getattr(train, name) for name in of_training}
        run = RunSpec(
            name=_name(settings),
            features=settled(FeaturesSpec(streams=tuple(streams)), kinds),
            head=head,
            train=train,
            split=self.split,
            target=self.target,
            weight_column=self.weight_column,
        )
        return Configuration(run.name, settings, run)


def _best_subsets(ranked: Sequence[Ranked], count: int) -> list[tuple[str, ...]]:
    """Return the subsets of the best configurations, the best first."""
    return list(dict.fromkeys(each.run.features.streams for each in ranked))[:count]


def _name(settings: Mapping[str, Any]) -> str:
    """Return text such as `lbp+resnet50, kernel_ridge, kernel rbf, factor 0.5`, without what most candidates have."""
    rest = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
        if name not in {"streams", "head"} and _USUAL.get(name) != value
    ]
    return ", ".join(["+".join(settings["streams"]), settings["head"], *rest])
