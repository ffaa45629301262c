"""A first look at a cache: how well each stream, and each subset of streams, predicts the labels or another target.

    training and validation rows -> folds -> a kernel of each stream -> for each subset their mean, solved -> answers

A subset is scored by two models that need no training loop. *Kernel fusion* is kernel ridge regression on the mean of
the streams' kernels. *Averaged answers* are the mean of the probabilities or values that kernel ridge regression gives
on each stream alone. Every row is answered once, by a model of the folds that it is not in. Test rows are never read.

RBF kernels are approximated by a few hundred training rows (Nystroem; Williams & Seeger, NIPS 2000). The penalty has
the best exact leave-one-out fit (`emofuse.solvers`). All 63 subsets of six streams take seconds to minutes on a CPU. A
head of a run uses more of these rows and is usually somewhat better.

Linear kernels are exact and fast for any number of rows (`emofuse.solvers.subset_ridge`): all 63 subsets come from one
pass over the rows. The penalty of a fold has the smallest loss on rows of the other folds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from emofuse.errors import TrainingError, did_you_mean
from emofuse.probe.linear import linear_answers
from emofuse.probe.rbf import FoldKernels, KernelFit, rbf_answers
from emofuse.probe.results import AVERAGED, KERNEL_FUSION, Probe, ProbedModel, ProbeOptions
from emofuse.probe.scoring import Truth, score_models
from emofuse.specs import FeaturesSpec, FoldSpec, OfficialSplit, RunSpec, SplitSpec, TargetSpec
from emofuse.specs.pca import PCA
from emofuse.training.data import TrainingData
from emofuse.training.targets import THE_LABEL, WITH_CLASSES

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

__all__ = [
    "AVERAGED",
    "KERNEL_FUSION",
    "FoldKernels",
    "KernelFit",
    "Probe",
    "ProbeOptions",
    "ProbedModel",
    "probe_cache",
]

ALL_SUBSETS_OF = 6
"""All subsets are tried of at most this many streams; of more, one or two streams, all, and all but one."""


def probe_cache(
    cache: Cache,
    split: SplitSpec | None = None,
    options: ProbeOptions | None = None,
    target: TargetSpec = THE_LABEL,
    weight_column: str | None = None,
) -> Probe:
    """Score every subset of the streams of a cache on the training and validation rows of a split.

    Args:
        cache: the cache, with all blocks of the streams that are looked at.
        split: the split whose test rows stay unread; by default the dataset's own.
        options: how it is done.
        target: what the streams are to tell.
        weight_column: the column of the weights of rows in training; scores count all rows alike. None for equal ones.

    Raises:
        SpecError: a stream or a column of the target or the weights that is not in the cache.
        IncompleteCacheError: a stream with blocks that have not been computed yet.
        TrainingError: no rows to learn from, or features that do not fit the memory.
    """
    options = options or ProbeOptions()
    if options.kernel == "linear" and options.pca is not None:
        raise TrainingError(
            "principal components are fitted in each fold, and a linear probe reads the rows once for all folds. Its "
            "penalty already shrinks the small components: leave out --pca, or take --kernel rbf"
        )
    started = time.perf_counter()
    names = _streams(cache, options.streams)
    split = split or OfficialSplit()
    data = TrainingData.of(cache, split, target=target, weight_column=weight_column)
    variants = {} if options.pca is None else {name: {PCA: options.pca} for name in names}
    features = FeaturesSpec(streams=names, variants=variants)
    spec = RunSpec(name="probe", features=features, split=split, target=target, weight_column=weight_column)
    count = options.folds or (5 if len(_rows(data, spec)) <= 3000 else 3)
    specs = [
        spec.model_copy(update={"fold": FoldSpec(count=count, index=index, seed=options.seed)})
        for index in range(count)
    ]
    if data.window(specs[0]) is not None:
        raise TrainingError(
            f"the features of {', '.join(names)} do not fit the memory, and a probe needs them there. Name fewer "
            "streams: --streams"
        )
    table, folds = data.table(specs), data.scaled_folds(specs)
    looked_at = data.features.of(spec.features)
    subsets = list(_subsets([variant.name for variant in looked_at]))
    plain = {variant.name: variant.stream for variant in looked_at}
    sources = {variant.name: variant.plain.name for variant in looked_at}
    find_answers = linear_answers if options.kernel == "linear" else rbf_answers
    answers = find_answers(table, folds, subsets, options, sources)
    rows = np.concatenate([fold.val for fold in folds])
    labels = data.labels[rows]
    values = None if data.values is None else data.values[rows].astype(np.float64)
    units, groups = _units(data.groups[rows])
    models = score_models(answers, Truth(target.kind, labels, values, data.classes, units), options, plain)
    pooled = tuple(variant.stream for variant in looked_at if len(variant.shape) > 1)
    majority = float(np.bincount(labels).max() / len(labels)) if target.kind in WITH_CLASSES else None
    seconds = time.perf_counter() - started
    return Probe(
        models, len(rows), target.kind, tuple(data.classes), count, majority, pooled, seconds, options.kernel, groups
    )


def _streams(cache: Cache, asked: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in asked if name not in cache.streams]
    if unknown:
        hint = did_you_mean(unknown[0], cache.streams)
        raise TrainingError(f"{cache.path} has no stream {unknown[0]!r}{hint} (there are: {', '.join(cache.streams)})")
    return tuple(asked) or tuple(cache.streams)


def _units(groups: npt.NDArray[np.str_]) -> tuple[npt.NDArray[np.int64], int | None]:
    """Return the unit of each row that resamples draw, and the number of units if any row has a group.

    All rows of a group are one unit: pictures of one person are right or wrong together. A row without a group is its
    own unit.
    """
    rows = len(groups)
    if not (groups != "").any():
        return np.arange(rows, dtype=np.int64), None
    numbers = np.where(groups != "", np.unique(groups, return_inverse=True)[1], rows + np.arange(rows))
    units = np.unique(numbers, return_inverse=True)[1].astype(np.int64)
    return units, int(units.max()) + 1


def _rows(data: TrainingData, spec: RunSpec) -> npt.NDArray[np.int64]:
    (fold,) = data.folds(spec)
    return np.concatenate([fold.train, fold.val])


def _subsets(streams: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the subsets of the streams, single streams first."""
    count = len(streams)
    sizes = range(1, count + 1) if count <= ALL_SUBSETS_OF else sorted({1, 2, count - 1, count})
    for size in sizes:
        yield from combinations(streams, size)
