"""The factors of a sweep and their values, as a file names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from emofuse.errors import did_you_mean
from emofuse.specs.base import Spec
from emofuse.specs.faults import BESIDE, SEPARATOR
from emofuse.specs.heads import HeadSpec, Spatial, StemNorm, Temporal
from emofuse.specs.pca import pca_problem
from emofuse.specs.streams import Value, check_factors, take_factors, variant_factors
from emofuse.specs.train import Balance, Balancing, ClassWeights, Optimizer, Schedule

StreamRule = Literal["all", "leave_one_out"]
Pca = Literal["none"] | int | float
"""The principal components of all streams of a run: none, their number, or their share of the variance."""


class Range(Spec):
    """All numbers from `low` to `high`, on a logarithmic scale if `log`, for searches that draw values."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.high <= self.low:
            raise ValueError(f"high must be above low, got {self.low!r} and {self.high!r}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, got {self.low!r}")
        return self


def _numbers_tag(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return "(values)"
    return "(range)" if isinstance(value, Mapping | Range) else None


Numbers = Annotated[
    Annotated[tuple[float, ...], Tag("(values)")] | Annotated[Range, Tag("(range)")],
    Discriminator(
        _numbers_tag,
        custom_error_type="numbers",
        custom_error_message="expected a list of numbers or {low, high, log}",
    ),
]


_NUMBERS = frozenset(
    ("dropout", "weight_decay", "label_smoothing", "learning_rate", "focal_gamma", "logit_adjustment", "warmup")
) | {"clip_norm", "ema", "stream_dropout", "mixup", "stem_dropout"}
"""The factors whose values are numbers or a range."""


def _parse_streams(written: Any) -> Any:
    """Check that the subsets are a rule or a list of lists: a flat list could mean one subset or several."""
    if isinstance(written, str) and written in get_args(StreamRule):
        return written
    if _is_list(written) and all(
        _is_list(subset) and all(isinstance(name, str) for name in subset) for subset in written
    ):
        return written
    near = did_you_mean(written, get_args(StreamRule)) if isinstance(written, str) else ""
    raise ValueError(
        f"expected all, leave_one_out or a list of subsets like [[lbp], [lbp, resnet50]], got {written!r}{near}"
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _is_number(value: Any) -> bool:
    """Return whether a value is a number, or the text of one: YAML reads `1e-4`, without a point, as text."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _checked_pca(value: Any) -> Any:
    if value is None or value == "none":
        return "none"
    if problem := pca_problem(value):
        raise ValueError(f"{problem}, or none")
    return value


def list_of_one(written: Any) -> Any:
    """Return a single value as a list of one."""
    return (written,) if isinstance(written, str | int | float) else written


def plain_text(value: Any) -> str:
    """Return a plain value as YAML writes it."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


class Factors(Spec):
    """The differences between the configurations of a sweep: each factor with its values, or () for the base's value.

    `streams` lists subsets, or is `all` (every non-empty subset) or `leave_one_out` (all streams, and all but one
    each). A factor without effect on a configuration (LBP bins without LBP, the width of a linear probe) makes no
    second configuration. Every variant of a kind of streams is a factor under its own key (`lbp_bins`); in Python they
    are `variants`. `pca` lists the principal components that heads see of every stream, or `none` for all features. A
    single value may stand for a list of one, and the kind of a head for a head with its defaults.
    """

    streams: Annotated[StreamRule | tuple[tuple[str, ...], ...], BeforeValidator(_parse_streams)] = "all"
    variants: Mapping[str, tuple[Value, ...]] = Field(default_factory=dict)
    pca: tuple[Annotated[Pca, BeforeValidator(_checked_pca)], ...] = ()
    head: tuple[HeadSpec, ...] = ()
    embed_dim: tuple[int, ...] = ()
    depth: tuple[int, ...] = ()
    width: tuple[int, ...] = ()
    temporal: tuple[Temporal, ...] = ()
    spatial: tuple[Spatial, ...] = ()
    stem_width: tuple[int, ...] = ()
    stem_dropout: Numbers = ()
    stem_norm: tuple[StemNorm, ...] = ()
    dropout: Numbers = ()
    batch_size: tuple[int, ...] = ()
    optimizer: tuple[Optimizer, ...] = ()
    gradient_balancing: tuple[Balancing, ...] = ()
    balance: tuple[Balance, ...] = ()
    class_weights: tuple[ClassWeights, ...] = ()
    focal_gamma: Numbers = ()
    logit_adjustment: Numbers = ()
    schedule: tuple[Schedule, ...] = ()
    warmup: Numbers = ()
    clip_norm: Numbers = ()
    ema: Numbers = ()
    stream_dropout: Numbers = ()
    mixup: Numbers = ()
    weight_decay: Numbers = ()
    label_smoothing: Numbers = ()
    learning_rate: Numbers = ()

    @model_validator(mode="before")
    @classmethod
    def _take_variants(cls, data: Any) -> Any:
        return take_factors(data, "variants")

    @field_validator("variants", mode="after")
    @classmethod
    def _variants_are_known(cls, variants: Mapping[str, tuple[Value, ...]]) -> Mapping[str, tuple[Value, ...]]:
        check_factors(variants)
        twice = [
            f"{BESIDE}{name}: {plain_text(value)} is given twice"
            for name, values in variants.items()
            for index, value in enumerate(values)
            if value in values[:index]
        ]
        if twice:
            raise ValueError(SEPARATOR.join(twice))
        return variants

    @field_validator("*", mode="before")
    @classmethod
    def _one_value_is_a_list_of_one(cls, written: Any, info: ValidationInfo) -> Any:
        match info.field_name:
            case "streams":
                return written
            case "variants" if isinstance(written, Mapping):
                return {name: list_of_one(values) for name, values in written.items()}
            case "head":
                return written if isinstance(written, list | tuple) else (written,)
            case name if name in _NUMBERS:
                return (written,) if _is_number(written) else written
            case _:
                return list_of_one(written)

    @field_validator("*", mode="after")
    @classmethod
    def _no_value_is_given_twice(cls, listed: Any, info: ValidationInfo) -> Any:
        if not isinstance(listed, tuple):
            return listed
        values = [frozenset(value) for value in listed] if info.field_name == "streams" else list(listed)
        problems = []
        for index, value in enumerate(listed):
            text = str(getattr(value, "kind", plain_text(value)))
            if values[index] in values[:index]:
                problems.append(f"{text} is given twice")
            if isinstance(value, tuple) and len(set(value)) < len(value):
                problems.append(f"{text} names a stream twice")
        if problems:
            raise ValueError(SEPARATOR.join(problems))
        return listed

    def ranges(self) -> list[str]:
        """Return the names of the factors that are ranges."""
        return [name for name, values in self.named() if isinstance(values, Range)]

    def named(self) -> Iterator[tuple[str, Any]]:
        """Yield every factor that has values, in the order of a grid: the last factor changes fastest."""
        for name in factor_names():
            values = getattr(self, name) if name in type(self).model_fields else self.variants.get(name, ())
            if values != ():
                yield name, values

    @classmethod
    def written_keys(cls) -> set[str]:
        """Return the names of all factors."""
        return set(factor_names())


def factor_names() -> tuple[str, ...]:
    """Return the names of all factors: streams, their variants, then head and optimisation."""
    return (
        "streams",
        *variant_factors(),
        *(name for name in Factors.model_fields if name not in {"streams", "variants"}),
    )
