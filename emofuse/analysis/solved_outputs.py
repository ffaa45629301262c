"""The outputs of solved models of every subset of streams, for rows that they have not learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import Ints
from emofuse.analysis.shapley import MOST_PLAYERS, Game, Subset
from emofuse.analysis.solved_models import KERNELS, SubsetModels
from emofuse.cache.reader import Cache
from emofuse.errors import TrainingError
from emofuse.probe import FoldKernels, ProbeOptions
from emofuse.progress import step
from emofuse.report.answers import units_of_groups
from emofuse.specs import FeaturesSpec, OuterFoldsSplit, RunSpec, SplitSpec, TargetSpec, is_random
from emofuse.training.data import TrainingData
from emofuse.training.refits import RefitRun
from emofuse.training.rows import targets_of
from emofuse.training.scoring import split_rows
from emofuse.training.targets import THE_LABEL, WITH_CLASSES

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SolvedOptions:
    """How the models of subsets are solved.

    Attributes:
        split: whose test rows are answered, by models of its training and validation rows; None for outer folds, in
            which every labelled row is answered once.
        folds: the number of outer folds.
        seed: the seed of the outer folds.
        landmarks: the number of training rows that kernels are computed to.
        penalties: the number of penalties that are tried for each subset and fold.
    """

    split: SplitSpec | None = None
    folds: int = 5
    seed: int = 0
    landmarks: int = 512
    penalties: int = 13


@dataclass(frozen=True)
class SolvedOutputs:
    """The outputs of solved models.

    Attributes:
        streams: the streams.
        names: the names of the C classes, columns or labels.
        outputs: subset -> its outputs, float64 (n, C). Without streams: the most frequent class of the training rows,
            as a probability of 1, or the means of their values.
        rows: the rows of the cache that were answered, int64 (n,).
        unit: the unit of each row that resamples draw, int64 (n,).
        labels: the classes of the rows, int64 (n,); 0 or -1 for targets without classes.
        values: the true values of other targets, float64 (n, C); None for classes.
        grouped: whether units are groups of rows.
        models: what the models are, as a sentence.
        random_streams: the streams with random weights.
    """

    streams: tuple[str, ...]
    names: tuple[str, ...]
    outputs: Mapping[Subset, Floats]
    rows: Ints
    unit: Ints
    labels: Ints
    values: Floats | None
    grouped: bool
    models: str
    random_streams: tuple[str, ...]


def solve_outputs(
    cache: Cache,
    streams: Sequence[str] = (),
    options: SolvedOptions | None = None,
    *,
    features: FeaturesSpec | None = None,
    target: TargetSpec = THE_LABEL,
    only: Sequence[Subset] = (),
) -> SolvedOutputs:
    """Solve a model of every subset of the streams of a cache for any kind of target; see `solve_subsets`.

    Raises:
        TrainingError: too many streams, or features that do not fit the memory.
        IncompleteCacheError: blocks of a stream have not been computed yet.
    """
    options = options or SolvedOptions()
    names = tuple(streams) or tuple(cache.streams)
    if len(names) > MOST_PLAYERS:
        raise TrainingError(
            f"{len(names)} streams have {2 ** len(names):,} subsets, at most {MOST_PLAYERS} are looked at. Name fewer: "
            "--streams"
        )
    splits = [options.split] if options.split else outer_folds(options)
    wanted = tuple(only) or Game(names).subsets
    given = FeaturesSpec(streams=names)
    if features is not None:
        chosen = {name: each for name, each in features.variants.items() if name in names}
        given = features.model_copy(update={"streams": names, "variants": chosen})
    targets = targets_of(cache, target)
    parts: dict[Subset, list[Floats]] = {}
    answered = []
    shared = None
    total = len(splits) * len(wanted)
    with step("solving", total, "models") as advance:
        for number, split in enumerate(splits):
            data = TrainingData.of(cache, split, target=target, features=shared)
            shared = data.features
            spec = RefitRun.of(RunSpec(name="subsets", features=given, split=split, target=target))
            if data.window(spec) is not None:
                raise TrainingError(
                    f"the features of {', '.join(names)} do not fit the memory. Name fewer streams: --streams"
                )
            rows = split_rows(targets, data, spec, "test")
            if not len(rows):
                raise TrainingError(f"{cache.path}: its split has no test rows with a label; use --rows folds")
            (fold,) = data.scaled_folds([spec])
            table = data.table([spec])
            variants = {variant.stream: variant.name for variant in data.features.of(given)}
            sources = {variant.name: variant.plain.name for variant in data.features.of(given)}
            how = ProbeOptions(landmarks=options.landmarks, penalties=options.penalties, kernels=KERNELS)
            kernels = FoldKernels(table, replace(fold, val=rows), how, sources)
            models = SubsetModels(kernels, has_classes=target.kind in WITH_CLASSES)
            for place, subset in enumerate(wanted):
                solved = (
                    models.solve([variants[name] for name in names if name in subset])
                    if subset
                    else np.tile(_of_no_stream(data, fold.train, target, len(targets.names)), (len(rows), 1))
                )
                parts.setdefault(subset, []).append(solved)
                advance(number * len(wanted) + place + 1, total)
            answered.append(rows)
    rows = np.concatenate(answered)
    where = (
        "the test rows of the split, from its training and validation rows"
        if options.split
        else f"every row once, in {options.folds} outer folds"
    )
    product = (
        ", or the product of those of each stream where it predicts left-out training rows better"
        if target.kind in WITH_CLASSES
        else ""
    )
    return SolvedOutputs(
        names,
        tuple(targets.names),
        {subset: np.concatenate(of_folds) for subset, of_folds in parts.items()},
        rows,
        units_of_groups(cache.groups[rows]) if cache.has_groups else np.arange(len(rows)),
        targets.labels[rows],
        None if targets.values is None else targets.values[rows].astype(np.float64),
        cache.has_groups,
        f"Models are kernel ridge regressions on the mean of the streams' kernels{product}. They answer {where}.",
        tuple(name for name in names if is_random(cache.streams[name].weights)),
    )


def _of_no_stream(data: TrainingData, learned: Ints, target: TargetSpec, count: int) -> Floats:
    """Return the outputs (C,) of a model without streams."""
    if target.kind in WITH_CLASSES or data.values is None:
        most: Floats = np.eye(count)[np.bincount(data.labels[learned]).argmax()]
        return most
    means: Floats = data.values[learned].astype(np.float64).mean(axis=0)
    return means


def outer_folds(options: SolvedOptions) -> list[SplitSpec]:
    """Return the outer folds, which test every labelled row once."""
    return [OuterFoldsSplit(count=options.folds, index=index, seed=options.seed) for index in range(options.folds)]
