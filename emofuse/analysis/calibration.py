"""Whether probabilities can be believed: calibration before and after a temperature, and answers that may be withheld.

Sources: Guo et al., *On calibration of modern neural networks*, ICML 2017 (expected calibration error, temperature);
Geifman and El-Yaniv, *Selective classification for deep neural networks*, NeurIPS 2017 (risk and coverage).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import Ints
from emofuse.statistics import Interval, Resampling, ScoredRows, bootstrap_interval, resample_rows

Floats = npt.NDArray[np.float64]
BINS = 15
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
_TEMPERATURES = (0.05, 20.0)
_SMALLEST = 1e-12


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose confidence lies in one bin.

    Attributes:
        rows: their number.
        confidence: the mean of the largest probability.
        accuracy: the share of right answers.
        interval: Wilson's 95 % interval of the accuracy.
    """

    rows: int
    confidence: float
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy.

    Attributes:
        ece: the expected calibration error over `BINS` even bins.
        ece_interval: its 95 % interval.
        log_loss: the mean negative log of the true class's probability.
        log_loss_interval: its 95 % interval.
        confidence: the mean of the largest probability.
        accuracy: the share of right answers.
        bins: the bins that have rows.
    """

    ece: float
    ece_interval: Interval
    log_loss: float
    log_loss_interval: Interval
    confidence: float
    accuracy: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Coverage:
    """The accuracy in the most confident share of the rows.

    Attributes:
        share: the share of the rows that are answered.
        accuracy: the accuracy in them.
        interval: its 95 % interval.
        threshold: the smallest confidence among them.
    """

    share: float
    accuracy: float
    interval: Interval
    threshold: float


@dataclass(frozen=True)
class Selective:
    """What withholding the least confident answers gains.

    Attributes:
        coverages: the accuracy at some shares.
        curve: the accuracy in the k most confident rows, for k = 1 .. n, float64 (n,).
        aurc: the area under the curve of risk (1 - accuracy) over coverage; smaller is better.
        aurc_interval: its 95 % interval.
        aurc_of_chance: the area if confidence says nothing: the risk of all rows.
        aurc_of_oracle: the area if all right answers came first.
    """

    coverages: tuple[Coverage, ...]
    curve: Floats
    aurc: float
    aurc_interval: Interval
    aurc_of_chance: float
    aurc_of_oracle: float


def with_temperature(probs: Floats, temperature: float) -> Floats:
    """Return probabilities (n, C) of logits divided by the temperature."""
    logits = np.log(np.maximum(probs.astype(np.float64), _SMALLEST)) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    powers = np.exp(logits)
    scaled: Floats = powers / powers.sum(axis=1, keepdims=True)
    return scaled


def fit_temperature(probs: Floats, label: Ints) -> float:
    """Return the temperature with the smallest log loss, between 0.05 and 20, of probabilities (n, C)."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(label))

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(probs, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(scaled[rows, label], _SMALLEST)).mean())

    low, high = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x))


def cross_fitted(
    probs: Floats, label: Ints, unit: Ints, *, parts: int = 5, seed: int = 0
) -> tuple[Floats, list[float]]:
    """Return probabilities whose temperature was fitted on other rows, and the temperatures of all parts.

    Units are dealt to parts; the temperature of a part is fitted on the rows of all others.
    """
    names, place = np.unique(unit, return_inverse=True)
    parts = min(parts, len(names))
    if parts < 2:
        return probs, [1.0]
    part = (np.random.default_rng(seed).permutation(len(names)) % parts)[place]
    scaled, temperatures = np.empty_like(probs, dtype=np.float64), []
    for number in range(parts):
        here = part == number
        temperatures.append(fit_temperature(probs[~here], label[~here]))
        scaled[here] = with_temperature(probs[here], temperatures[-1])
    return scaled, temperatures


def measure_calibration(probs: Floats, label: Ints, unit: Ints, resampling: Resampling) -> Calibration:
    """Measure calibration with intervals over rows or groups.

    Args:
        probs: the probabilities, (n, C).
        label: the true classes, (n,).
        unit: the unit of each row, (n,).
        resampling: the number of resamples and the seed.
    """
    confidence, right = probs.max(axis=1), (probs.argmax(axis=1) == label).astype(np.float64)
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.zeros((len(label), BINS))
    gaps[np.arange(len(label)), place] = right - confidence
    losses = -np.log(np.maximum(probs[np.arange(len(label)), label], _SMALLEST))

    def score(weights: Floats) -> Floats:
        total = np.asarray(weights.sum(axis=1, keepdims=True), np.float64)
        ece = np.abs(weights @ gaps).sum(axis=1, keepdims=True) / total
        return np.concatenate([ece, (weights @ losses)[:, None] / total], axis=1)

    resampled = resample_rows([ScoredRows(unit, score)], units=int(unit.max()) + 1, resampling=resampling)
    bins = []
    for number in range(BINS):
        here = place == number
        if here.any():
            bins.append(
                ReliabilityBin(
                    int(here.sum()),
                    float(confidence[here].mean()),
                    float(right[here].mean()),
                    wilson(int(right[here].sum()), int(here.sum())),
                )
            )
    return Calibration(
        float(resampled.observed[0, 0]),
        bootstrap_interval(resampled.drawn[:, 0, 0]),
        float(resampled.observed[0, 1]),
        bootstrap_interval(resampled.drawn[:, 0, 1]),
        float(confidence.mean()),
        float(right.mean()),
        tuple(bins),
    )


def wilson(right: int, rows: int, z: float = 1.959964) -> Interval:
    """Return Wilson's 95 % interval of a share (Wilson, JASA 1927)."""
    share, square = right / rows, z**2
    middle = (share + square / (2 * rows)) / (1 + square / rows)
    half = z / (1 + square / rows) * np.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
    return Interval(float(max(0.0, middle - half)), float(min(1.0, middle + half)))


def measure_selective(probs: Floats, label: Ints, unit: Ints, resampling: Resampling) -> Selective:
    """Measure the accuracy of the most confident answers, with intervals over rows or groups; arguments as above."""
    confidence, right = probs.max(axis=1), (probs.argmax(axis=1) == label).astype(np.float64)
    order = np.argsort(-confidence, kind="stable")
    curve = np.cumsum(right[order]) / np.arange(1, len(label) + 1)
    resampled = resample_rows(
        [ScoredRows(unit, _selective_scorer(order, right))], units=int(unit.max()) + 1, resampling=resampling
    )
    coverages = []
    for place, share in enumerate(COVERAGES):
        last = min(len(label), max(1, round(share * len(label)))) - 1
        coverages.append(
            Coverage(
                share,
                float(curve[last]),
                bootstrap_interval(resampled.drawn[:, 0, place]),
                float(confidence[order[last]]),
            )
        )
    wrong = int(len(right) - right.sum())
    oracle = np.concatenate([np.zeros(len(right) - wrong), np.arange(1, wrong + 1)]) / np.arange(1, len(right) + 1)
    return Selective(
        tuple(coverages),
        curve,
        float((1 - curve).mean()),
        bootstrap_interval(resampled.drawn[:, 0, -1]),
        float(1 - right.mean()),
        float(oracle.mean()),
    )


def _selective_scorer(order: Ints, right: Floats) -> Callable[[Floats], Floats]:
    """Return the scorer of the accuracies at `COVERAGES` and the area, of weights (b, n)."""

    def score(weights: Floats) -> Floats:
        ordered = np.asarray(weights[:, order], np.float64)
        counted, hits = np.cumsum(ordered, axis=1), np.cumsum(ordered * right[order], axis=1)
        total = counted[:, -1:]
        columns = []
        for share in COVERAGES:
            last = np.minimum((counted < share * total - 1e-9).sum(axis=1), ordered.shape[1] - 1)[:, None]
            columns.append(np.take_along_axis(hits, last, 1) / np.maximum(np.take_along_axis(counted, last, 1), 1))
        risk = 1 - hits / np.maximum(counted, 1)
        columns.append((risk * ordered).sum(axis=1, keepdims=True) / total)
        return np.concatenate(columns, axis=1)

    return score
