"""Measure closed-form probes: every subset of streams, at every penalty, in every fold.

    python -m benchmarks.probe            two cores, about 4 minutes, 9 GB of memory
    python -m benchmarks.probe --smoke    the same code in seconds; its numbers mean nothing

- `linear`: ridge regressions on all 63 subsets of the paper's six streams (5,811 columns), 10 penalties, 5 folds, of
  EmoSet-118K's 94,481 training rows, exact (`emofuse.solvers.subset_ridge`), with scores and intervals of every subset.
- `rbf`: kernel ridge regressions by 512 landmarks, on all 31 subsets of five streams of 11,300 rows, 13 penalties, 3
  folds.
- `sklearn`: one of the linear fits by scikit-learn on fewer rows, with the operations of all of them: what the whole
  would take that way. It is an estimate, not a measurement.

Features are synthetic (`benchmarks.synthetic`). Written after each part: `benchmarks/results/probe.json`.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results_file import RESULTS, write_result
from benchmarks.synthetic import CLASSES, DIMS, TRAIN_ROWS, Synthetic, make_synthetic
from emofuse.probe import KERNEL_FUSION, ProbeOptions
from emofuse.probe.linear import linear_answers
from emofuse.probe.rbf import rbf_answers
from emofuse.probe.results import Answers
from emofuse.probe.scoring import Truth, score_models

RBF_STREAMS = ("lbp", "landmarks", "action_units", "objects", "resnet50")
_SKLEARN_ROWS = 6000


@dataclass(frozen=True)
class Sizes:
    """What is measured; the smaller sizes are for a smoke test."""

    dims: dict[str, int]
    rows: int = TRAIN_ROWS
    rbf_rows: int = 11_300
    folds: int = 5
    penalties: int = 10
    landmarks: int = 512

    @classmethod
    def smoke(cls) -> Sizes:
        """Return sizes of which a run takes seconds."""
        return cls({name: max(3, dim // 50) for name, dim in DIMS.items()}, 400, 300, 3, 3, 40)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=["linear", "rbf", "sklearn"], default=["linear", "rbf", "sklearn"]
    )
    parser.add_argument("--smoke", action="store_true", help="few rows and narrow streams")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    arguments = parser.parse_args(argv)
    sizes = Sizes.smoke() if arguments.smoke else Sizes(dict(DIMS))
    numbers: dict[str, Any] = {"threads": torch.get_num_threads(), "smoke": arguments.smoke, "features": sizes.dims}
    written = partial(
        write_result, "probe_smoke" if arguments.smoke else "probe", numbers, script="probe", folder=arguments.out
    )
    if "linear" in arguments.parts:
        numbers["linear"] = linear_part(sizes)
        written()
    if "rbf" in arguments.parts:
        numbers["rbf"] = rbf_part(sizes)
        written()
    if "sklearn" in arguments.parts:
        numbers["sklearn"] = sklearn_part(sizes)
        written()
    print(written())


def linear_part(sizes: Sizes) -> dict[str, Any]:
    """Return the seconds of all subsets, penalties and folds of the linear probe, and those of its scores."""
    data = make_synthetic(sizes.rows, CLASSES, sizes.dims)
    options = ProbeOptions(kernel="linear", penalties=sizes.penalties)
    return measure(data, tuple(sizes.dims), sizes.folds, options)


def rbf_part(sizes: Sizes) -> dict[str, Any]:
    """Return the same of the RBF probe on five streams."""
    data = make_synthetic(sizes.rbf_rows, CLASSES, {name: sizes.dims[name] for name in RBF_STREAMS})
    return measure(data, RBF_STREAMS, 3, ProbeOptions(landmarks=sizes.landmarks))


def measure(data: Synthetic, streams: Sequence[str], folds: int, options: ProbeOptions) -> dict[str, Any]:
    """Answer and score all subsets once, and return the seconds, also those of the processors."""
    subsets = [subset for size in range(1, len(streams) + 1) for subset in combinations(streams, size)]
    parts = data.folds(folds)
    find = linear_answers if options.kernel == "linear" else rbf_answers
    gc.collect()
    start, processors = time.perf_counter(), time.process_time()
    answers = find(data.table, parts, subsets, options, {name: name for name in streams})
    answered = time.perf_counter()
    rows = np.concatenate([fold.val for fold in parts])
    labels = data.table.labels.numpy()[rows]
    units = np.arange(len(rows), dtype=np.int64)
    truth = Truth("class", labels, None, tuple(map(str, range(CLASSES))), units)
    models = score_models(answers, truth, options, {name: name for name in streams})
    found = {
        "rows": len(rows),
        "subsets": len(subsets),
        "penalties": options.penalties,
        "folds": folds,
        "fits": len(subsets) * options.penalties * folds,
        "answer_seconds": round(answered - start, 2),
        "score_seconds": round(time.perf_counter() - answered, 2),
        "seconds": round(time.perf_counter() - start, 2),
        "processor_seconds": round(time.process_time() - processors, 2),
        "best": {"streams": list(models[0].streams), "model": models[0].model, "accuracy": models[0].main_score},
        "accuracy": accuracies(answers, labels),
    }
    print({name: value for name, value in found.items() if name != "accuracy"}, flush=True)
    return found


def accuracies(answers: Answers, labels: np.ndarray) -> dict[str, float]:
    """Return the accuracy of single streams and of all of them."""
    shown = {key: outputs for key, outputs in answers.items() if key[1] == KERNEL_FUSION}
    widest = max(len(subset) for subset, _ in shown)
    return {
        " + ".join(subset): round(float((outputs.argmax(1) == labels).mean()), 4)
        for (subset, _), outputs in shown.items()
        if len(subset) in {1, widest}
    }


def sklearn_part(sizes: Sizes) -> dict[str, Any]:
    """Time scikit-learn's Ridge on all streams of some rows, at one penalty.

    Its time grows with the rows and with the square of the columns. Applied to all subsets, penalties, folds and rows
    this gives an estimate, which counts no time for the factor of the matrix and so is too low.
    """
    try:
        from sklearn.linear_model import Ridge
    except ImportError:
        return {"not_measured": "scikit-learn is not installed"}
    rows = min(sizes.rows, _SKLEARN_ROWS)
    data = make_synthetic(rows, CLASSES, sizes.dims)
    columns = np.concatenate([tensor.numpy() for tensor in data.table.features.values()], axis=1)
    goal = np.eye(CLASSES, dtype=np.float32)[data.table.labels.numpy()]
    start = time.perf_counter()
    Ridge(alpha=1.0, solver="cholesky").fit(columns, goal)
    seconds = time.perf_counter() - start
    subsets = [subset for size in range(1, len(sizes.dims) + 1) for subset in combinations(sizes.dims, size)]
    squares = sum(sum(sizes.dims[name] for name in subset) ** 2 for subset in subsets)
    fits = squares / sum(sizes.dims.values()) ** 2 * sizes.penalties * sizes.folds
    train_rows = sizes.rows * (1 - 1 / sizes.folds)
    return {
        "rows": rows,
        "seconds_of_one_fit": round(seconds, 2),
        "estimated_seconds_of_all": round(seconds * fits * train_rows / rows),
    }


if __name__ == "__main__":
    main()
