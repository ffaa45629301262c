"""Which values of which streams move the heads of a configuration, by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import Ints, TestedConfiguration
from emofuse.analysis.cached_rows import open_run, rows_of_samples
from emofuse.analysis.facs import facs_name
from emofuse.analysis.gradients import integrated_gradients
from emofuse.cache.reader import Cache
from emofuse.features import chosen_variant, derive
from emofuse.progress import step
from emofuse.specs import RunSpec, parse_spec

Floats = npt.NDArray[np.float64]
MOST_COLUMNS = 600
"""A stream of more values has no names to show."""


@dataclass(frozen=True)
class StreamAttribution:
    """The contributions of the values of one stream.

    Attributes:
        columns: the names of its values.
        by_class: the mean contribution of each value to the score of a class, over the rows of the class, (C, D).
        strength: the mean size of the contributions of each value over all rows, (D,).
    """

    columns: tuple[str, ...]
    by_class: Floats
    strength: Floats


@dataclass(frozen=True)
class Attribution:
    """The contributions of all streams of a configuration.

    Attributes:
        totals: the mean contribution of each stream to the score of a class, over the rows of the class, (C, S).
        streams: stream -> its values, for streams whose values have names.
        rows: the number of rows that were looked at.
        error: the largest error of a sum of contributions.
        scale: the mean score of the true class, for comparison with the error.
    """

    totals: Floats
    streams: Mapping[str, StreamAttribution]
    rows: int
    error: float
    scale: float


def attribute_streams(
    cache: Cache,
    runs: Path,
    tested: TestedConfiguration,
    *,
    most_rows: int = 2_000,
    seed: int = 0,
    device: str = "cpu",
) -> Attribution:
    """Return the contributions to the score of the true class of tested rows, of the first repeat.

    Args:
        cache: the cache that the runs were trained on.
        runs: the folder of the runs.
        tested: the configuration.
        most_rows: the largest number of rows to look at, which are drawn at random of more.
        seed: the seed of the draw.
        device: the device of the heads.
    """
    rows, streams, classes = tested.repeats[0], tested.item.streams, len(tested.classes)
    names = {stream: names_of(cache, tested, stream) for stream in streams}
    chosen = np.arange(len(rows.label))
    if len(chosen) > most_rows:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, most_rows, replace=False))
    totals = np.zeros((classes, len(streams)))
    sums = {stream: np.zeros((classes, len(columns))) for stream, columns in names.items() if columns}
    sizes = {stream: np.zeros(len(columns)) for stream, columns in names.items() if columns}
    counts, error, scores = np.zeros(classes), 0.0, []
    with step("attributing", len(rows.runs), "runs") as advance:
        for number, (record, places) in enumerate(rows.parts, start=1):
            inside = chosen[(chosen >= places.start) & (chosen < places.stop)]
            if len(inside):
                label: Ints = rows.label[inside]
                opened = open_run(cache, runs, record, rows_of_samples(cache, rows.sample_id[inside]), device=device)
                found = integrated_gradients(opened.trained, opened.inputs, label)
                error, counts = max(error, found.error), counts + np.bincount(label, minlength=classes)
                scores.append(found.scores)
                for place, stream in enumerate(streams):
                    np.add.at(totals[:, place], label, found.of_stream(stream))
                    if stream in sums:
                        np.add.at(sums[stream], label, found.values[stream])
                        sizes[stream] += np.abs(found.values[stream]).sum(axis=0)
            advance(number, len(rows.runs))
    of_class = np.maximum(counts, 1)[:, None]
    return Attribution(
        totals / of_class,
        {
            stream: StreamAttribution(names[stream], sums[stream] / of_class, sizes[stream] / len(chosen))
            for stream in sums
        },
        len(chosen),
        error,
        float(np.concatenate(scores).mean()),
    )


def names_of(cache: Cache, tested: TestedConfiguration, stream: str) -> tuple[str, ...]:
    """Return the names of the values of a stream as heads see them; () for sequences, maps and values without names.

    Args:
        cache: the cache.
        tested: the configuration, whose features may be derived from the stored ones.
        stream: the stream.
    """
    cached = cache.streams[stream]
    if len(cached.shape) != 1 or not cached.columns or cached.dim > MOST_COLUMNS:
        return ()
    spec = parse_spec(RunSpec, dict(tested.item.spec), tested.label)
    if spec.features.variants.get(stream, {}).get("pca"):
        return ()
    places: Any = np.arange(1, cached.dim + 1, dtype=np.float32)[None]
    derived = derive(cached.kind, places, chosen_variant(cached.kind, stream, spec.features))[0]
    if len(derived) > cached.dim or (derived != np.round(derived)).any() or derived.max() > cached.dim:
        return tuple(f"value {place}" for place in range(len(derived)))  # derived by more than a choice of values
    return tuple(facs_name(cached.columns[int(place) - 1]) for place in derived)
