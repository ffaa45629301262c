"""Variants of streams, derived from stored features after reading and never stored.

The kind of a stream defines its variants (fewer LBP bins than are cached, the first action units). All functions take
arrays: `emofuse.training.variants` reads them from a cache, `emofuse.predict` extracts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import CacheError, SpecError, TrainingError, did_you_mean
from emofuse.specs import FeaturesSpec
from emofuse.specs.pca import PCA
from emofuse.specs.plugins import RECORD, load_recorded
from emofuse.specs.streams import STREAMS, Value, variants_of

if TYPE_CHECKING:
    from emofuse.cache.cached_stream import CachedStream

ACTION_UNITS = "action_units"

LEAST_NEUTRAL_ROWS = 3
"""The smallest number of neutral faces that define a deviation: one has none, and that of two is chance."""


def cached_streams(streams: Mapping[str, CachedStream], names: Sequence[str], where: object) -> dict[str, CachedStream]:
    """Return the named streams of a cache, in the order of the names. Kinds of plugin files are loaded.

    Args:
        streams: all streams of the cache.
        names: the names to look up.
        where: the path of the cache, for messages.

    Raises:
        SpecError: names that are not in the cache, all of them.
        PluginError: the plugin file of a kind is missing or changed, or the user has never named it.
    """
    known = sorted(streams)
    problems = [
        f"features.streams: {name!r} is not in the cache{did_you_mean(name, known)} (there are: {', '.join(known)})"
        for name in names
        if name not in streams
    ]
    if problems:
        raise SpecError(str(where), problems)
    for name in names:
        record = streams[name].spec.get(RECORD)
        if record is not None and STREAMS.find(streams[name].kind) is None:
            load_recorded(record)
    return {name: streams[name] for name in names}


Choice = tuple[tuple[str, Value], ...]
"""The values of a stream's variants: (name, value) of every variant of its kind; () for kinds without variants."""


def chosen_variant(kind: str, stream: str, spec: FeaturesSpec) -> Choice:
    """Return the values of a stream's variants in a run: those of the stream, or of its kind, or the defaults."""
    of_stream = spec.variants.get(stream, {})
    return tuple(
        (each.name, of_stream.get(each.name, spec.factors.get(each.factor, each.default))) for each in variants_of(kind)
    )


def chosen_pca(stream: str, spec: FeaturesSpec) -> float | int | None:
    """Return the share of the variance or the number of components that a run sees of a stream; None for all."""
    pca = spec.variants.get(stream, {}).get(PCA)
    return None if pca is None or isinstance(pca, str) else pca


def derived_features(kind: str, stored: npt.NDArray[Any], spec: FeaturesSpec, stream: str) -> npt.NDArray[np.float32]:
    """Return what the heads of a run see of a stream's stored features, see `derive`."""
    return derive(kind, stored, chosen_variant(kind, stream, spec))


def derive(kind: str, stored: npt.NDArray[Any], choice: Choice) -> npt.NDArray[np.float32]:
    """Return what heads see of stored features. A kind without variants, or an unknown kind, shows them as stored.

    Args:
        kind: the kind of the stream.
        stored: the cached or extracted features, (n, *shape); of clips (n, T, *shape).
        choice: the values of the kind's variants.

    Returns:
        A new array (n, *shape of the variant) float32.

    Raises:
        CacheError: the stream has another shape than its kind stores.
    """
    spec = STREAMS.find(kind)
    if spec is not None and choice and spec.stored_shape is not None and stored.shape[2:] == spec.stored_shape:
        frames = stored.reshape(-1, *spec.stored_shape)  # on clips, the frames have the variants of pictures
        derived = np.asarray(spec.derive(frames, dict(choice)), dtype=np.float32)
        return np.ascontiguousarray(derived.reshape(*stored.shape[:2], *derived.shape[1:]))
    if spec is not None and spec.variants and spec.stored_shape is not None and stored.shape[1:] != spec.stored_shape:
        expected, actual = (" x ".join(map(str, shape)) for shape in (spec.stored_shape, stored.shape[1:]))
        raise CacheError(f"a stream of kind {kind!r} must hold {expected} values a row, got {actual}")
    derived = stored if spec is None or not choice else spec.derive(stored, dict(choice))
    return np.ascontiguousarray(derived, dtype=np.float32)


def derived_shape(kind: str, shape: tuple[int, ...], choice: Choice) -> tuple[int, ...]:
    """Return the shape of a row of a variant, from the shape of a stored row."""
    return derive(kind, np.zeros((0, *shape), np.float32), choice).shape[1:] if choice else shape


def fixed_columns(kind: str) -> tuple[int, ...]:
    """Return the columns that are constant in every stream of a kind, up to rounding."""
    spec = STREAMS.find(kind)
    return () if spec is None else spec.fixed_columns


def neutral_rows(
    rows: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    stream: str,
    neutral_label: str,
) -> npt.NDArray[np.int64]:
    """Return the training rows with a neutral face, the paper's baseline of action units.

    Args:
        rows: the training rows that have the stream, (n,) int64.
        labels: the labels of all rows, (N,) int64.
        classes: the names of the labels in index order.
        stream: the name of the stream, for messages.
        neutral_label: the name of the label of neutral faces.

    Raises:
        TrainingError: it is not a label of the dataset, or no row has it.
    """
    if neutral_label not in classes:
        raise TrainingError(
            f"features.neutral_label: {neutral_label!r} is no label of this dataset"
            f"{did_you_mean(neutral_label, classes)} (there are: {', '.join(classes)}). "
            "Name one of them, or leave it out: the baseline is then the median of all training faces"
        )
    neutral: npt.NDArray[np.int64] = rows[labels[rows] == tuple(classes).index(neutral_label)]
    if len(neutral) == 0:
        raise TrainingError(
            f"features.neutral_label: no training row labelled {neutral_label!r} has stream {stream!r}. "
            "Leave it out: the baseline is then the median of all training faces"
        )
    return neutral
