"""The spec of a sweep: factors and their values, the search, the choice, and the final runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from emofuse.errors import did_you_mean
from emofuse.specs.base import ExtendedSpec, Spec
from emofuse.specs.compared import Pairs, pair_problems
from emofuse.specs.datasets import OfficialSplit, OuterTestSpec, SplitSpec
from emofuse.specs.factors import Factors, Range, factor_names, list_of_one, plain_text
from emofuse.specs.faults import SEPARATOR, describe_faults
from emofuse.specs.head_kinds import ConcatHeadSpec
from emofuse.specs.heads import HeadSpec
from emofuse.specs.pca import PCA
from emofuse.specs.reports import ReportSpec
from emofuse.specs.runs import EnsembleSpec, FoldSpec, Refit, check_left_out, ensemble_problems
from emofuse.specs.streams import Value, check_factors, factor_defaults, take_factors, variant_factors
from emofuse.specs.target_options import MAIN_SCORES, Score, score_problem, target_problems
from emofuse.specs.targets import ClassTarget, TargetSpec
from emofuse.specs.train import OnOff, TrainSpec

Metric = Score


class BaseRun(ExtendedSpec):
    """The values that all runs of a sweep share where no factor differs. Variants are written by their factors."""

    added: ClassVar[frozenset[str]] = frozenset({"target", "weight_column"})
    variants: Mapping[str, Value] = Field(default_factory=dict, validate_default=True)
    neutral_label: str | None = None
    head: HeadSpec = ConcatHeadSpec()
    train: TrainSpec = TrainSpec()
    split: SplitSpec = OfficialSplit()
    target: TargetSpec = ClassTarget()
    weight_column: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_variants(cls, data: Any) -> Any:
        return take_factors(data, "variants")

    @field_validator("variants", mode="after")
    @classmethod
    def _variants_are_known(cls, variants: Mapping[str, Value]) -> Mapping[str, Value]:
        check_factors(variants)
        return {**factor_defaults(), **variants}

    @classmethod
    def written_keys(cls) -> set[str]:
        """Return the fields and the factors of variants."""
        return {*cls.model_fields, *variant_factors()} - {"variants"}


class GridSearch(Spec):
    """Every combination of the factors."""

    kind: Literal["grid"] = "grid"


class RandomSearch(Spec):
    """A number of combinations, drawn evenly and without repetition."""

    kind: Literal["random"] = "random"
    trials: int = Field(ge=1)
    seed: int = 0


class TpeSearch(Spec):
    """Optuna's tree-structured Parzen estimator, which proposes `batch` configurations that train together."""

    kind: Literal["tpe"] = "tpe"
    trials: int = Field(ge=1)
    batch: int = Field(16, ge=1)
    startup: int = Field(32, ge=1, description="combinations that are drawn evenly before the estimator decides")
    seed: int = 0


SearchSpec = Annotated[GridSearch | RandomSearch | TpeSearch, Discriminator("kind")]


class HalvingSpec(Spec):
    """Successive halving (Jamieson and Talwalkar, AISTATS 2016) among configurations that train together.

    After `first_epochs` epochs, and after each `factor` times as many, the best 1 / `factor` of a bracket continues. A
    bracket is `bracket` configurations of equal shape, in the order of the search. All folds and seeds of a
    configuration continue or end together.
    """

    first_epochs: int = Field(3, ge=1)
    factor: int = Field(3, ge=2)
    bracket: int = Field(27, ge=2)


class CrossValidation(ExtendedSpec):
    """The cross-validation of every configuration, which is trained once for each fold (see `FoldSpec`).

    Stratified folds are drawn `repeats` times, with the seeds `seed`, `seed + 1`, and so on. In `leave_one_group_out`,
    the sweep takes as many folds as the cache has groups.
    """

    added: ClassVar[frozenset[str]] = frozenset({"kind", "repeats", "grouped"})
    kind: Literal["stratified", "leave_one_group_out"] = "stratified"
    count: int = Field(5, ge=2)
    repeats: int = Field(1, ge=1)
    seed: int = 0
    grouped: bool = True

    @model_validator(mode="after")
    def _leaves_out(self) -> Self:
        if self.kind == "leave_one_group_out":
            check_left_out(self, {"count", "repeats", "seed", "grouped"})
        return self

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        if self.kind == "leave_one_group_out":
            return {"kind": self.kind}
        return self.written(write(self))

    def with_groups(self, groups: int) -> CrossValidation:
        """Return the cross-validation with as many folds as there are groups, where one of them is left out."""
        return self.model_copy(update={"count": groups}) if self.kind == "leave_one_group_out" else self

    def each(self) -> list[FoldSpec]:
        """Return all folds of all repeats."""
        if self.kind == "leave_one_group_out":
            return [FoldSpec(kind=self.kind, index=index) for index in range(self.count)]
        return [
            FoldSpec(count=self.count, index=index, seed=self.seed + repeat, grouped=self.grouped)
            for repeat in range(self.repeats)
            for index in range(self.count)
        ]

    def __str__(self) -> str:
        """Return how many folds there are, in words."""
        repeated = f", {self.repeats} times" if self.repeats > 1 else ""
        return f"{self.count} folds{repeated}"


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"a seed is given twice: {plain_text(seeds)}")
    return seeds


Names = Annotated[tuple[str, ...], BeforeValidator(list_of_one)]
Seeds = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_different), BeforeValidator(list_of_one)]


class FinalSpec(Spec):
    """The final runs: trained on the split's training rows and scored on its test rows once, after the choice.

    They are the best configuration for each value of the factors `best_of`; () means the single best of all. With an
    `ensemble` each of them is the mean of several heads, with `refit` it is trained again on train and val (see
    `RunSpec`); the search trains single heads.
    """

    best_of: Names = ("streams",)
    seeds: Seeds = (0,)
    ensemble: EnsembleSpec | None = None
    refit: Refit = "none"

    @model_validator(mode="after")
    def _are_factors(self) -> Self:
        known = factor_names()
        unknown = [f"{name!r}{did_you_mean(name, known)}" for name in self.best_of if name not in known]
        if unknown:
            raise ValueError(f"best_of: not a factor: {' and '.join(unknown)} (there are: {', '.join(known)})")
        return self


class SweepSpec(Spec):
    """A sweep over a cache: `emofuse sweep NAME` reads one from `pipelines/NAME.yaml`.

    `pipeline` names the pipeline whose dataset and cache are used unless the command line names a cache. `select` is
    the validation score that compares configurations: the mean over folds and seeds. Unless given it is macro F1, of
    numbers `ccc` and of several labels `map`. `baseline` is the set of streams that others are tested against on the
    test rows; the first of the factor `streams` unless given. With `references`, the report shows beneath the final
    runs what logistic and kernel ridge regressions score.

    With `test` the sweep is nested: the search and the choice are repeated inside every outer fold, on the rows that
    are not tested there, and the final runs are scored on the rows of the fold. The dataset's own split plays no part.
    """

    name: str
    title: str = ""
    pipeline: str | None = None
    base: BaseRun = Field(default_factory=BaseRun)
    factors: Factors = Field(default_factory=Factors)
    search: SearchSpec = GridSearch()
    halving: HalvingSpec | None = None
    folds: CrossValidation | None = None
    seeds: Seeds = (0,)
    select: Metric = "macro_f1"
    final: FinalSpec = Field(default_factory=FinalSpec)
    baseline: Names = ()
    compare: Pairs = Field(
        (),
        description="pairs of configurations to compare beside those with the baseline, each by settings in its name: "
        "[[lbp+resnet50, resnet50], ...]",
    )
    references: OnOff = Field(
        "on", description="whether reference models are solved on the same features and rows, for the report"
    )
    test: OuterTestSpec | None = Field(
        None, description="outer folds, inside each of which the whole search is repeated, so that every row is tested"
    )
    report: ReportSpec = ReportSpec()

    @model_validator(mode="before")
    @classmethod
    def _read_short_forms(cls, data: Any) -> Any:
        """Read the short forms `search: grid` and `folds: 5`."""
        if isinstance(data, dict) and isinstance(data.get("search"), str):
            data = {**data, "search": {"kind": data["search"]}}
        if isinstance(data, dict) and isinstance(data.get("folds"), int):
            data = {**data, "folds": {"count": data["folds"]}}
        if isinstance(data, dict) and "select" not in data and (kind := _kind_of_target(data.get("base"))):
            data = {**data, "select": MAIN_SCORES[kind]}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = factor_problems(self.base, self.factors) or problems_of_targets(self.base, self.factors)
        if fault := score_problem(self.base.target, self.select):
            problems.append(f"select: {fault}")
        ranges = self.factors.ranges()
        if self.search.kind == "grid":
            problems += [f"factors.{n}: a grid needs values, a range is for a random or tpe search" for n in ranges]
        on_range = [name for name in self.final.best_of if name in ranges]
        problems += [f"final.best_of: {name} is a range, there is no best of each of its values" for name in on_range]
        if len(set(self.baseline)) < len(self.baseline):
            problems.append(f"baseline: {plain_text(self.baseline)} names a stream twice")
        problems += pair_problems(self.compare)
        heads = [head.kind for head in self.factors.head or (self.base.head,)]
        problems += [f"final.{fault}" for fault in ensemble_problems(self.final.ensemble, self.final.refit, heads)]
        if self.test is not None:
            problems += _contradictions_of_test(self.base, self.compare)
        if self.halving and self.search.kind == "tpe":
            problems.append("halving: a tpe search learns from whole trainings, use it with a grid or random search")
        if self.halving and self.folds and self.folds.repeats > 1:
            problems.append("halving: compares configurations on the same folds, so `folds.repeats` must be 1")
        if self.halving and self.halving.first_epochs >= self.base.train.epochs:
            problems.append("halving.first_epochs: must be below base.train.epochs, or nothing is ever halved")
        if problems:
            raise ValueError(SEPARATOR.join(problems))
        return self


def _contradictions_of_test(base: BaseRun, compare: Pairs) -> list[str]:
    """Return what contradicts the outer folds of a nested sweep."""
    problems = []
    if base.split.kind != "official":
        problems.append(f"base.split: `test` decides the split, so leave it out ({base.split.kind} here)")
    if compare:
        problems.append("compare: a nested sweep has other configurations in each outer fold; compare by `baseline`")
    return problems


def factor_problems(base: BaseRun, factors: Factors) -> list[str]:
    """Return the values of factors that no run can have, by trying each on the heads and on the optimisation."""
    heads: Sequence[Spec] = factors.head or (base.head,)
    problems = []
    for name, listed in factors.named():
        if name in {"streams", "head", PCA} or name in factors.variants:
            continue
        owners = [base.train] if name in TrainSpec.model_fields else [h for h in heads if name in type(h).model_fields]
        if not owners:
            kinds = " and ".join(dict.fromkeys(getattr(head, "kind", "") for head in heads))
            problems.append(f"factors.{name}: there is no {name} in a head of kind {kinds}")
        values = (listed.low, listed.high) if isinstance(listed, Range) else listed
        faults = [fault for value in values for owner in owners for fault in _faults_with(owner, name, value)]
        problems += [f"factors.{name}: {fault}" for fault in dict.fromkeys(faults)]
    return problems


def problems_of_targets(base: BaseRun, factors: Factors) -> list[str]:
    """Return why some head, or some value of an option, cannot learn the target of the runs."""
    problems = [
        fault for head in factors.head or (base.head,) for fault in target_problems(base.target, head, base.train)
    ]
    for name, listed in factors.named():
        if name in TrainSpec.model_fields and not isinstance(listed, Range):
            trains = (base.train.model_copy(update={name: value}) for value in listed)
            problems += [fault for train in trains for fault in target_problems(base.target, base.head, train)]
    return list(dict.fromkeys(problems))


def _kind_of_target(base: Any) -> str | None:
    """Return the kind of the target of a base run, as it is written or read; None if none can be seen."""
    target = base.get("target") if isinstance(base, Mapping) else getattr(base, "target", None)
    kind = target.get("kind") if isinstance(target, Mapping) else getattr(target, "kind", None)
    return kind if kind in MAIN_SCORES else None


def _faults_with(owner: Spec, name: str, value: Any) -> list[str]:
    """Return the faults of a spec in which one field has another value."""
    data = {**owner.model_dump(), name: value}
    try:
        type(owner).model_validate(data)
    except ValidationError as error:
        kind = "" if isinstance(owner, TrainSpec) else f" (head {data['kind']})"
        return [f"{fault.removeprefix(f'{name}: ')}{kind}" for fault in describe_faults(error, data, type(owner))]
    return []
