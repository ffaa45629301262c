"""A first look at a cache: what each stream, and each subset of streams, says about the labels or another target.

    training and validation rows -> folds -> a kernel of each stream -> for each subset their mean, solved -> answers

A subset is judged by two models that need no training loop. *Kernel fusion* is kernel ridge regression on the mean of
the streams' RBF kernels, with the penalty of the best exact leave-one-out fit (`emofuse.solvers`). *Averaged answers*
are the mean of the probabilities or values that kernel ridge regression gives on each stream alone. Every row is
answered once, by a model of the folds that it is not in. Test rows are never read.

Kernels are approximated by a few hundred training rows (Nystroem; Williams & Seeger, NIPS 2000), so that all 63 subsets
of six streams take seconds to minutes on a CPU. A head of a run uses more of them and is usually somewhat better.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.errors import TrainingError, did_you_mean
from emofuse.heads.links import apply_link
from emofuse.metrics.confusion import accuracy, class_scores, over_classes_that_occur
from emofuse.metrics.multilabel import multilabel_scorer
from emofuse.metrics.probability_metrics import log_loss
from emofuse.metrics.regression import regression_scorer
from emofuse.metrics.targets import target_metrics
from emofuse.metrics.weighted import RowScorer
from emofuse.progress import step
from emofuse.scaling import Scaling
from emofuse.solvers.calibration import calibrate
from emofuse.solvers.kernels import Kernel, KernelKind, StreamRows, stream_kernel, weighted_sum
from emofuse.solvers.ridge import Spectrum, nystroem_map, penalty_grid
from emofuse.specs import FeaturesSpec, FoldSpec, OfficialSplit, RunSpec, SplitSpec, TargetSpec
from emofuse.specs.pca import PCA
from emofuse.statistics.bootstrap import Interval, bootstrap_interval
from emofuse.statistics.resampling import Resampled, Resampling, RunPredictions, resample_metrics
from emofuse.statistics.row_resampling import ScoredRows, resample_rows
from emofuse.training.data import TrainingData
from emofuse.training.members import FeatureTable, Fold
from emofuse.training.targets import THE_LABEL, WITH_CLASSES

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

KERNEL_FUSION, AVERAGED = "kernel fusion", "averaged answers"
ALL_SUBSETS_OF = 6
"""All subsets are tried of at most this many streams; of more, one or two streams, all, and all but one."""

Floats = npt.NDArray[np.float64]

SCORES: Mapping[str, tuple[str, str]] = {
    "class": ("accuracy", "macro_f1"),
    "distribution": ("accuracy", "macro_f1"),
    "regression": ("ccc", "rmse"),
    "multilabel": ("map", "macro_f1"),
}
"""Kind of a target -> the scores of a model, the main one first."""

_ROW_SCORERS: Mapping[str, tuple[Callable[[Floats, Floats], RowScorer], tuple[int, int]]] = {
    "regression": (regression_scorer, (0, 2)),
    "multilabel": (multilabel_scorer, (0, 2)),
}
"""Kind of a target -> the scorer of rows, and the places of the two scores among its scores."""


@dataclass(frozen=True)
class ProbeOptions:
    """How a probe is done.

    Attributes:
        streams: the names of the streams to look at; empty for all streams of the cache.
        folds: the number of folds; None for 5, or 3 beyond 3,000 rows.
        seed: the seed of the folds.
        landmarks: the number of training rows that kernels are computed to.
        penalties: the number of penalties that are tried for each subset and fold.
        resamples: the number of bootstrap resamples of the intervals.
        pca: the principal components of each stream that are looked at, a share of the variance or their number; None
            for all features.
        kernels: the kinds of kernels with their factors (`emofuse.solvers.kernels`). Of several, each stream gets that
            whose predictions of left-out training rows, by the stream alone, have the smallest loss.
    """

    streams: tuple[str, ...] = ()
    folds: int | None = None
    seed: int = 0
    landmarks: int = 512
    penalties: int = 13
    resamples: int = 1000
    pca: float | int | None = None
    kernels: tuple[tuple[KernelKind, float], ...] = (("rbf", 1.0),)


@dataclass(frozen=True)
class ProbedModel:
    """What one model on one subset of streams scores on rows that it has not seen.

    Attributes:
        streams: the subset.
        model: `kernel fusion` or `averaged answers`; a single stream has the first alone.
        scores: name -> score, the main one first (`SCORES`): accuracy and macro F1 of the classes that occur; of
            numbers the mean CCC and RMSE of the columns; of several labels mean average precision and macro F1.
        intervals: name -> the 95 % percentile bootstrap interval of the score over rows.
        loss: the mean cross-entropy in nats, binary of several labels; the squared error of numbers.
        behind_best: the main score of the best model less that of this one, with its paired bootstrap interval.
        behind_best_interval: see `behind_best`.
    """

    streams: tuple[str, ...]
    model: str
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    loss: float
    behind_best: float
    behind_best_interval: Interval

    @property
    def main_score(self) -> float:
        """The score by which models are compared."""
        return next(iter(self.scores.values()))

    def as_json(self) -> dict[str, Any]:
        """Return the model as plain JSON."""
        scores: dict[str, Any] = {}
        for name, score in self.scores.items():
            scores |= {name: score, f"{name}_interval": asdict(self.intervals[name])}
        return {
            "streams": list(self.streams),
            "model": self.model,
            **scores,
            "loss": self.loss,
            "behind_best": self.behind_best,
            "behind_best_interval": asdict(self.behind_best_interval),
        }

    @property
    def is_as_good_as_best(self) -> bool:
        """Whether its distance to the best model may be chance: the interval of the difference reaches 0."""
        return self.behind_best_interval.low <= 0


@dataclass(frozen=True)
class Probe:
    """The result of a probe.

    Attributes:
        models: every model, the one with the best main score first.
        rows: the number of rows that were answered.
        kind: the kind of target.
        classes: the names of the classes, columns or labels.
        folds: the number of folds.
        majority: the share of the most frequent label, which an answer without features would score; None where rows
            have no class.
        pooled: the streams that are sequences or maps, which were averaged over time or place first.
        seconds: the time that all of it took.
    """

    models: tuple[ProbedModel, ...]
    rows: int
    kind: str
    classes: tuple[str, ...]
    folds: int
    majority: float | None
    pooled: tuple[str, ...]
    seconds: float

    @property
    def suggestion(self) -> ProbedModel:
        """The model with the fewest streams among those that cannot be told from the best."""
        equals = [model for model in self.models if model.is_as_good_as_best]
        return min(equals, key=lambda model: (len(model.streams), -model.main_score))

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "models"}
        suggestion = {"streams": list(self.suggestion.streams), "model": self.suggestion.model}
        return {"models": [model.as_json() for model in self.models], **plain, "suggestion": suggestion}


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
    answers = _answers(table, folds, subsets, options, sources)
    rows = np.concatenate([fold.val for fold in folds])
    labels = data.labels[rows]
    values = None if data.values is None else data.values[rows].astype(np.float64)
    models = _scored(answers, _Truth(target.kind, labels, values, data.classes), options, plain)
    pooled = tuple(variant.stream for variant in looked_at if len(variant.shape) > 1)
    majority = float(np.bincount(labels).max() / len(labels)) if target.kind in WITH_CLASSES else None
    seconds = time.perf_counter() - started
    return Probe(models, len(rows), target.kind, tuple(data.classes), count, majority, pooled, seconds)


def _streams(cache: Cache, asked: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in asked if name not in cache.streams]
    if unknown:
        hint = did_you_mean(unknown[0], cache.streams)
        raise TrainingError(f"{cache.path} has no stream {unknown[0]!r}{hint} (there are: {', '.join(cache.streams)})")
    return tuple(asked) or tuple(cache.streams)


def _rows(data: TrainingData, spec: RunSpec) -> npt.NDArray[np.int64]:
    (fold,) = data.folds(spec)
    return np.concatenate([fold.train, fold.val])


def _subsets(streams: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the subsets of the streams, single streams first."""
    count = len(streams)
    sizes = range(1, count + 1) if count <= ALL_SUBSETS_OF else sorted({1, 2, count - 1, count})
    for size in sizes:
        yield from combinations(streams, size)


def _answers(
    table: FeatureTable,
    folds: Sequence[Fold],
    subsets: Sequence[tuple[str, ...]],
    options: ProbeOptions,
    sources: Mapping[str, str],
) -> dict[tuple[tuple[str, ...], str], Floats]:
    """Return (subset, model) -> outputs (n, C) of the rows of all folds, one fold after another."""
    parts: dict[tuple[tuple[str, ...], str], list[Floats]] = {}
    total = len(folds) * len(subsets)
    with step("solving", total, "models") as advance:
        for number, fold in enumerate(folds):
            kernels = FoldKernels(table, fold, options, sources)
            alone: dict[str, Floats] = {}
            for place, subset in enumerate(subsets):
                outputs = kernels.solve(subset)
                parts.setdefault((subset, KERNEL_FUSION), []).append(outputs)
                if len(subset) == 1:
                    alone[subset[0]] = outputs
                else:
                    mean = np.mean([alone[name] for name in subset], axis=0)
                    parts.setdefault((subset, AVERAGED), []).append(mean)
                advance(number * len(subsets) + place + 1, total)
    return {key: np.concatenate(of_folds) for key, of_folds in parts.items()}


class FoldKernels:
    """The kernels of one fold, each stream's computed once for all subsets.

    Args:
        table: the rows.
        fold: the rows that are learned from and those that are answered.
        options: how many landmarks and penalties.
        sources: stream as it is looked at -> the name of its features.
    """

    def __init__(self, table: FeatureTable, fold: Fold, options: ProbeOptions, sources: Mapping[str, str]) -> None:
        self._penalties = options.penalties
        learned, weights = fold.train, table.row_weights(fold)
        if weights is not None:
            learned = learned[weights[learned] > 0]
        self._weights = None if weights is None else torch.from_numpy(weights[learned])
        labels = table.labels[torch.from_numpy(learned)]
        self._groups = None if table.groups is None else table.groups[torch.from_numpy(learned)]
        self._kind, self._link, self._scale = table.target.kind, table.link, table.target_scale(fold)
        self._targets = torch.nn.functional.one_hot(labels, table.classes).to(torch.float64)
        if table.targets is not None:
            self._targets = table.targets[torch.from_numpy(learned)].to(torch.float64)
        if self._scale is not None:
            center, scale = (torch.from_numpy(part).double() for part in (self._scale.center, self._scale.scale))
            self._targets = (self._targets - center) / scale
        landmarks = min(len(learned), options.landmarks)
        self._landmarks = torch.linspace(0, len(learned) - 1, landmarks, dtype=torch.float64).round().long()
        self._train: dict[str, Tensor] = {}
        self._val: dict[str, Tensor] = {}
        for name, source in sources.items():
            scaling = fold.scaling[name]
            train, val = (_stream_rows(table, scaling, source, rows) for rows in (learned, fold.val))
            supports = train.pick(self._landmarks)
            best = math.inf
            for kind, factor in options.kernels:
                kernel = Kernel.fit(kind, train.features[train.valid], factor=factor)
                among, across = (stream_kernel(kernel, rows, supports) for rows in (train, val))
                loss = self._fit({name: among}, {name: across}, [name]).loss if len(options.kernels) > 1 else 0.0
                if loss < best:
                    best, self._train[name], self._val[name] = loss, among, across

    def solve(self, streams: Sequence[str]) -> Floats:
        """Return the outputs (v, C) of the rows to be answered, from the mean kernel of these streams."""
        return self.outputs(self.fit(streams).scores)

    def fit(self, streams: Sequence[str]) -> KernelFit:
        """Fit the mean kernel of these streams, with the penalty of the best leave-one-out predictions."""
        return self._fit(self._train, self._val, streams)

    def outputs(self, scores: Tensor) -> Floats:
        """Return the outputs (n, C) of calibrated scores: probabilities, or numbers in the units of the target."""
        outputs: Floats = apply_link(self._link, scores).numpy()
        return outputs if self._scale is None else outputs * self._scale.scale + self._scale.center

    @property
    def targets(self) -> Tensor:
        """What the training rows teach, float64 (n, C): one-hot for classes, standardised numbers."""
        return self._targets

    def _fit(self, of_train: Mapping[str, Tensor], of_val: Mapping[str, Tensor], streams: Sequence[str]) -> KernelFit:
        train, val = weighted_sum(of_train, streams), weighted_sum(of_val, streams)
        to_features = nystroem_map(train[self._landmarks])
        spectrum = Spectrum.from_features(train @ to_features, self._weights)
        penalties = penalty_grid(spectrum, self._penalties)
        left_out = spectrum.leave_one_out(self._targets, penalties, self._groups)
        calibration = calibrate(self._kind, left_out, self._targets, self._weights)
        best = int(np.argmin(calibration.losses))
        coefficients, bias = spectrum.coefficients(self._targets, penalties[best])
        factor, slopes, offsets = calibration.factors[best], calibration.slopes[best], calibration.offsets[best]
        scores = val @ (to_features @ coefficients) + bias
        return KernelFit(
            factor * (slopes * left_out[best] + offsets),
            factor * (slopes * scores + offsets),
            calibration.losses[best],
        )


@dataclass(frozen=True)
class KernelFit:
    """The calibrated scores of one fit; their link gives outputs.

    Attributes:
        left_out: of the training rows, each by a fit to all others, float64 (n, C).
        scores: of the rows to be answered, float64 (v, C).
        loss: the loss of the left-out rows.
    """

    left_out: Tensor
    scores: Tensor
    loss: float


def _stream_rows(table: FeatureTable, scaling: Scaling, name: str, rows: npt.NDArray[np.int64]) -> StreamRows:
    """Return a stream's rows standardised, float64 (n, D); sequences and maps as their mean over time and place."""
    if not isinstance(table.features, Mapping):
        raise TypeError("features must be in memory")
    present = table.valid[name].numpy()[rows] & scaling.fitted
    steps = table.steps[name].numpy()[rows] if name in table.steps else None
    scaled = scaling.apply(table.features[name][torch.from_numpy(rows)].numpy(), present, steps).astype(np.float64)
    if scaled.ndim > 3:
        scaled = scaled.mean(axis=(-2, -1))
    if steps is not None:
        scaled = scaled.sum(axis=1) / np.maximum(steps.sum(axis=1), 1)[:, None]
    return StreamRows(torch.from_numpy(np.ascontiguousarray(scaled)), torch.from_numpy(present))


@dataclass(frozen=True)
class _Truth:
    """The targets of the answered rows: labels (n,), of targets that are no class also values (n, C)."""

    kind: str
    labels: npt.NDArray[np.int64]
    values: Floats | None
    names: tuple[str, ...]

    def resample(self, answers: Sequence[Floats], options: ProbeOptions) -> Resampled:
        """Return the two scores of every model on the same resamples of the rows."""
        unit, resampling = np.arange(len(self.labels), dtype=np.int64), Resampling(options.resamples, options.seed)
        if self.values is not None and self.kind not in WITH_CLASSES:
            make, places = _ROW_SCORERS[self.kind]
            scorers = [make(self.values, outputs) for outputs in answers]
            runs = [ScoredRows(unit, _some_scores(scorer, places)) for scorer in scorers]
            return resample_rows(runs, units=len(unit), resampling=resampling)
        return resample_metrics(
            [RunPredictions(unit, self.labels, probs.argmax(axis=1)) for probs in answers],
            [accuracy, lambda counts: over_classes_that_occur(class_scores(counts)["f1"], counts)],
            units=len(unit),
            classes=len(self.names),
            resampling=resampling,
        )

    def loss(self, outputs: Floats) -> float:
        """Return the loss of a model."""
        if self.values is None:
            return log_loss(self.labels, outputs)
        return float(target_metrics(self.kind, self.values, outputs, self.names, labels=self.labels)["loss"])


def _some_scores(scorer: RowScorer, places: Sequence[int]) -> RowScorer:
    """Return the scorer of some of the scores, float64 (b, len(places))."""
    return lambda weights: scorer(weights)[:, list(places)]


def _scored(
    answers: Mapping[tuple[tuple[str, ...], str], Floats],
    truth: _Truth,
    options: ProbeOptions,
    plain: Mapping[str, str],
) -> tuple[ProbedModel, ...]:
    """Score all models on the same resamples of the rows, and sort them by their main score."""
    resampled = truth.resample(list(answers.values()), options)
    losses = [truth.loss(outputs) for outputs in answers.values()]
    # A score that the rows do not define, such as that of a constant column, ranks last.
    mains = np.nan_to_num(resampled.observed[:, 0], nan=-np.inf)
    order = sorted(range(len(losses)), key=lambda place: (-mains[place], losses[place]))
    models = []
    for place in order:
        streams, model = list(answers)[place]
        scores = {name: float(resampled.observed[place, number]) for number, name in enumerate(SCORES[truth.kind])}
        intervals = [bootstrap_interval(resampled.drawn[:, place, number]) for number in range(len(scores))]
        models.append(
            ProbedModel(
                streams=tuple(plain[name] for name in streams),
                model=model,
                scores=scores,
                intervals=dict(zip(scores, intervals, strict=True)),
                loss=losses[place],
                behind_best=float(resampled.observed[order[0], 0] - resampled.observed[place, 0]),
                behind_best_interval=_behind(resampled, order[0], place),
            )
        )
    return tuple(models)


def _behind(resampled: Resampled, best: int, place: int) -> Interval:
    return bootstrap_interval(resampled.drawn[:, best, 0] - resampled.drawn[:, place, 0])
