"""Estimate the memory and time of exact heads from their numbers of rows, features and penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emofuse.specs import AveragedLogisticHeadSpec, KernelRidgeHeadSpec, LogisticHeadSpec, RunSpec
from emofuse.training.data import TrainingData
from emofuse.training.rates import Rates

_ITEM_BYTES = 8  # float64
_EIGEN = 10  # operations of an eigendecomposition of n columns, as a multiple of n^3
_PRODUCTS = 150  # typical products of rows and a matrix in a logistic regression: Newton steps x conjugate gradients
_FLOAT64 = 2.5  # time of a product, as a multiple of that in float32


@dataclass(frozen=True)
class ExactCost:
    """The cost of exact heads that are solved one after another on shared matrices.

    Attributes:
        memory_bytes: the largest memory at any time.
        parameters: the number of parameters of all heads together.
        seconds: the estimated time.
    """

    memory_bytes: int
    parameters: int
    seconds: float


def exact_cost(data: TrainingData, specs: Sequence[RunSpec], rates: Rates) -> ExactCost:
    """Return the cost of runs of one exact head, of any folds and streams.

    Args:
        data: of the runs' split.
        specs: the runs.
        rates: the speed of the machine, in float32.
    """
    folds, classes = data.folds(specs[0]), len(data.classes)
    by_fold: dict[int, list[RunSpec]] = {}
    for spec in specs:
        by_fold.setdefault(spec.fold.index if spec.fold else 0, []).append(spec)
    memory, parameters, flops = 0, 0, 0.0
    for index, of_fold in by_fold.items():
        rows, val = len(folds[index].train), len(folds[index].val)
        variants = data.all_variants(of_fold)
        width = sum(variant.dim for variant in variants)
        head = of_fold[0].head
        of_rows = (rows + val) * width
        if isinstance(head, KernelRidgeHeadSpec):
            supports = min(rows, head.landmarks)
            matrices = (len(variants) + 4) * (rows + val) * supports
            parameters += len(of_fold) * (supports + 1) * classes
            solved = _EIGEN * supports**3 + head.penalties * 4 * rows * supports * (classes + 1)
            solved += 0 if supports == rows else 2 * rows * supports**2
            flops += 2 * (rows + val) * supports * width + len(of_fold) * solved
        else:
            widest = max(sum(widths) for spec in of_fold for widths in _solved_widths(data, spec))
            matrices = 3 * min(rows, widest) ** 2 + (rows + val) * widest
            flops += sum(_logistic_flops(data, spec, rows, classes) for spec in of_fold)
            parameters += sum((sum(widths) + 1) * classes for spec in of_fold for widths in _solved_widths(data, spec))
        memory = max(memory, _ITEM_BYTES * (of_rows + matrices))
    return ExactCost(
        memory + data.features.nbytes(data.all_variants(specs)), parameters, _FLOAT64 * flops / rates.flops_per_s
    )


def _logistic_flops(data: TrainingData, spec: RunSpec, rows: int, classes: int) -> float:
    if not isinstance(spec.head, LogisticHeadSpec | AveragedLogisticHeadSpec):
        raise TypeError(f"expected a logistic head, got {spec.head.kind!r}")
    flops = 0
    for widths in _solved_widths(data, spec):
        rank = min(rows, sum(widths))
        flops += 2 * rows * sum(widths) * rank + _EIGEN * rank**3
        flops += _PRODUCTS * 2 * rows * rank * classes * len(spec.head.penalties)
    return float(flops)


def _solved_widths(data: TrainingData, spec: RunSpec) -> list[list[int]]:
    """Return the widths of the streams of each regression: all together, or one regression for each stream."""
    widths = [variant.dim for variant in data.features.of(spec.features)]
    return [[width] for width in widths] if isinstance(spec.head, AveragedLogisticHeadSpec) else [widths]
