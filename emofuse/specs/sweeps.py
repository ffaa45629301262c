"""What a sweep asks: factors and their values, how they are searched, how it is chosen, what is scored at the end."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, model_validator

from emofuse.specs.base import Spec
from emofuse.specs.datasets import OfficialSplit, SplitSpec
from emofuse.specs.runs import ConcatHeadSpec, HeadSpec, TrainSpec

Metric = Literal["macro_f1", "accuracy", "loss"]
StreamSet = Annotated[tuple[str, ...], Field(min_length=1)]


class Range(Spec):
    """All numbers from `low` to `high`, on a logarithmic scale if `log`: for a search that draws, not for a grid."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.high <= self.low:
            raise ValueError(f"high must be above low, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, got {self.low:g}")
        return self


Numbers = tuple[float, ...] | Range


class BaseRun(Spec):
    """What all runs of a sweep share where no factor says otherwise."""

    lbp_bins: Literal[128, 256, 512] = 256
    action_units: Literal[15, 20, 25, 30] = 25
    neutral_label: str | None = None
    head: HeadSpec = ConcatHeadSpec()
    train: TrainSpec = TrainSpec()
    split: SplitSpec = OfficialSplit()


class Factors(Spec):
    """What differs between the configurations of a sweep: each factor with its values; () leaves it at the base's.

    `streams`: subsets that are listed, `all` (every non-empty one), or `leave_one_out` (all streams, and all but one
    each). A factor that a configuration has no use for (LBP bins without LBP, the width of a linear probe) makes no
    second configuration.
    """

    streams: Literal["all", "leave_one_out"] | tuple[StreamSet, ...] = "all"
    head: tuple[HeadSpec, ...] = ()
    embed_dim: tuple[int, ...] = ()
    depth: tuple[int, ...] = ()
    width: tuple[int, ...] = ()
    dropout: Numbers = ()
    learning_rate: Numbers = ()
    weight_decay: Numbers = ()
    label_smoothing: Numbers = ()
    batch_size: tuple[int, ...] = ()
    optimizer: tuple[Literal["adam", "adamw"], ...] = ()
    gradient_balancing: tuple[Literal["off", "monitor", "on"], ...] = ()
    lbp_bins: tuple[Literal[128, 256, 512], ...] = ()
    action_units: tuple[Literal[15, 20, 25, 30], ...] = ()

    @model_validator(mode="after")
    def _no_value_is_given_twice(self) -> Self:
        problems = []
        for name, values in self:
            if isinstance(values, tuple):
                plain = [tuple(sorted(value)) if name == "streams" else value for value in values]
                if any(value in plain[:index] for index, value in enumerate(plain)):
                    problems.append(f"{name}: a value is given twice")
        if isinstance(self.streams, tuple) and not self.streams:
            problems.append("streams: name at least one subset, or `all`, or `leave_one_out`")
        if problems:
            raise ValueError(" | ".join(problems))
        return self

    def ranges(self) -> list[str]:
        """Names of the factors that are ranges."""
        return [name for name, values in self if isinstance(values, Range)]


class GridSearch(Spec):
    """Every combination of the factors."""

    kind: Literal["grid"] = "grid"


class RandomSearch(Spec):
    """So many combinations, drawn evenly and each once."""

    kind: Literal["random"] = "random"
    trials: int = Field(ge=1)
    seed: int = 0


class TpeSearch(Spec):
    """Optuna's tree-structured Parzen estimator, asked for `batch` configurations at a time, which train together."""

    kind: Literal["tpe"] = "tpe"
    trials: int = Field(ge=1)
    batch: int = Field(16, ge=1)
    startup: int = Field(32, ge=1, description="drawn evenly before the estimator decides")
    seed: int = 0


SearchSpec = Annotated[GridSearch | RandomSearch | TpeSearch, Discriminator("kind")]


class HalvingSpec(Spec):
    """Successive halving (Jamieson and Talwalkar, AISTATS 2016) among configurations that train together.

    After `first_epochs` epochs, and after each `factor` times as many, the best 1 / `factor` of a bracket goes on. A
    bracket is `bracket` configurations of equal shape, in the order of the search; their folds and seeds stay and
    leave together.
    """

    first_epochs: int = Field(3, ge=1)
    factor: int = Field(3, ge=2)
    bracket: int = Field(27, ge=2)


class CrossValidation(Spec):
    """Every configuration is trained once a fold (see `FoldSpec`)."""

    count: int = Field(5, ge=2)
    seed: int = 0


class FinalSpec(Spec):
    """What is trained on the split's training rows and scored on its test rows, once, when everything is chosen.

    The best configuration for each value of the factors `best_of`; () is the one best of all.
    """

    best_of: tuple[str, ...] = ("streams",)
    seeds: tuple[int, ...] = Field((0,), min_length=1)

    @model_validator(mode="after")
    def _are_factors(self) -> Self:
        unknown = sorted(set(self.best_of) - set(Factors.model_fields))
        if unknown:
            raise ValueError(
                f"best_of: not a factor: {', '.join(unknown)} (there are: {', '.join(Factors.model_fields)})"
            )
        return self


class SweepSpec(Spec):
    """A question asked of a cache: `emofuse sweep NAME` reads one of these from `pipelines/NAME.yaml`.

    `pipeline` names the pipeline whose dataset and cache are used unless the command line names a cache.
    `select` is the validation score by which configurations are compared: the mean over folds and seeds. `baseline`
    is the set of streams that others are tested against on the test rows; the first of the factors' unless given.
    """

    name: str
    title: str = ""
    pipeline: str | None = None
    base: BaseRun = BaseRun()
    factors: Factors = Factors()
    search: SearchSpec = GridSearch()
    halving: HalvingSpec | None = None
    folds: CrossValidation | None = None
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    select: Metric = "macro_f1"
    final: FinalSpec = FinalSpec()
    baseline: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _search_has_a_kind(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("search"), str):
            return {**data, "search": {"kind": data["search"]}}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = []
        ranges = self.factors.ranges()
        if self.search.kind == "grid" and ranges:
            problems.append(f"factors.{ranges[0]}: a grid needs values, a range is for a random or tpe search")
        on_range = [name for name in self.final.best_of if name in ranges]
        if on_range:
            problems.append(f"final.best_of: {on_range[0]} is a range, there is no best of each of its values")
        if self.halving and self.search.kind == "tpe":
            problems.append("halving: a tpe search learns from whole trainings, use it with a grid or random search")
        if self.halving and self.halving.first_epochs >= self.base.train.epochs:
            problems.append("halving.first_epochs: must be below base.train.epochs, or nothing is ever halved")
        if problems:
            raise ValueError(" | ".join(problems))
        return self
