"""The configurations of a sweep: each combination of its factors, as the specification of a run without a fold.

Combinations that lead to equal runs are one configuration. Its name has the exact values that vary in the sweep.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from emofuse.errors import SpecError, did_you_mean
from emofuse.specs import Factors, FeaturesSpec, FoldSpec, HeadSpec, Range, RunSpec, SweepSpec, TrainSpec, digest
from emofuse.specs.head_kinds import EXACT_HEADS, LOGISTIC_HEADS
from emofuse.specs.heads import NetworkHeadSpec, Spatial, Temporal
from emofuse.specs.pca import PCA
from emofuse.specs.runs import settled
from emofuse.specs.streams import variant_factors
from emofuse.specs.train import OF_CLASS_SHARES

TRAIN_FACTORS = tuple(name for name in Factors.model_fields if name in TrainSpec.model_fields)
HEAD_FACTORS = tuple(
    name for name in Factors.model_fields if name not in {"streams", "variants", PCA, "head", *TRAIN_FACTORS}
)
_HIDDEN_LAYER_FIELDS = ("width", "dropout")
_OF_SEVERAL_STREAMS = {"gradient_balancing": "off", "stream_dropout": 0.0}
"""The factors of the training that a head of one stream has no use for, and their values there."""
_STEM_FIELDS = ("temporal", "spatial", "stem_width", "patch_kernels", "stem_dropout", "stem_norm")
_TEMPORAL_WITH_WIDTH = ("attention", "lstm", "gru", "transformer")
_SPATIAL_WITH_WIDTH = ("attention", "patches", "cnn")


@dataclass(frozen=True)
class StreamType:
    """The properties of a cached stream that decide which factors a run on it uses.

    Attributes:
        kind: the kind of the stream.
        is_sequence: whether a row has a time axis, so that heads give the stream a temporal stem.
        has_maps: whether a row has spatial axes, so that heads give the stream a spatial stem.
    """

    kind: str
    is_sequence: bool = False
    has_maps: bool = False

    @classmethod
    def of(cls, kind: str, shape: Sequence[int]) -> StreamType:
        """Return the type of a stream with rows of this shape: (D,), (T, D), (C, H, W) or (T, C, H, W)."""
        return cls(kind, is_sequence=len(shape) in {2, 4}, has_maps=len(shape) >= 3)


@dataclass(frozen=True)
class Configuration:
    """One candidate of a sweep, which is trained once for each fold and seed.

    Attributes:
        name: the settings with exact values, unique within a sweep.
        settings: factor -> value, for the factors that vary in the sweep and are used here, in plain JSON.
        run: the run without a fold, with the seed of the sweep's base.
    """

    name: str
    settings: Mapping[str, Any]
    run: RunSpec

    @cached_property
    def key(self) -> str:
        """The SHA-256 digest of the run without its name, equal for equal configurations of all sweeps."""
        return digest(self.run.model_dump(mode="json", exclude={"name"}))


def expand(spec: SweepSpec, types: Mapping[str, StreamType]) -> list[Configuration]:
    """Return the configurations of all combinations of the factors' values.

    The factors have the order of `Factors`, the last one changing fastest, and each one's values the order of the spec.
    Subsets of streams have the order of the spec. Those of `all` are sorted by size, then by the cache's order.
    `leave_one_out` begins with all streams, then leaves out the first, the second, and so on.

    Args:
        spec: the sweep, without ranges.
        types: the type of every stream of the cache, in the cache's order.

    Raises:
        SpecError: the sweep names streams that are not in the cache.
    """
    check_streams(spec, types)
    space = Space.of(spec, types)
    by_key: dict[str, Configuration] = {}
    for values in space.combinations():
        configuration = space.configuration(values)
        by_key.setdefault(configuration.key, configuration)
    return list(by_key.values())


def runs_of(configuration: Configuration, spec: SweepSpec) -> list[RunSpec]:
    """Return the runs of one configuration: every fold for every seed, or the plain split if there are no folds."""
    folds: list[FoldSpec | None] = [None]
    if spec.folds is not None:
        folds = list(spec.folds.each())
    run = configuration.run
    return [
        run.model_copy(update={"train": run.train.model_copy(update={"seed": seed}), "fold": fold})
        for seed in spec.seeds
        for fold in folds
    ]


def check_streams(spec: SweepSpec, names: Collection[str]) -> None:
    """Check that every stream that the sweep names is in the cache.

    Raises:
        SpecError: names are not in the cache, or the baseline is not one of the sweep's subsets.
    """
    named: list[tuple[str, Sequence[str]]] = [("baseline", spec.baseline)]
    if isinstance(spec.factors.streams, tuple):
        subsets = enumerate(spec.factors.streams)
        named = [*((f"factors.streams[{index}]", subset) for index, subset in subsets), *named]
    problems = [
        f"{place}: {stream!r} is not in the cache{did_you_mean(stream, names)} (there are: {', '.join(names)})"
        for place, streams in named
        for stream in streams
        if stream not in names
    ]
    if not problems and spec.baseline and _in_order(spec.baseline, names) not in stream_subsets(spec.factors, names):
        problems.append(
            f"baseline: {'+'.join(spec.baseline)} is not one of factors.streams: the sweep would never train it"
        )
    if problems:
        raise SpecError(f"sweep {spec.name!r}", problems)


def baseline_streams(spec: SweepSpec, names: Collection[str]) -> tuple[str, ...]:
    """Return the streams of the baseline in the cache's order: the spec's, or the first subset of the factors."""
    return _in_order(spec.baseline, names) if spec.baseline else stream_subsets(spec.factors, names)[0]


def stream_subsets(factors: Factors, names: Collection[str]) -> list[tuple[str, ...]]:
    """Return the subsets of streams of a sweep, each in the cache's order. `expand` describes the order of subsets."""
    streams = tuple(names)
    match factors.streams:
        case "all":
            sizes = range(1, len(streams) + 1)
            return [subset for size in sizes for subset in itertools.combinations(streams, size)]
        case "leave_one_out":
            without = [tuple(name for name in streams if name != left) for left in streams]
            return [streams, *(subset for subset in without if subset)]
        case listed:
            return list(dict.fromkeys(_in_order(subset, names) for subset in listed))


@dataclass(frozen=True)
class Space:
    """The search space of a sweep: the values of each factor, and the configuration of each combination.

    Attributes:
        spec: the sweep.
        types: the type of every stream of the cache, in the cache's order.
        values: factor -> its values in order, or a range; without factors that keep the value of the base.
        varying: the names of the factors with several values.
        head_names: head -> its name as a value of the factor `head`.
    """

    spec: SweepSpec
    types: Mapping[str, StreamType]
    values: Mapping[str, Sequence[Any] | Range]
    varying: frozenset[str]
    head_names: Mapping[HeadSpec, str]

    @classmethod
    def of(cls, spec: SweepSpec, types: Mapping[str, StreamType]) -> Space:
        """Return the search space of a sweep over a cache."""
        values: dict[str, Sequence[Any] | Range] = {"streams": stream_subsets(spec.factors, types)}
        values |= {name: listed for name, listed in spec.factors.named() if name != "streams"}
        varying = {name for name, choices in values.items() if isinstance(choices, Range) or len(choices) > 1}
        heads = spec.factors.head or (spec.base.head,)
        return cls(spec, types, values, frozenset(varying), _head_names(heads, set(values)))

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield every combination of values, the last factor changing fastest; several may be one configuration.

        Raises:
            TypeError: a factor is a range.
        """
        for name, values in self.values.items():
            if isinstance(values, Range):
                raise TypeError(f"factors.{name}: a range has no list of values")
        for chosen in itertools.product(*self.values.values()):
            yield dict(zip(self.values, chosen, strict=True))

    def setting_texts(self) -> list[str]:
        """Return the text in names of every value of the factors that vary; a factor that is a range has none."""
        return [
            _setting_text(name, self._plain(name, value))
            for name, values in self.values.items()
            if name in self.varying and not isinstance(values, Range)
            for value in values
        ]

    def useless(self, values: Mapping[str, Any]) -> set[str]:
        """Return the factors, and other fields of the head, that make no difference to a run with these values.

        A variant needs a stream of its kind, and a factor of the head a field of the head. Width and dropout need a
        hidden layer. Gradient balancing and stream dropout need two streams. A temporal stem needs a sequence, a
        spatial stem a map, and the sizes of stems a stem that has them. Rows of even classes leave nothing to options
        that correct for their shares. Exact heads use no factor of the training, except that logistic heads use class
        weights.

        Args:
            values: factor -> value, with `streams`; the base has the values that are missing.
        """
        types = [self.types[stream] for stream in values["streams"]]
        kinds = {each.kind for each in types}
        head = values.get("head", self.spec.base.head)
        fields = type(head).model_fields
        useless = {name for name, (kind, _) in variant_factors().items() if kind not in kinds}
        useless |= {name for name in HEAD_FACTORS if name not in fields}
        if "depth" in fields and values.get("depth", getattr(head, "depth", None)) == 0:
            useless |= set(_HIDDEN_LAYER_FIELDS)
        if isinstance(head, NetworkHeadSpec):
            useless |= _useless_of_stems(
                values.get("temporal", head.temporal) if any(each.is_sequence for each in types) else None,
                values.get("spatial", head.spatial) if any(each.has_maps for each in types) else None,
            )
        if head.kind in EXACT_HEADS:
            useless |= set(TRAIN_FACTORS) - ({"class_weights"} if isinstance(head, LOGISTIC_HEADS) else set())
        elif values.get("balance", self.spec.base.train.balance) != "none":
            useless |= set(OF_CLASS_SHARES)
        if len(types) == 1:
            useless |= _OF_SEVERAL_STREAMS.keys()
        return useless

    def configuration(self, values: Mapping[str, Any]) -> Configuration:
        """Return the configuration of one combination of values.

        Factors that make no difference get the default of their field, so that runs which cannot differ are equal.

        Args:
            values: factor -> value; the base has the values that are missing.
        """
        base = self.spec.base
        streams = tuple(values["streams"])
        head = values.get("head", base.head)
        useless = self.useless(values)
        used = {name: value for name, value in values.items() if name not in useless}
        chosen = {**base.variants, **{name: used[name] for name in variant_factors() if name in used}}
        factors = {name: value for name, value in chosen.items() if name not in useless}
        train = {name: used[name] for name in TRAIN_FACTORS if name in used}
        train |= {name: off for name, off in _OF_SEVERAL_STREAMS.items() if name in set(values) & useless}
        settings = {name: self._plain(name, used[name]) for name in self.values if name in used.keys() & self.varying}
        name = ", ".join(_setting_text(*setting) for setting in settings.items()) or "+".join(streams)
        pca = used.get(PCA, "none")
        variants = {} if pca == "none" else {stream: {PCA: pca} for stream in streams}
        features = FeaturesSpec(streams=streams, neutral_label=base.neutral_label, factors=factors, variants=variants)
        run = RunSpec(
            name=name,
            features=settled(features, {stream: self.types[stream].kind for stream in streams}),
            head=_changed(head, used, useless),
            train=base.train.model_copy(update=train),
            split=base.split,
            target=base.target,
            weight_column=base.weight_column,
        )
        return Configuration(name, settings, run)

    def _plain(self, factor: str, value: Any) -> Any:
        match factor:
            case "streams":
                return list(value)
            case "head":
                return self.head_names[value]
            case _:
                return value


def _useless_of_stems(temporal: Temporal | None, spatial: Spatial | None) -> set[str]:
    """Return the fields of stems that a run does not use, given its stems; None if no stream has such a stem."""
    useless = {"temporal"} if temporal is None else set()
    useless |= {"spatial"} if spatial is None else set()
    useless |= {"patch_kernels"} if spatial != "patches" else set()
    useless |= {"stem_norm"} if spatial != "cnn" else set()
    if temporal not in _TEMPORAL_WITH_WIDTH and spatial not in _SPATIAL_WITH_WIDTH:
        useless |= {"stem_width", "stem_dropout"}
    return useless


def _changed(head: HeadSpec, used: Mapping[str, Any], useless: set[str]) -> HeadSpec:
    """Return the head with the factors' values, and with defaults for the fields that make no difference."""
    fields = type(head).model_fields
    values = {name: used[name] for name in HEAD_FACTORS if name in used}
    reset = useless.intersection((*_HIDDEN_LAYER_FIELDS, *_STEM_FIELDS), fields)
    values |= {name: fields[name].default for name in reset}
    changed: HeadSpec = type(head).model_validate({**head.model_dump(), **values})
    return changed


def _head_names(heads: Sequence[HeadSpec], factors: set[str]) -> dict[HeadSpec, str]:
    """Return names such as `concat`, or `concat(depth=1)` if heads of a kind differ in fields that are no factors."""
    names = {}
    for head in heads:
        alike = [other for other in heads if other.kind == head.kind]
        differing = [
            f"{field}={getattr(head, field)!r}"
            for field in type(head).model_fields
            if field not in factors and any(getattr(other, field) != getattr(head, field) for other in alike)
        ]
        names[head] = f"{head.kind}({', '.join(differing)})" if differing else head.kind
    return names


def _setting_text(factor: str, value: Any) -> str:
    """Return text such as `lbp+resnet50` or `learning_rate=0.0001`; floats have their shortest exact form."""
    if factor == "streams":
        return "+".join(value)
    return f"{factor}={value}" if isinstance(value, str) else f"{factor}={value!r}"


def _in_order(streams: Sequence[str], names: Collection[str]) -> tuple[str, ...]:
    """Return a subset in the cache's order."""
    return tuple(name for name in names if name in streams)
