"""Accuracy of emofuse's heads beside tuned scikit-learn and LightGBM on the same cached features and the same splits.

    python -m benchmarks.heads_accuracy --cache PATH --part faces --splits 10
    python -m benchmarks.heads_accuracy --cache PATH --part fer2013 --splits 3

`faces` are the photographs of `benchmarks.faces` in stratified splits 70/20/10; `fer2013` is the folder that
`benchmarks.fer2013` writes, with its own test rows and validation rows drawn from its training rows. The cache
holds the streams of `cache_specs/faces.yaml` and is built before: `emofuse cache build`.

Everybody chooses on the same validation rows and is scored on the same test rows once. Every model of scikit-learn and
LightGBM is fitted for each setting of its grid to the training rows, and with the best one again to training and
validation rows together. Its features are those that heads see, side by side: standardised by `StandardScaler` on the
rows it is fitted to, zeros and a column of their own for missing ones. Intervals of `faces` are those of the corrected
resampled t-test, because splits overlap; those of `fer2013` cover its test images. Seconds are CPU seconds of all that
is fitted for one split. Results are written after every model. LightGBM is no part of the extras: pip install lightgbm.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.results_file import write_result
from emofuse.cache.reader import Cache, open_cache
from emofuse.features import derived_features
from emofuse.results import read_predictions, run_dir
from emofuse.specs import (
    ConcatHeadSpec,
    EnsembleSpec,
    FeaturesSpec,
    GatedHeadSpec,
    HoldoutSplit,
    KernelRidgeHeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
    LogisticHeadSpec,
    RunSpec,
    SplitSpec,
    StratifiedSplit,
    TrainSpec,
)
from emofuse.statistics import corrected_resampled_t
from emofuse.training.data import TrainingData
from emofuse.training.runs import train_runs

TEST_TO_TRAIN = 1 / 9  # of splits 70/20/10 whose models see training and validation rows
STREAMS = ("lbp", "landmarks", "action_units", "squeezenet1_1", "mobilenet_v2")
SMALL = TrainSpec(
    epochs=60, learning_rate=3e-4, weight_decay=1e-2, optimizer="adamw", batch_size=64, label_smoothing=0.1
)
CONCAT = ConcatHeadSpec(embed_dim=128, depth=1, width=256, dropout=0.3)
FOLDS = EnsembleSpec(folds=5)
HEADS: dict[str, dict[str, Any]] = {
    "concat, the paper's defaults": {},
    "concat of pipelines/faces.yaml": {"head": CONCAT, "train": SMALL},
    "concat, trained again on train + val": {"head": CONCAT, "train": SMALL, "refit": "train_val"},
    "concat, mean of three seeds": {"head": CONCAT, "train": SMALL, "ensemble": EnsembleSpec(seeds=(0, 1, 2))},
    "concat, mean of five fold heads": {"head": CONCAT, "train": SMALL, "ensemble": FOLDS},
    "gated": {"head": GatedHeadSpec(embed_dim=128, depth=1, width=256, dropout=0.3), "train": SMALL},
    "late": {"head": LateHeadSpec(embed_dim=128, depth=1, width=256, dropout=0.3), "train": SMALL},
    "linear": {"head": LinearHeadSpec(), "train": SMALL},
    "logistic": {"head": LogisticHeadSpec()},
    "logistic, again on train + val": {"head": LogisticHeadSpec(), "refit": "train_val"},
    "logistic, mean of five fold heads": {"head": LogisticHeadSpec(), "ensemble": FOLDS},
    "kernel_ridge": {"head": KernelRidgeHeadSpec()},
    "kernel_ridge, again on train + val": {"head": KernelRidgeHeadSpec(), "refit": "train_val"},
}


@dataclass(frozen=True)
class Rows:
    """The rows of one split, as indices into the cache, and the labels of all rows."""

    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--part", choices=("faces", "fer2013"), required=True)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--runs", type=Path, default=Path("emofuse-runs/heads_accuracy"))
    parser.add_argument("--only", default="", help="names of models, with commas; all unless given")
    parser.add_argument("--out", type=Path, help="folder of the JSON instead of benchmarks/results")
    arguments = parser.parse_args()

    cache = open_cache(arguments.cache)
    splits: list[SplitSpec] = [
        StratifiedSplit(seed=seed) if arguments.part == "faces" else HoldoutSplit(seed=seed)
        for seed in range(arguments.splits)
    ]
    wanted = [name.strip() for name in arguments.only.split(",") if name.strip()]
    table: list[dict[str, Any]] = []
    for name, scores in models(cache, splits, arguments.runs / arguments.part):
        if wanted and name not in wanted:
            continue
        table.append(describe(name, list(scores()), overlapping=arguments.part == "faces"))
        print(json.dumps(table[-1]), flush=True)
        numbers = {"rows": len(cache), "streams": STREAMS, "splits": len(splits), "models": table}
        options = {"folder": arguments.out} if arguments.out else {}
        write_result(f"heads_accuracy_{arguments.part}", numbers, script="heads_accuracy", **options)


def models(
    cache: Cache, splits: Sequence[SplitSpec], runs: Path
) -> Iterator[tuple[str, Callable[[], Iterator[dict[str, float]]]]]:
    """Yield each model with a function that scores it on all splits."""
    for name, options in HEADS.items():
        yield name, lambda options=options: score_head(cache, splits, options, runs)
    features = side_by_side(cache)
    rows = [rows_of(cache, split) for split in splits]
    for name, grid in REFERENCES.items():
        yield name, lambda grid=grid: (score_reference(grid, features, each) for each in rows)


def score_head(
    cache: Cache, splits: Sequence[SplitSpec], options: Mapping[str, Any], runs: Path
) -> Iterator[dict[str, float]]:
    """Yield the test scores of one head on each split."""
    for split in splits:
        spec = RunSpec(name="head", features=FeaturesSpec(streams=STREAMS), split=split, **options)
        started = time.process_time()
        ((record, is_new),) = train_runs(cache, [spec], runs, device="cpu")
        seconds = time.process_time() - started if is_new else math.nan
        found = read_predictions(run_dir(runs, record.digest))
        yield scored(found.label, found.probs.argmax(axis=1)) | {"seconds": seconds}


def score_reference(
    grid: Sequence[Callable[[], ClassifierMixin]], features: npt.NDArray[np.float32], rows: Rows
) -> dict[str, float]:
    """Return the test scores of the best setting of a grid on one split."""
    started = time.process_time()
    fitted = [_fit(make, features, rows.labels, rows.train) for make in grid]
    scores = [f1_score(rows.labels[rows.val], one.predict(features[rows.val]), average="macro") for one in fitted]
    best = grid[int(np.argmax(scores))]
    chosen = _fit(best, features, rows.labels, np.concatenate([rows.train, rows.val]))
    seconds = time.process_time() - started
    return scored(rows.labels[rows.test], chosen.predict(features[rows.test])) | {"seconds": seconds}


def _fit(
    make: Callable[[], ClassifierMixin],
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: the grid holds settings that a user would try as well
        return make_pipeline(StandardScaler(), make()).fit(features[rows], labels[rows])


def scored(labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64]) -> dict[str, float]:
    return {
        "accuracy": float(accuracy_score(labels, answers)),
        "macro_f1": float(f1_score(labels, answers, average="macro")),
        "rows": float(len(labels)),
    }


def describe(name: str, scores: Sequence[Mapping[str, float]], *, overlapping: bool) -> dict[str, Any]:
    """Return one line of the table: means with intervals, each split's scores, and the median CPU seconds of a split.

    Args:
        name: the name of the model.
        scores: the scores of each split.
        overlapping: whether the test rows change with the split. If they stay, the interval is that of the accuracy on
            so many rows (normal approximation of the binomial) and covers images alone.
    """
    row: dict[str, Any] = {"name": name, "cpu_s_a_split": round(float(np.nanmedian([s["seconds"] for s in scores])), 2)}
    for metric in ("accuracy", "macro_f1"):
        values = np.array([score[metric] for score in scores])
        row[metric] = {"mean": round(float(values.mean()), 4), "each": [round(float(value), 4) for value in values]}
        if overlapping and len(values) > 1:
            interval = corrected_resampled_t(values, TEST_TO_TRAIN).interval
            row[metric]["interval"] = [round(interval.low, 4), round(interval.high, 4)]
    if not overlapping:
        share, rows = row["accuracy"]["mean"], scores[0]["rows"]
        reach = 1.96 * math.sqrt(share * (1 - share) / rows)
        row["accuracy"]["interval"] = [round(share - reach, 4), round(share + reach, 4)]
    return row


def rows_of(cache: Cache, split: SplitSpec) -> Rows:
    data = TrainingData.of(cache, split)
    test = np.flatnonzero((data.splits == "test") & (cache.labels >= 0))
    (fold,) = data.folds(RunSpec(name="rows", features=FeaturesSpec(streams=STREAMS), split=split))
    return Rows(fold.train, fold.val, test, cache.labels)


def side_by_side(cache: Cache) -> npt.NDArray[np.float32]:
    """Return (N, D) float32: all streams as heads see them before standardisation, and a column for missing rows."""
    parts = []
    spec = FeaturesSpec(streams=STREAMS)
    for name in STREAMS:
        stream = cache.streams[name]
        stored, status = stream.read(0, np.float32)
        valid = status == 1
        parts.append(np.where(valid[:, None], derived_features(stream.kind, stored, spec, name), 0))
        if not valid.all():
            parts.append(~valid[:, None])
    return np.concatenate(parts, axis=1).astype(np.float32)


def _lightgbm(**options: Any) -> Callable[[], ClassifierMixin]:
    def make() -> ClassifierMixin:
        from lightgbm import LGBMClassifier

        return LGBMClassifier(n_estimators=200, colsample_bytree=0.2, verbose=-1, n_jobs=2, random_state=0, **options)

    return make


REFERENCES: dict[str, list[Callable[[], ClassifierMixin]]] = {
    "scikit-learn LogisticRegression": [
        lambda c=c: LogisticRegression(C=c, max_iter=300) for c in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    ],
    "scikit-learn SVC (RBF)": [lambda c=c, g=g: SVC(C=c, gamma=g) for c in (1.0, 3.0, 10.0) for g in ("scale", "auto")],
    "scikit-learn LDA": [
        lambda s=s: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s) for s in ("auto", 0.3, 0.6, 0.9)
    ],
    "scikit-learn MLP": [
        lambda a=a: MLPClassifier((256,), alpha=a, early_stopping=True, random_state=0) for a in (1e-3, 1e-1, 1.0)
    ],
    "LightGBM": [_lightgbm(num_leaves=15), _lightgbm(num_leaves=31)],
}


if __name__ == "__main__":
    main()
