"""How far classes lie apart in the features of each stream, and in the fused vector of the heads."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from emofuse.analysis.answers import Ints, TestedConfiguration
from emofuse.analysis.cached_rows import RunOnRows, open_run, rows_of_samples
from emofuse.cache.reader import Cache
from emofuse.errors import ResultsError
from emofuse.heads.members import HeadBatch
from emofuse.progress import step

Floats = npt.NDArray[np.float64]
NEIGHBOURS = 10


@dataclass(frozen=True)
class Space:
    """The rows in one space.

    Attributes:
        name: a stream, `all streams` (standardised features side by side), or `fused` (the input of the last layer).
        silhouette: the mean silhouette of the classes, from -1 to 1 (Rousseeuw, 1987).
        purity: the mean share of the ten nearest rows that have the class of a row.
        by_chance: the share of the rows of a row's class among all others, which neighbours at random would have.
        places: a map of the rows by t-SNE, (n, 2); nothing if it was not made.
        umap_places: a map of the rows by UMAP, (n, 2); nothing if it was not made.
        rows: the rows that have the stream, as places among the analysed ones, int64 (n,).
    """

    name: str
    silhouette: float
    purity: float
    by_chance: float
    places: Floats | None
    rows: Ints
    umap_places: Floats | None = None


@dataclass(frozen=True)
class Spaces:
    """All spaces of one run of a configuration, on its test rows.

    Attributes:
        spaces: the spaces.
        label: the class of each analysed row, int64 (n,).
        of_all: the number of test rows of the run.
    """

    spaces: tuple[Space, ...]
    label: Ints
    of_all: int


def map_features(
    cache: Cache,
    runs: Path,
    tested: TestedConfiguration,
    *,
    most_rows: int = 2_000,
    seed: int = 0,
    device: str = "cpu",
    umap: bool = False,
) -> Spaces:
    """Measure the spaces of the first run of a configuration on its test rows, with the first of its heads.

    Args:
        cache: the cache that the run was trained on.
        runs: the folder of the runs.
        tested: the configuration.
        most_rows: the largest number of rows to look at, which are drawn at random of more.
        seed: the seed of the draw and of the maps.
        device: the device of the head.
        umap: whether maps by UMAP are made too.
    """
    record, places = tested.repeats[0].parts[0]
    sample_id, label = tested.repeats[0].sample_id[places], tested.repeats[0].label[places]
    chosen = np.arange(len(label))
    if len(chosen) > most_rows:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, most_rows, replace=False))
    opened = open_run(cache, runs, record, rows_of_samples(cache, sample_id[chosen]), device=device)
    vectors, present = _vectors(opened)
    spaces = []
    with step("mapping features", len(vectors), "spaces") as advance:
        for number, (name, values) in enumerate(vectors.items(), start=1):
            rows = np.flatnonzero(present[name])
            space = measure_space(name, values[rows], label[chosen][rows], rows, seed=seed, umap=umap)
            if space is not None:
                spaces.append(space)
            advance(number, len(vectors))
    return Spaces(tuple(spaces), label[chosen], len(label))


def measure_space(
    name: str, values: Floats, label: Ints, rows: Ints, *, seed: int = 0, umap: bool = False
) -> Space | None:
    """Measure one space; None for fewer rows than a neighbourhood needs, or for rows of a single class.

    Args:
        name: the name of the space.
        values: the vectors of n rows, (n, D).
        label: their classes, (n,).
        rows: their places among all analysed rows, (n,).
        seed: the seed of the maps.
        umap: whether a map by UMAP is made too.
    """
    if len(rows) <= NEIGHBOURS + 1 or len(np.unique(label)) < 2:
        return None
    distances = _distances(values)
    counts = np.bincount(label)
    return Space(
        name,
        silhouette_of(distances, label),
        purity_of(distances, label),
        float(np.mean((counts[label] - 1) / (len(label) - 1))),
        _tsne(values, seed),
        rows,
        _umap(values, seed) if umap else None,
    )


def silhouette_of(distances: Floats, label: Ints) -> float:
    """Return the mean silhouette of classes from distances (n, n); a class of one row counts 0."""
    classes = np.unique(label)
    members = (label[:, None] == classes[None, :]).astype(np.float64)
    counts, sums = members.sum(axis=0), distances @ members
    of_row = np.searchsorted(classes, label)
    here = np.arange(len(label))
    within = sums[here, of_row] / np.maximum(counts[of_row] - 1, 1)
    means = sums / counts
    means[here, of_row] = np.inf
    nearest = means.min(axis=1)
    values = (nearest - within) / np.maximum(np.maximum(nearest, within), 1e-12)
    return float(np.where(counts[of_row] > 1, values, 0.0).mean())


def purity_of(distances: Floats, label: Ints, neighbours: int = NEIGHBOURS) -> float:
    """Return the mean share of the nearest rows that have the class of a row, from distances (n, n)."""
    apart = distances.copy()
    np.fill_diagonal(apart, np.inf)
    nearest = np.argpartition(apart, neighbours - 1, axis=1)[:, :neighbours]
    return float((label[nearest] == label[:, None]).mean())


def _distances(values: Floats) -> Floats:
    squares = np.square(values).sum(axis=1)
    products = squares[:, None] + squares[None, :] - 2 * values @ values.T
    np.fill_diagonal(products, 0)
    distances: Floats = np.sqrt(np.maximum(products, 0))
    return distances


def _tsne(values: Floats, seed: int) -> Floats | None:
    """Return a map (n, 2) by t-SNE (van der Maaten and Hinton, 2008); None without scikit-learn."""
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError:
        return None
    if values.shape[1] > 50:
        values = PCA(min(50, len(values) - 1), random_state=seed).fit_transform(values)
    perplexity = min(30.0, (len(values) - 1) / 3)
    places: Floats = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(values).astype(np.float64)
    return places


def _umap(values: Floats, seed: int) -> Floats:
    """Return a map (n, 2) by UMAP (McInnes et al., 2018), which is imported only here: numba takes seconds to load.

    Raises:
        ResultsError: umap-learn is not installed.
    """
    try:
        with warnings.catch_warnings():  # TensorFlow is not installed; a seed means one thread
            warnings.simplefilter("ignore")
            from umap import UMAP

            reducer = UMAP(n_neighbors=min(15, len(values) - 1), random_state=seed, n_jobs=1)
            places: Floats = np.asarray(reducer.fit_transform(values), np.float64)
    except ImportError:
        raise ResultsError("maps by UMAP need umap-learn: pip install 'emofuse[umap]'") from None
    return places


def _vectors(opened: RunOnRows) -> tuple[dict[str, Floats], dict[str, npt.NDArray[np.bool_]]]:
    """Return the vectors (n, D) of each space, and which rows have them."""
    seen, head = opened.inputs[0], opened.trained.heads[0].head
    vectors: dict[str, Floats] = {}
    present: dict[str, npt.NDArray[np.bool_]] = {}
    for stream, values in seen.features.items():
        if values.ndim == 2:
            flat = values
        else:
            flat = values.reshape(len(values), values.shape[1], -1).mean(axis=1 if stream in seen.steps else 2)
        vectors[stream], present[stream] = flat.astype(np.float64), seen.valid[stream]
    everywhere = np.ones(len(next(iter(present.values()))), bool)
    if len(vectors) > 1:
        # Each stream counts alike, however many values it has.
        wide = [values / np.sqrt(values.shape[1]) for values in vectors.values()]
        vectors["all streams"], present["all streams"] = np.concatenate(wide, axis=1), everywhere
    vectors["fused"], present["fused"] = fused_vectors(head, seen.features, seen.valid, seen.steps), everywhere
    return vectors, present


def fused_vectors(
    head: nn.Module, features: Mapping[str, Any], valid: Mapping[str, Any], steps: Mapping[str, Any]
) -> Floats:
    """Return what the last layer of a head sees, (n, W); the logits of a head without such a layer.

    The last layer is the last module that is called with values (1, n, W).
    """
    seen: list[torch.Tensor] = []

    def keep(_: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], torch.Tensor) and given[0].ndim == 3 and given[0].is_floating_point():
            seen.append(given[0])

    leaves = [module for module in head.modules() if not list(module.children())]
    hooks = [module.register_forward_pre_hook(keep) for module in leaves]
    try:
        head.eval()
        with torch.no_grad():
            batch = HeadBatch(
                {name: torch.from_numpy(array).unsqueeze(0) for name, array in features.items()},
                {name: torch.from_numpy(array).unsqueeze(0) for name, array in valid.items()},
                {name: torch.from_numpy(array).unsqueeze(0) for name, array in steps.items()},
            )
            logits = head(batch)[0]
    finally:
        for hook in hooks:
            hook.remove()
    rows = len(next(iter(valid.values())))
    fitting = [each for each in seen if each.shape[:2] == (1, rows)]
    given = [tuple(array.shape[1:]) for array in features.values()]
    last = fitting[-1][0] if fitting and tuple(fitting[-1].shape[2:]) not in given else logits
    vectors: Floats = last.double().numpy()
    return vectors
