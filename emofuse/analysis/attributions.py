"""Which values of which streams move the heads of a configuration, by class, column or label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import TestedConfiguration, TestedRows
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
class Outcome:
    """What contributions are explained for, and in which rows.

    Attributes:
        name: its name: a class, a label, or the high or the low values of a column.
        output: the number of the output.
        sign: 1, or -1 for low values, which a contribution that lowers the answer speaks for.
        rows: which of n rows are of it, bool (n,).
    """

    name: str
    output: int
    sign: int
    rows: npt.NDArray[np.bool_]


def outcomes_of(kind: str, names: Sequence[str], rows: TestedRows) -> list[Outcome]:
    """Return the outcomes of a target: classes, labels, or the highest and the lowest quarter of each column."""
    if rows.target is None or kind == "distribution":
        return [Outcome(name, place, 1, rows.label == place) for place, name in enumerate(names)]
    if kind == "multilabel":
        return [Outcome(name, place, 1, rows.target[:, place] > 0.5) for place, name in enumerate(names)]
    found = []
    for place, name in enumerate(names):
        low, high = np.quantile(rows.target[:, place], (0.25, 0.75))
        found.append(Outcome(f"high {name}", place, 1, rows.target[:, place] >= high))
        found.append(Outcome(f"low {name}", place, -1, rows.target[:, place] <= low))
    return found


@dataclass(frozen=True)
class StreamAttribution:
    """The contributions of the values of one stream.

    Attributes:
        columns: the names of its values.
        by_outcome: the mean contribution of each value towards an outcome, over its rows, (O, D).
        strength: the mean size of the contributions of each value over all rows, (D,).
    """

    columns: tuple[str, ...]
    by_outcome: Floats
    strength: Floats


@dataclass(frozen=True)
class Attribution:
    """The contributions of all streams of a configuration.

    Attributes:
        outcomes: the names of the O classes, labels, or ends of columns.
        totals: the mean contribution of each stream towards an outcome, over its rows, (O, S).
        streams: stream -> its values, for streams whose values have names.
        rows: the number of rows that were looked at.
        error: the largest error of a sum of contributions.
        scale: the mean size of a score, for comparison with the error.
    """

    outcomes: tuple[str, ...]
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
    """Return the contributions towards the true class, labels or ends of columns of tested rows, of the first repeat.

    Args:
        cache: the cache that the runs were trained on.
        runs: the folder of the runs.
        tested: the configuration.
        most_rows: the largest number of rows to look at, which are drawn at random of more.
        seed: the seed of the draw.
        device: the device of the heads.
    """
    rows, streams, kind = tested.repeats[0], tested.item.streams, tested.item.target.kind
    names = {stream: names_of(cache, tested, stream) for stream in streams}
    outcomes = outcomes_of(kind, tested.classes, rows)
    # A row may be of several outcomes: each is one pair.
    of_pair = np.concatenate([np.full(int(each.rows.sum()), place) for place, each in enumerate(outcomes)])
    row_of_pair = np.concatenate([np.flatnonzero(each.rows) for each in outcomes])
    chosen = np.arange(len(row_of_pair))
    if len(chosen) > most_rows:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, most_rows, replace=False))
    of_pair, row_of_pair = of_pair[chosen], row_of_pair[chosen]
    outputs, signs = (np.array([getattr(each, key) for each in outcomes]) for key in ("output", "sign"))
    totals = np.zeros((len(outcomes), len(streams)))
    sums = {stream: np.zeros((len(outcomes), len(columns))) for stream, columns in names.items() if columns}
    sizes = {stream: np.zeros(len(columns)) for stream, columns in names.items() if columns}
    counts, error, scores = np.zeros(len(outcomes)), 0.0, []
    with step("attributing", len(rows.runs), "runs") as advance:
        for number, (record, places) in enumerate(rows.parts, start=1):
            inside = np.flatnonzero((row_of_pair >= places.start) & (row_of_pair < places.stop))
            if len(inside):
                of, sign = of_pair[inside], signs[of_pair[inside]]
                cached = rows_of_samples(cache, rows.sample_id[row_of_pair[inside]])
                opened = open_run(cache, runs, record, cached, device=device)
                found = integrated_gradients(
                    opened.trained,
                    opened.inputs,
                    outputs[of].astype(np.int64),
                    against_others=tested.item.target.has_classes,
                )
                error, counts = max(error, found.error), counts + np.bincount(of, minlength=len(outcomes))
                scores.append(np.abs(found.scores))
                for place, stream in enumerate(streams):
                    np.add.at(totals[:, place], of, sign * found.of_stream(stream))
                    if stream in sums:
                        np.add.at(sums[stream], of, sign[:, None] * found.values[stream])
                        sizes[stream] += np.abs(found.values[stream]).sum(axis=0)
            advance(number, len(rows.runs))
    of_outcome = np.maximum(counts, 1)[:, None]
    return Attribution(
        tuple(each.name for each in outcomes),
        totals / of_outcome,
        {
            stream: StreamAttribution(names[stream], sums[stream] / of_outcome, sizes[stream] / len(chosen))
            for stream in sums
        },
        len(np.unique(row_of_pair)),
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
