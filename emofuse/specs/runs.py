"""What is trained: features, head, optimisation, split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_serializer, model_validator

from emofuse.errors import did_you_mean
from emofuse.specs.base import Spec
from emofuse.specs.datasets import OfficialSplit, SplitSpec
from emofuse.specs.head_kinds import ConcatHeadSpec
from emofuse.specs.heads import HeadSpec
from emofuse.specs.streams import Value, check_factors, factor_defaults, take_factors, variant_factors, variants_of


class FeaturesSpec(Spec):
    """Which cached streams a run reads and what is derived from them when they are read.

    `streams` is a list of names, or a mapping of names to variants: `{lbp: {bins: 128}, resnet50: {}}`. A variant of
    all streams of a kind may also be given by its factor beside `streams`: `lbp_bins: 128`.

    Attributes:
        streams: names of streams of the cache.
        variants: stream -> name of a variant -> value, for what differs from `factors`.
        factors: factor -> value, see `emofuse.specs.streams.Variant`; those in every run, and those that are given.
    """

    streams: tuple[str, ...] = Field(min_length=1)
    variants: Mapping[str, Mapping[str, Value]] = Field(default_factory=dict)
    factors: Mapping[str, Value] = Field(default_factory=dict, validate_default=True)
    neutral_label: str | None = Field(
        None,
        description="FAU baseline: mean and deviation of this label's training faces (with fewer than 3, the deviation "
        "of all); else median and MAD of all",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_written_forms(cls, data: Any) -> Any:
        """A mapping of streams, and factors beside them, to the fields."""
        data = take_factors(data, "factors")
        if isinstance(data, Mapping) and isinstance(data.get("streams"), Mapping):
            given = {name: {} if choice is None else choice for name, choice in data["streams"].items()}
            data = {**data, "streams": tuple(given), "variants": {name: each for name, each in given.items() if each}}
        return data

    @field_validator("factors", mode="after")
    @classmethod
    def _factors_are_known(cls, factors: Mapping[str, Value]) -> Mapping[str, Value]:
        check_factors(factors)
        return {**factor_defaults(), **factors}

    @model_validator(mode="after")
    def _streams_are_unique(self) -> Self:
        if len(set(self.streams)) != len(self.streams):
            raise ValueError(f"a stream is named twice: {', '.join(self.streams)}")
        return self

    @classmethod
    def written_keys(cls) -> set[str]:
        """Streams, the factors of variants, and the rest."""
        return {*cls.model_fields, *variant_factors()} - {"factors", "variants"}

    @model_serializer(mode="plain")
    def _write(self) -> dict[str, Any]:
        """As it may be written: factors beside the streams, and streams with variants of their own as a mapping."""
        streams: Any = list(self.streams)
        if self.variants:
            streams = {name: dict(self.variants.get(name, {})) for name in self.streams}
        return {"streams": streams, **self.factors, "neutral_label": self.neutral_label}


def variant_problems(features: FeaturesSpec, kinds: Mapping[str, str]) -> list[str]:
    """What is wrong with the variants of streams, once their kinds are known.

    Args:
        features: of a run.
        kinds: stream -> kind.
    """
    problems = []
    for stream, chosen in features.variants.items():
        known = {each.name: each for each in variants_of(kinds.get(stream, ""))}
        for name, value in chosen.items():
            if name not in known:
                there = ", ".join(known) or "none"
                hint = did_you_mean(name, known)
                problems.append(f"{stream}.{name}: no variant of a stream of this kind{hint} (there are: {there})")
            elif fault := known[name].check(value):
                problems.append(f"{stream}.{name}: {fault}")
    return [f"features.streams.{problem}" for problem in problems]


def settled(features: FeaturesSpec, kinds: Mapping[str, str]) -> FeaturesSpec:
    """The same choice of variants in one form, however it was written: by factors, where streams of a kind agree."""
    factors, variants = dict(features.factors), dict(features.variants)
    for kind in {kinds[stream] for stream in features.streams}:
        alike = [stream for stream in features.streams if kinds[stream] == kind]
        for each in variants_of(kind):
            here = each.factor
            values = {variants.get(name, {}).get(each.name, factors.get(here, each.default)) for name in alike}
            if len(values) > 1:
                continue
            (value,) = values
            factors[here] = value
            if value == each.default and each.place_in_every_run is None:
                del factors[here]
            for name in alike:
                variants[name] = {key: rest for key, rest in variants.get(name, {}).items() if key != each.name}
    rest = {name: each for name, each in variants.items() if each}
    return features.model_copy(update={"factors": factors, "variants": rest})


def _on_and_off(value: Any) -> Any:
    """YAML takes a bare `on` or `off` for true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Balancing = Annotated[Literal["off", "monitor", "on"], BeforeValidator(_on_and_off)]


class TrainSpec(Spec):
    """Optimisation. The defaults are the paper's: Adam, 1e-4, 100 epochs, batch 64, cross-entropy.

    The epoch kept is the best one on validation rows by `select`; `patience` epochs without a better one end the run.
    `seed` is of the initial weights and of the dropout, `order_seed` of the order of rows: runs with one order are
    compared batch by batch, and train together.

    `gradient_balancing`: `on` scales the learning rate of every stream's branch so that no stream dominates, `monitor`
    only records the norms of their gradients (see `emofuse.training.balancing`).

    `views`: every epoch each training row shows one of its first so many cached views, drawn by the order seed;
    validation and test rows always show view 0, the picture itself.
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
    order_seed: int = 0
    gradient_balancing: Balancing = "off"
    views: int = Field(1, ge=1)


class FoldSpec(Spec):
    """One fold of a stratified cross-validation over the rows that are not in the test split.

    Fold `index` of `count` chooses the epoch, the others train. Test rows are in no fold.
    """

    count: int = Field(5, ge=2)
    index: int = Field(0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _index_is_of_a_fold(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"index: must be below the count of folds, got {self.index} of {self.count}")
        return self


class RunSpec(Spec):
    """One trained head: features, head, optimisation and split (`official` = the manifest's own).

    `name` is what tables call the configuration; it is no part of the digest. With a `fold`, the split's training and
    validation rows together are cross-validated.
    """

    name: str
    features: FeaturesSpec
    head: HeadSpec = ConcatHeadSpec()
    train: TrainSpec = TrainSpec()
    split: SplitSpec = OfficialSplit()
    fold: FoldSpec | None = None
