"""The spec of a run: features, head, optimisation, split."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from emofuse.errors import did_you_mean
from emofuse.specs.base import ExtendedSpec, Spec
from emofuse.specs.datasets import OfficialSplit, SplitSpec
from emofuse.specs.head_kinds import EXACT_HEADS, ConcatHeadSpec
from emofuse.specs.heads import HeadSpec
from emofuse.specs.pca import PCA, pca_problem
from emofuse.specs.streams import Value, check_factors, factor_defaults, take_factors, variant_factors, variants_of
from emofuse.specs.target_options import target_problems
from emofuse.specs.targets import ClassTarget, TargetSpec
from emofuse.specs.train import TrainSpec


class FeaturesSpec(Spec):
    """The cached streams that a run reads, and their variants.

    `streams` is a list of names, or a mapping of names to variants: `{lbp: {bins: 128}, resnet50: {}}`. A variant of
    all streams of a kind may also be written by its factor beside `streams`: `lbp_bins: 128`.

    Every stream may have `pca`, `{resnet50: {pca: 0.95}}`: heads see the principal components that hold this share of
    the variance of the standardised features, or that number of them (see `emofuse.scaling.projection`).

    Attributes:
        streams: the names of streams of the cache.
        variants: stream -> name of a variant -> value, where it differs from `factors`.
        factors: factor -> value (see `emofuse.specs.streams.Variant`), for the factors of every run and those that are
            written.
    """

    streams: tuple[str, ...] = Field(min_length=1)
    variants: Mapping[str, Mapping[str, Value]] = Field(default_factory=dict)
    factors: Mapping[str, Value] = Field(default_factory=dict, validate_default=True)
    neutral_label: str | None = Field(
        None,
        description="the label of neutral faces, whose mean and deviation are the baseline of action units (with fewer "
        "than 3 faces, the deviation of all); median and MAD of all training faces unless given",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_written_forms(cls, data: Any) -> Any:
        """Move a mapping of streams, and the factors beside it, into the fields."""
        data = take_factors(data, "factors")
        if isinstance(data, Mapping) and isinstance(data.get("streams"), Mapping):
            chosen = {name: {} if choice is None else choice for name, choice in data["streams"].items()}
            data = {**data, "streams": tuple(chosen), "variants": {name: each for name, each in chosen.items() if each}}
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
        """Return the fields and the factors of variants."""
        return {*cls.model_fields, *variant_factors()} - {"factors", "variants"}

    @model_serializer(mode="plain")
    def _write(self) -> dict[str, Any]:
        """Write factors beside the streams, and streams with variants as a mapping."""
        streams: Any = list(self.streams)
        if self.variants:
            streams = {name: dict(self.variants.get(name, {})) for name in self.streams}
        return {"streams": streams, **self.factors, "neutral_label": self.neutral_label}


def variant_problems(features: FeaturesSpec, kinds: Mapping[str, str]) -> list[str]:
    """Return the faults of the variants of a run's streams, whose kinds are known now.

    Args:
        features: the features of the run.
        kinds: stream -> kind.
    """
    problems = []
    for stream, chosen in features.variants.items():
        known = {each.name: each for each in variants_of(kinds.get(stream, ""))}
        for name, value in chosen.items():
            if name == PCA:
                fault = pca_problem(value)
                problems += [f"{stream}.{name}: {fault}"] if fault else []
            elif name not in known:
                there = ", ".join((*known, PCA))
                hint = did_you_mean(name, (*known, PCA))
                problems.append(f"{stream}.{name}: no variant of a stream of this kind{hint} (there are: {there})")
            elif fault := known[name].check(value):
                problems.append(f"{stream}.{name}: {fault}")
    return [f"features.streams.{problem}" for problem in problems]


def settled(features: FeaturesSpec, kinds: Mapping[str, str]) -> FeaturesSpec:
    """Return the features with their variants in one form: by factors, where all streams of a kind agree."""
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


class FoldSpec(ExtendedSpec):
    """One fold of a cross-validation over the rows that are not in the test split.

    The rows of fold `index` choose the epoch, the other folds train. No fold contains test rows. `stratified` folds
    are `count` parts with equal proportions of the labels, drawn by `seed`; groups of the dataset stay together unless
    `grouped` is false. `leave_one_group_out` has a fold for each group, in the order of their names.
    """

    added: ClassVar[frozenset[str]] = frozenset({"kind", "grouped"})
    kind: Literal["stratified", "leave_one_group_out"] = "stratified"
    count: int = Field(5, ge=2)
    index: int = Field(0, ge=0)
    seed: int = 0
    grouped: bool = True

    @model_validator(mode="after")
    def _index_is_of_a_fold(self) -> Self:
        if self.kind == "leave_one_group_out":
            check_left_out(self, {"count", "seed", "grouped"})
        elif self.index >= self.count:
            raise ValueError(f"index: must be below the count of folds, got {self.index} of {self.count}")
        return self

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        if self.kind == "leave_one_group_out":
            return {"kind": self.kind, "index": self.index}
        return self.written(write(self))

    @property
    def partition(self) -> FoldSpec:
        """The cross-validation that the fold is of: equal for all its folds."""
        return self.model_copy(update={"index": 0})

    def __str__(self) -> str:
        """Return how many folds there are, in words."""
        return f"{self.count} folds" if self.kind == "stratified" else "a fold for each group"


def check_left_out(spec: Spec, fields: Collection[str]) -> None:
    """Raise ValueError if fields are given that leave-one-group-out has no use for."""
    given = sorted(name for name in spec.model_fields_set.intersection(fields) if getattr(spec, name) is not None)
    if given:
        raise ValueError(
            f"{' and '.join(given)}: leave_one_group_out has a fold for each group of the dataset, so leave this out"
        )


LARGEST_SEED = 999
"""The largest seed of an ensemble. Seed s of a run with training seed t is `t * (LARGEST_SEED + 1) + s`."""


class EnsembleSpec(Spec):
    """Several heads of one run, whose probabilities are averaged: one for each fold, each seed, or each pair of both.

    With `folds`, the training and validation rows are cut into folds as by `FoldSpec`, and each head learns from all
    folds but the one that chooses its epoch. The answer of the heads that did not learn from a row is its validation
    answer. With `seeds` alone, all heads learn from the training rows.

    Attributes:
        folds: the number of folds.
        seeds: the seeds of initial weights and dropout. They count from the training seed of the run, so that two
            repeats of the run have no head in common (see `LARGEST_SEED`).
        fold_seed: the seed by which rows are dealt to folds.
        grouped: whether groups of the dataset stay together in folds.
    """

    folds: int | None = Field(None, ge=2)
    seeds: tuple[int, ...] = ()
    fold_seed: int = 0
    grouped: bool = True

    @model_validator(mode="after")
    def _has_several_heads(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: a seed is given twice: {', '.join(map(str, self.seeds))}")
        if any(not 0 <= seed <= LARGEST_SEED for seed in self.seeds):
            raise ValueError(f"seeds: must be 0 to {LARGEST_SEED}, got {', '.join(map(str, self.seeds))}")
        if self.folds is None and len(self.seeds) < 2:
            raise ValueError("give a number of folds, or two seeds or more: an ensemble is the mean of several heads")
        return self


Refit = Literal["none", "train_val"]


def ensemble_problems(ensemble: EnsembleSpec | None, refit: Refit, heads: Sequence[str]) -> list[str]:
    """Return why heads of these kinds cannot be such an ensemble, or be trained again."""
    if ensemble is None:
        return []
    exact = [kind for kind in heads if kind in EXACT_HEADS]
    problems = []
    if ensemble.seeds and exact:
        problems.append(f"ensemble.seeds: a {exact[0]} head has no seed, its heads would be equal. Give folds")
    if ensemble.folds is not None and refit != "none":
        problems.append(
            "refit: the heads of an ensemble of folds have learned from all training and validation rows together; "
            "give either refit or ensemble.folds"
        )
    return problems


class RunSpec(ExtendedSpec):
    """One trained head: features, head, optimisation and split (`official` is the split of the manifest).

    `name` is the name of the configuration in tables; it is not part of the digest. With a `fold`, the training and
    validation rows of the split are cross-validated together. With an `ensemble`, the run is the mean of several heads.

    With `refit: train_val`, what was chosen on the validation rows (the epoch, or the penalty of a logistic head) is
    trained again on training and validation rows together. That head is tested and predicts; the validation scores are
    those of the first training. Kernel ridge regression chooses its penalty by leave-one-out on all these rows anew.

    `target` is what the head learns (see `emofuse.specs.targets`). `weight_column` is a column of the manifest with the
    weight of each row in the loss of training; scores count all rows alike.
    """

    added: ClassVar[frozenset[str]] = frozenset(
        ("ensemble", "refit", "reference", "target", "weight_column", "chosen_by")
    )
    name: str
    features: FeaturesSpec
    head: HeadSpec = ConcatHeadSpec()
    train: TrainSpec = TrainSpec()
    split: SplitSpec = OfficialSplit()
    fold: FoldSpec | None = None
    ensemble: EnsembleSpec | None = None
    refit: Refit = "none"
    reference: bool = Field(
        False,
        description="whether it is a reference model, which reports show apart from the configurations: never chosen, "
        "never the baseline, in no test",
    )
    target: TargetSpec = ClassTarget()
    weight_column: str | None = None
    chosen_by: str | None = Field(
        None,
        description="the nested sweep that chose the streams, the head and the options inside the run's outer fold; "
        "runs of one name and one such sweep are one configuration, although their options may differ",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = ensemble_problems(self.ensemble, self.refit, [self.head.kind])
        problems += target_problems(self.target, self.head, self.train)
        if self.ensemble is not None and self.ensemble.folds is not None and self.fold is not None:
            problems.append("ensemble.folds: a run has either one fold or an ensemble of folds, got both")
        if problems:
            raise ValueError(" | ".join(problems))
        return self

    def heads(self) -> tuple[RunSpec, ...]:
        """Return a run without ensemble and refit for each head; the folds of a seed are neighbours."""
        plain = self.model_copy(update={"ensemble": None, "refit": "none", "chosen_by": None})
        if self.ensemble is None:
            return (plain,)
        count, first = self.ensemble.folds, self.train.seed * (LARGEST_SEED + 1)
        seeds = [first + seed for seed in self.ensemble.seeds] or [self.train.seed]
        folds: list[FoldSpec | None] = [self.fold]
        if count is not None:
            dealt = FoldSpec(count=count, seed=self.ensemble.fold_seed, grouped=self.ensemble.grouped)
            folds = [dealt.model_copy(update={"index": index}) for index in range(count)]
        return tuple(
            plain.model_copy(update={"train": self.train.model_copy(update={"seed": seed}), "fold": fold})
            for seed in seeds
            for fold in folds
        )
