"""What varies in a sweep: factors and their values, as they are written in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from emofuse.errors import did_you_mean
from emofuse.specs.base import Spec
from emofuse.specs.faults import BESIDE, SEPARATOR
from emofuse.specs.heads import HeadSpec, Spatial, Temporal
from emofuse.specs.runs import Balancing
from emofuse.specs.streams import Value, check_factors, take_factors, variant_factors

StreamRule = Literal["all", "leave_one_out"]


class Range(Spec):
    """All numbers from `low` to `high`, on a logarithmic scale if `log`: for a search that draws, not for a grid."""

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


def _parse_streams(given: Any) -> Any:
    """Refuses what is neither a rule nor a list of lists: a flat list could be one subset or several."""
    if isinstance(given, str) and given in get_args(StreamRule):
        return given
    if _is_list(given) and all(_is_list(subset) and all(isinstance(name, str) for name in subset) for subset in given):
        return given
    near = did_you_mean(given, get_args(StreamRule)) if isinstance(given, str) else ""
    raise ValueError(
        f"expected all, leave_one_out or a list of subsets like [[lbp], [lbp, resnet50]], got {given!r}{near}"
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _is_number(value: Any) -> bool:
    """Whether it is a number, or text that is one: YAML reads `1e-4`, without a point, as text."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def list_of_one(given: Any) -> Any:
    """A single value where a list is expected."""
    return (given,) if isinstance(given, str | int | float) else given


def plain_text(value: Any) -> str:
    """Plain values as YAML has them."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


class Factors(Spec):
    """What differs between the configurations of a sweep: each factor with its values; () leaves it at the base's.

    `streams`: subsets that are listed, `all` (every non-empty one), or `leave_one_out` (all streams, and all but one
    each). A factor that a configuration has no use for (LBP bins without LBP, the width of a linear probe) makes no
    second configuration. Every variant of a kind of streams is a factor by its own key (`lbp_bins`); in Python they are
    `variants`. One value may stand for a list of one, and the kind of a head for a head with its defaults.
    """

    streams: Annotated[StreamRule | tuple[tuple[str, ...], ...], BeforeValidator(_parse_streams)] = "all"
    variants: Mapping[str, tuple[Value, ...]] = Field(default_factory=dict)
    head: tuple[HeadSpec, ...] = ()
    embed_dim: tuple[int, ...] = ()
    depth: tuple[int, ...] = ()
    width: tuple[int, ...] = ()
    temporal: tuple[Temporal, ...] = ()
    spatial: tuple[Spatial, ...] = ()
    stem_width: tuple[int, ...] = ()
    dropout: Numbers = ()
    batch_size: tuple[int, ...] = ()
    optimizer: tuple[Literal["adam", "adamw"], ...] = ()
    gradient_balancing: tuple[Balancing, ...] = ()
    weight_decay: Numbers = ()
    label_smoothing: Numbers = ()
    learning_rate: Numbers = ()

    @model_validator(mode="before")
    @classmethod
    def _take_variants(cls, data: Any) -> Any:
        return take_factors(data, "variants")

    @field_validator("variants", mode="after")
    @classmethod
    def _variants_are_known(cls, given: Mapping[str, tuple[Value, ...]]) -> Mapping[str, tuple[Value, ...]]:
        check_factors(given)
        twice = [
            f"{BESIDE}{name}: {plain_text(value)} is given twice"
            for name, values in given.items()
            for index, value in enumerate(values)
            if value in values[:index]
        ]
        if twice:
            raise ValueError(SEPARATOR.join(twice))
        return given

    @field_validator("*", mode="before")
    @classmethod
    def _one_value_is_alist_of_one(cls, given: Any, info: ValidationInfo) -> Any:
        match info.field_name:
            case "streams":
                return given
            case "variants" if isinstance(given, Mapping):
                return {name: list_of_one(values) for name, values in given.items()}
            case "head":
                return given if isinstance(given, list | tuple) else (given,)
            case "dropout" | "weight_decay" | "label_smoothing" | "learning_rate":
                return (given,) if _is_number(given) else given
            case _:
                return list_of_one(given)

    @field_validator("*", mode="after")
    @classmethod
    def _no_value_is_given_twice(cls, given: Any, info: ValidationInfo) -> Any:
        if not isinstance(given, tuple):
            return given
        values = [frozenset(value) for value in given] if info.field_name == "streams" else list(given)
        problems = []
        for index, value in enumerate(given):
            text = str(getattr(value, "kind", plain_text(value)))
            if values[index] in values[:index]:
                problems.append(f"{text} is given twice")
            if isinstance(value, tuple) and len(set(value)) < len(value):
                problems.append(f"{text} names a stream twice")
        if problems:
            raise ValueError(SEPARATOR.join(problems))
        return given

    def ranges(self) -> list[str]:
        """Names of the factors that are ranges."""
        return [name for name, values in self.given() if isinstance(values, Range)]

    def given(self) -> Iterator[tuple[str, Any]]:
        """Every factor with values of its own, in the order in which configurations are made: the last one fastest."""
        for name in factor_names():
            values = getattr(self, name) if name in type(self).model_fields else self.variants.get(name, ())
            if values != ():
                yield name, values

    @classmethod
    def written_keys(cls) -> set[str]:
        """All factors."""
        return set(factor_names())


def factor_names() -> tuple[str, ...]:
    """Every factor there is: streams, their variants, then head and optimisation."""
    return (
        "streams",
        *variant_factors(),
        *(name for name in Factors.model_fields if name not in {"streams", "variants"}),
    )
