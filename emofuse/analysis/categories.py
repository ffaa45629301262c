"""Which categories of a backbone's own classifier go along with what the heads make of its features.

The cached vector of a backbone is what the last layer of its network sees. So its weights give the score of every
category (365 places, 1,000 objects of ImageNet) of every row, although the cache has no category. For each class and
category this is the correlation, over tested rows, of two numbers:

    the score of the category    w_k . x + b_k, less the mean over all categories
    the contribution of the stream to the score of the class, by integrated gradients (`emofuse.analysis.gradients`)

The means of each run are taken away first, because its heads have scores of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import Ints, TestedConfiguration
from emofuse.analysis.cached_rows import open_run, read_rows, rows_of_samples
from emofuse.analysis.gradients import integrated_gradients
from emofuse.cache.reader import Cache
from emofuse.errors import EmofuseError, SpecError
from emofuse.metrics.weighted import RowScorer
from emofuse.progress import step
from emofuse.results import RunRecord
from emofuse.specs import CacheSpec, RandomWeights, parse_spec
from emofuse.statistics import Interval, Resampling, ScoredRows, bootstrap_interval, resample_rows
from emofuse.streams import with_located_weights
from emofuse.streams.backbones import BackboneSpec
from emofuse.weights import resolve_weights
from emofuse.weights.checkpoint import load_checkpoint

Floats = npt.NDArray[np.float64]
PLACES_FILE = "categories_places365.txt"
_STEPS = 8
_LEAST_CATEGORIES = 10
_SHOWN = 4
"""The number of categories of each direction that are shown for a class."""


@dataclass(frozen=True)
class CategoryLayer:
    """The last layer of a backbone.

    Attributes:
        weight: the weights, float32 (K, D).
        bias: the offsets, float32 (K,).
        names: the names of the K categories; their numbers where names are not known.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    names: tuple[str, ...]

    def scores(self, vectors: npt.NDArray[np.floating]) -> Floats:  # type: ignore[type-arg]
        """Return the score of each category less the mean of all, (n, K), of vectors (n, D)."""
        scores = vectors.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias
        centred: Floats = scores - scores.mean(axis=1, keepdims=True)
        return centred


@dataclass(frozen=True)
class CategoryLink:
    """One category that goes along with a class, or against it.

    Attributes:
        class_place: the class.
        category: the name of the category.
        correlation: its correlation, -1 to 1.
        interval: the 95 % interval over rows or groups.
    """

    class_place: int
    category: str
    correlation: float
    interval: Interval


@dataclass(frozen=True)
class StreamCategories:
    """The categories of one stream.

    Attributes:
        stream: the stream.
        names: the names of all K categories.
        correlations: of each class and category, (C, K).
        links: the strongest of each class and direction.
        rows: the number of rows.
    """

    stream: str
    names: tuple[str, ...]
    correlations: Floats
    links: tuple[CategoryLink, ...]
    rows: int


def find_layers(cache: Cache, record: RunRecord) -> tuple[dict[str, CategoryLayer], list[str]]:
    """Return the last layer of each backbone of a run, and why others have none.

    Args:
        cache: the cache of the run.
        record: the run, which names the weights.
    """
    try:
        spec = parse_spec(CacheSpec, dict(record.cache_spec), f"run {record.digest[:16]}: cache_spec")
    except SpecError:  # such as streams that were imported as arrays
        return {}, []
    layers: dict[str, CategoryLayer] = {}
    notes: list[str] = []
    known = {name: stream["weights"] for name, stream in record.streams.items()}
    for plain in spec.streams:
        if not isinstance(plain, BackboneSpec) or plain.name not in record.streams or plain.output != "pooled":
            continue
        if isinstance(plain.weights_wanted(), RandomWeights):
            continue  # a random network has no categories, and every report says that it is random
        try:
            one = spec.model_copy(update={"streams": (plain,)})
            (located,) = with_located_weights(one, known).streams
            weights = resolve_weights(located.weights_wanted()) if isinstance(located, BackboneSpec) else None
            path = None if weights is None else weights.path
            layer = None if path is None else read_layer(path, cache.streams[plain.name].dim)
        except EmofuseError as error:
            notes.append(f"{plain.name}: {error}")
            continue
        if layer is None:
            notes.append(f"{plain.name}: its weights hold no classifier of its cached vector")
        else:
            layers[plain.name] = layer
    return layers, notes


def read_layer(path: Path, dim: int) -> CategoryLayer | None:
    """Return the last layer of a checkpoint that maps vectors of `dim` values to categories; None without one.

    A convolution of 1 x 1 counts as such a layer (SqueezeNet). A layer of zeros, as of networks that were published
    without their classifier, does not.
    """
    state = load_checkpoint(path)
    for name, tensor in reversed(list(state.items())):
        if not name.endswith("weight") or tensor.ndim not in {2, 4} or tensor[0].numel() != dim:
            continue
        if tensor.ndim == 4 and tuple(tensor.shape[2:]) != (1, 1):
            continue
        weight = tensor.reshape(len(tensor), -1).float().numpy()
        bias = state.get(f"{name.removesuffix('weight')}bias")
        if bias is None or len(weight) < _LEAST_CATEGORIES or not np.any(weight):
            return None
        return CategoryLayer(weight, bias.float().numpy(), _names(len(weight), path))
    return None


def _names(count: int, path: Path) -> tuple[str, ...]:
    """Return the names of categories: ImageNet's, those of a Places365 file beside the weights, or numbers."""
    if count == 1000:
        from torchvision.models._meta import _IMAGENET_CATEGORIES

        return tuple(_IMAGENET_CATEGORIES)
    beside = path.with_name(PLACES_FILE)
    if count == 365 and beside.is_file():
        # "/a/airfield 0"
        lines = [line.split() for line in beside.read_text(encoding="utf-8").splitlines() if line.strip()]
        by_number = {int(number): name[3:].replace("_", " ") for name, number in lines}
        if set(by_number) == set(range(365)):
            return tuple(by_number[number] for number in range(365))
    return tuple(f"category {number}" for number in range(count))


def link_categories(
    cache: Cache,
    runs: Path,
    tested: TestedConfiguration,
    layers: Mapping[str, CategoryLayer],
    *,
    most_rows: int,
    resampling: Resampling,
    device: str = "cpu",
) -> list[StreamCategories]:
    """Correlate the categories of backbones with what heads make of them, in the tested rows of the first repeat.

    Args:
        cache: the cache that the runs were trained on.
        runs: the folder of the runs.
        tested: the configuration.
        layers: stream -> the last layer of its network.
        most_rows: the largest number of rows to look at, which are drawn at random of more.
        resampling: the number of resamples and the seed.
        device: the device of the heads.
    """
    if not layers:
        return []
    rows, classes = tested.repeats[0], len(tested.classes)
    chosen = np.arange(len(rows.label))
    if len(chosen) > most_rows:
        chosen = np.sort(np.random.default_rng(resampling.seed).choice(chosen, most_rows, replace=False))
    moved: dict[str, list[Floats]] = {name: [] for name in layers}
    scored: dict[str, list[Floats]] = {name: [] for name in layers}
    units: dict[str, list[Ints]] = {name: [] for name in layers}
    with step("scoring categories", len(rows.runs), "runs") as advance:
        for number, (record, places) in enumerate(rows.parts, start=1):
            inside = chosen[(chosen >= places.start) & (chosen < places.stop)]
            if len(inside):
                of_cache = rows_of_samples(cache, rows.sample_id[inside])
                opened = open_run(cache, runs, record, of_cache, device=device)
                vectors, _, _ = read_rows(cache, list(layers), of_cache)
                by_class = [
                    integrated_gradients(opened.trained, opened.inputs, np.full(len(inside), place), steps=_STEPS)
                    for place in range(classes)
                ]
                for name, layer in layers.items():
                    there = opened.inputs[0].valid[name]
                    moves = np.stack([each.of_stream(name)[there] for each in by_class], axis=1)
                    moved[name].append(moves - moves.mean(axis=0))
                    scores = layer.scores(vectors[name][there])
                    scored[name].append(scores - scores.mean(axis=0))
                    units[name].append(rows.unit[inside][there])
            advance(number, len(rows.runs))
    return [
        _linked(
            name,
            layer.names,
            np.concatenate(moved[name]),
            np.concatenate(scored[name]),
            unit=np.concatenate(units[name]),
            resampling=resampling,
        )
        for name, layer in layers.items()
        if sum(map(len, units[name])) > 2
    ]


def _linked(
    stream: str, names: tuple[str, ...], moved: Floats, scored: Floats, *, unit: Ints, resampling: Resampling
) -> StreamCategories:
    """Correlate contributions (n, C) with scores (n, K)."""
    sizes = np.outer(np.linalg.norm(moved, axis=0), np.linalg.norm(scored, axis=0))
    correlations: Floats = np.divide(moved.T @ scored, sizes, out=np.zeros(sizes.shape), where=sizes > 0)
    chosen: list[tuple[int, int]] = []
    for place, of_class in enumerate(correlations):
        order = np.argsort(-of_class, kind="stable")
        chosen += [(place, int(k)) for k in order[:_SHOWN] if of_class[k] > 0]
        chosen += [(place, int(k)) for k in order[::-1][:_SHOWN] if of_class[k] < 0]
    if not chosen:
        return StreamCategories(stream, names, correlations, (), len(unit))
    first, second = (np.array(part) for part in zip(*chosen, strict=True))
    drawn = resample_rows(
        [ScoredRows(unit, _correlation_scorer(moved[:, first], scored[:, second]))],
        units=int(unit.max()) + 1,
        resampling=resampling,
    ).drawn[:, 0]
    links = tuple(
        CategoryLink(place, names[k], float(correlations[place, k]), bootstrap_interval(drawn[:, number]))
        for number, (place, k) in enumerate(chosen)
    )
    return StreamCategories(stream, names, correlations, links, len(unit))


def _correlation_scorer(first: Floats, second: Floats) -> RowScorer:
    """Return the scorer of the correlations (b, M) of two sets of M columns (n, M) under weights (b, n)."""
    parts: Sequence[Floats] = (first, second, first * second, first * first, second * second)

    def score(weights: Floats) -> Floats:
        total = weights.sum(axis=1, keepdims=True)
        x, y, xy, xx, yy = (weights @ part / total for part in parts)
        size = np.sqrt(np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0))
        return np.divide(xy - x * y, size, out=np.full(size.shape, np.nan), where=size > 0)

    return score
