"""Accuracy of emofuse's heads beside tuned scikit-learn and LightGBM on the same cached features and the same splits.

    python -m benchmarks.heads_accuracy --cache PATH --part faces --splits 10
    python -m benchmarks.heads_accuracy --cache PATH --part fer2013 --splits 3
    python -m benchmarks.heads_accuracy --cache PATH --part fer2013 --splits 3 --missing --minutes 5

`faces` are the photographs of `benchmarks.faces` in stratified splits 70/20/10; `fer2013` is the folder that
`benchmarks.fer2013` writes, with its own test rows and validation rows drawn from its training rows. The cache
holds the streams of `cache_specs/faces.yaml` and is built before: `emofuse cache build`.

Everybody chooses on the same validation rows and is scored on the same test rows once. Every model of scikit-learn and
LightGBM is fitted for each setting of its grid to the training rows. The setting with the best validation accuracy is
fitted again to training and validation rows together and gives the test accuracy; the one with the best validation
macro F1 gives the test macro F1. (A head of emofuse has one choice for both.) Their features are those that heads see,
side by side: standardised by `StandardScaler` on the rows they are fitted to, zeros and a column of their own for
missing ones.

`accuracy_without_copies` leaves out test images of which a file with the same bytes is among the other rows: FER2013
has many. Intervals of `faces` are those of the corrected resampled t-test, because splits overlap; those of `fer2013`
cover its test images. Seconds are CPU seconds of all that is fitted for one split. Results are written after every
model, beside those of models that an earlier call has measured (`--only`, `--missing`). LightGBM is no part of the
extras: pip install lightgbm.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.fer2013 import EMOTIONS
from benchmarks.results_file import RESULTS, write_result
from emofuse.cache.reader import Cache, open_cache
from emofuse.features import derived_features
from emofuse.results import read_predictions, run_dir
from emofuse.specs import (
    AveragedLogisticHeadSpec,
    ConcatHeadSpec,
    DistributionTarget,
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
from emofuse.sweep.best import BestOptions, run_best
from emofuse.sweep.options import SweepOptions
from emofuse.training.data import TrainingData
from emofuse.training.runs import train_runs

TEST_TO_TRAIN = 1 / 9  # of splits 70/20/10 whose models see training and validation rows
STREAMS = ("lbp", "landmarks", "action_units", "squeezenet1_1", "mobilenet_v2")
FEATURES = FeaturesSpec(streams=STREAMS)
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
    "concat, balanced classes": {"head": CONCAT, "train": SMALL.model_copy(update={"class_weights": "balanced"})},
    "logistic": {"head": LogisticHeadSpec()},
    "logistic, again on train + val": {"head": LogisticHeadSpec(), "refit": "train_val"},
    "logistic, mean of five fold heads": {"head": LogisticHeadSpec(), "ensemble": FOLDS},
    "averaged_logistic, again on train + val": {"head": AveragedLogisticHeadSpec(), "refit": "train_val"},
    "kernel_ridge": {"head": KernelRidgeHeadSpec()},
    "kernel_ridge, again on train + val": {"head": KernelRidgeHeadSpec(), "refit": "train_val"},
}
BEST = "emofuse sweep best"
BEST_MINUTES = {"faces": 2.0, "fer2013": 10.0}

OF_VOTES: dict[str, dict[str, Any]] = {
    f"{name}, votes": {**HEADS[name], "target": DistributionTarget(columns=tuple(f"votes_{e}" for e in EMOTIONS))}
    for name in (
        "concat of pipelines/faces.yaml",
        "concat, mean of five fold heads",
        "logistic, again on train + val",
        "kernel_ridge, again on train + val",
    )
}
"""Heads that learn the votes of FER+ in place of the label with the most votes; they are scored by that label."""


@dataclass(frozen=True)
class Rows:
    """The rows of one split, as indices into the cache.

    Attributes:
        train: (n,) int64.
        val: (m,) int64.
        test: (t,) int64.
        labels: the classes of all rows of the cache, (N,) int64.
        is_seen: (t,) bool, whether a file with the same bytes as that of a test row is among the other rows.
    """

    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    is_seen: npt.NDArray[np.bool_]

    def score(self, answers: npt.NDArray[np.int64]) -> dict[str, float]:
        """Return the scores of the classes (t,) that a model gives to the test rows."""
        labels, new = self.labels[self.test], ~self.is_seen
        return {
            **{name: score(labels, answers) for name, score in SCORES.items()},
            "accuracy_without_copies": _accuracy(labels[new], answers[new]),
            "rows": float(len(labels)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--part", choices=("faces", "fer2013"), required=True)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--runs", type=Path, default=Path("emofuse-runs/heads_accuracy"))
    parser.add_argument("--only", default="", help="names of models, with semicolons between them; all unless given")
    parser.add_argument("--missing", action="store_true", help="only heads that the result lacks, the cheapest first")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further model after this time")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args()

    began = time.monotonic()
    cache = open_cache(arguments.cache)
    splits: list[SplitSpec] = [
        StratifiedSplit(seed=seed) if arguments.part == "faces" else HoldoutSplit(seed=seed)
        for seed in range(arguments.splits)
    ]
    wanted = [name.strip() for name in arguments.only.split(";") if name.strip()]
    result = f"heads_accuracy_{arguments.part}"
    if arguments.missing:
        wanted = missing_heads(arguments.out / f"{result}.json")
        print(f"lacking: {'; '.join(wanted) or 'none'}", flush=True)
    contenders = dict(models(cache, splits, arguments.runs / arguments.part, BEST_MINUTES[arguments.part]))
    names = [name for name in wanted if name in contenders] if wanted or arguments.missing else list(contenders)
    for name in names:
        if time.monotonic() - began > 60 * arguments.minutes:
            print(f"not begun after {arguments.minutes:g} minutes: {'; '.join(names[names.index(name) :])}", flush=True)
            break
        scores = contenders[name]
        row = describe(name, list(scores()), overlapping=arguments.part == "faces")
        print(json.dumps(row), flush=True)
        numbers = {"rows": len(cache), "streams": STREAMS, "splits": len(splits)}
        rows = {each["name"]: each for each in [*known_models(arguments.out / f"{result}.json", numbers), row]}
        models_in_order = [rows[each] for each in (BEST, *HEADS, *OF_VOTES, *REFERENCES) if each in rows]
        write_result(result, {**numbers, "models": models_in_order}, script="heads_accuracy", folder=arguments.out)


def missing_heads(path: Path) -> list[str]:
    """Return the heads that a result lacks, the cheapest on the faces first.

    Logistic regressions come last, because their time grows most with the number of rows.
    """
    models = json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else []
    there = {each["name"] for each in models}
    faces = json.loads((RESULTS / "heads_accuracy_faces.json").read_text(encoding="utf-8"))["models"]
    seconds = {each["name"]: each["cpu_s_a_split"] for each in faces}
    lacking = [name for name in (*HEADS, *OF_VOTES) if name not in there]
    return sorted(lacking, key=lambda name: ("logistic" in name, seconds.get(name.removesuffix(", votes"), math.inf)))


def known_models(path: Path, numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the models of a result, if it was measured on the same rows, streams and splits."""
    if not path.is_file():
        return []
    result = json.loads(path.read_text(encoding="utf-8"))
    measured_alike = all(result.get(key) == json.loads(json.dumps(value)) for key, value in numbers.items())
    return list(result["models"]) if measured_alike else []


def models(
    cache: Cache, splits: Sequence[SplitSpec], runs: Path, minutes: float
) -> Iterator[tuple[str, Callable[[], Iterator[dict[str, float]]]]]:
    """Yield each model with a function that scores it on all splits."""
    yield BEST, lambda: score_best(cache, splits, runs, minutes)
    has_votes = "votes_fear" in cache.manifest.table.columns
    for name, options in (HEADS | (OF_VOTES if has_votes else {})).items():
        yield name, lambda options=options: score_head(cache, splits, options, runs)
    features = side_by_side(cache)
    rows = [rows_of(cache, split) for split in splits]
    for name, reference in REFERENCES.items():
        yield name, lambda reference=reference: (score_reference(reference, features, each) for each in rows)


def score_head(
    cache: Cache, splits: Sequence[SplitSpec], options: Mapping[str, Any], runs: Path
) -> Iterator[dict[str, float]]:
    """Yield the test scores of one head on each split."""
    for split in splits:
        spec = RunSpec(name="head", features=FeaturesSpec(streams=STREAMS), split=split, **options)
        started = time.process_time()
        ((record, is_new),) = train_runs(cache, [spec], runs, device="cpu")
        seconds = time.process_time() - started if is_new else math.nan
        yield score_run(cache, split, run_dir(runs, record.digest)) | {"seconds": seconds}


def score_best(cache: Cache, splits: Sequence[SplitSpec], runs: Path, minutes: float) -> Iterator[dict[str, float]]:
    """Yield the test scores of the model that `emofuse sweep best` recommends on each split."""
    for number, split in enumerate(splits):
        options = BestOptions(minutes=minutes, split=split, streams=STREAMS)
        started = time.process_time()
        best = run_best(cache, options, runs / f"best-{number}", SweepOptions(device="cpu"))
        seconds = time.process_time() - started if best.summary.trained else math.nan
        yield score_run(cache, split, best.folder) | {"seconds": seconds}


def score_run(cache: Cache, split: SplitSpec, folder: Path) -> dict[str, float]:
    """Return the test scores of a saved run."""
    predictions = read_predictions(folder)
    answers = dict(zip(predictions.sample_id.tolist(), predictions.probs.argmax(axis=1).tolist(), strict=True))
    rows, ids = rows_of(cache, split), cache.manifest.table["sample_id"]
    return rows.score(np.array([answers[ids[row]] for row in rows.test.tolist()]))


def score_reference(reference: Reference, features: npt.NDArray[np.float32], rows: Rows) -> dict[str, float]:
    """Return the test scores of the best settings of a model on one split."""
    started = time.process_time()
    warnings.simplefilter("ignore")  # of convergence: the grid holds settings that a user would try as well
    settings, labels = reference.settings, rows.labels
    on_val = list(reference.answers(settings, *_scaled(features, labels, rows.train, rows.val)))
    both = np.concatenate([rows.train, rows.val])
    tested: dict[int, npt.NDArray[np.int64]] = {}
    chosen: dict[str, int] = {}
    for metric, score in SCORES.items():
        best = int(np.argmax([score(labels[rows.val], answers) for answers in on_val]))
        if best not in tested:
            (tested[best],) = reference.answers([settings[best]], *_scaled(features, labels, both, rows.test))
        chosen[metric] = best
    by_accuracy, by_f1 = (rows.score(tested[chosen[metric]]) for metric in SCORES)
    return by_accuracy | {"macro_f1": by_f1["macro_f1"], "seconds": time.process_time() - started}


def _scaled(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    fitted: npt.NDArray[np.int64],
    asked: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the standardised rows to fit, their classes, and the asked rows, standardised by the first."""
    scaler = StandardScaler().fit(features[fitted])
    return scaler.transform(features[fitted]), labels[fitted], scaler.transform(features[asked])


def describe(name: str, scores: Sequence[Mapping[str, float]], *, overlapping: bool) -> dict[str, Any]:
    """Return one line of the table: means with intervals, each split's scores, and the median CPU seconds of a split.

    Args:
        name: the name of the model.
        scores: the scores of each split.
        overlapping: whether the test rows change with the split. If they stay, the interval is that of the accuracy on
            so many rows (normal approximation of the binomial) and covers images alone.
    """
    row: dict[str, Any] = {"name": name, "cpu_s_a_split": round(float(np.nanmedian([s["seconds"] for s in scores])), 2)}
    for metric in SCORES:
        values = np.array([score[metric] for score in scores])
        row[metric] = {"mean": round(float(values.mean()), 4), "each": [round(float(value), 4) for value in values]}
        if overlapping and len(values) > 1:
            interval = corrected_resampled_t(values, TEST_TO_TRAIN).interval
            row[metric]["interval"] = [round(interval.low, 4), round(interval.high, 4)]
    if not overlapping:
        values = [score["accuracy_without_copies"] for score in scores]
        row["accuracy_without_copies"] = round(float(np.mean(values)), 4)
        share, rows = row["accuracy"]["mean"], scores[0]["rows"]
        reach = 1.96 * math.sqrt(share * (1 - share) / rows)
        row["accuracy"]["interval"] = [round(share - reach, 4), round(share + reach, 4)]
    return row


def rows_of(cache: Cache, split: SplitSpec, features: FeaturesSpec = FEATURES) -> Rows:
    """Return the rows of one split, for heads that see these features."""
    data = TrainingData.of(cache, split)
    test = np.flatnonzero((data.splits == "test") & (cache.labels >= 0))
    (fold,) = data.folds(RunSpec(name="rows", features=features, split=split))
    files = cache.manifest.known_files.select("bytes", "crc32c").rows()
    others = {files[row] for row in (*fold.train, *fold.val)}
    return Rows(fold.train, fold.val, test, cache.labels, np.array([files[row] in others for row in test]))


def side_by_side(cache: Cache, spec: FeaturesSpec = FEATURES) -> npt.NDArray[np.float32]:
    """Return (N, D) float32: all streams as heads see them before standardisation, and a column for missing rows."""
    parts = []
    for name in spec.streams:
        stream = cache.streams[name]
        stored, status = stream.read(0, np.float32)
        valid = status == 1
        parts.append(np.where(valid[:, None], derived_features(stream.kind, stored, spec, name), 0))
        if not valid.all():
            parts.append(~valid[:, None])
    return np.concatenate(parts, axis=1).astype(np.float32)


def _macro_f1(labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64]) -> float:
    return float(f1_score(labels, answers, average="macro"))


def _accuracy(labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64]) -> float:
    return float(accuracy_score(labels, answers))


SCORES: dict[str, Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], float]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
}


@dataclass(frozen=True)
class Reference:
    """A model that a user would take instead, with the settings of its grid.

    Attributes:
        settings: the settings.
        answers: takes settings, standardised rows (n, D), their labels (n,), and other rows (m, D); yields the classes
            (m,) of the other rows for each setting.
    """

    settings: Sequence[Any]
    answers: Callable[..., Iterator[npt.NDArray[np.int64]]]


def grid_of(make: Callable[..., ClassifierMixin], settings: Sequence[Mapping[str, Any]]) -> Reference:
    """Return a model that is fitted anew for each setting."""

    def answers(chosen: Sequence[Mapping[str, Any]], seen: Any, labels: Any, other: Any) -> Iterator[Any]:
        for options in chosen:
            yield make(**options).fit(seen, labels).predict(other)

    return Reference(settings, answers)


def svm_answers(
    settings: Sequence[tuple[float, float]], seen: npt.NDArray[Any], labels: npt.NDArray[np.int64], other: Any
) -> Iterator[npt.NDArray[np.int64]]:
    """Fit `SVC(C, kernel="rbf", gamma)`; a kernel matrix is computed once for all C, which changes no answer.

    Args:
        settings: (C, gamma as a multiple of the one that `gamma="scale"` means) each, those of a gamma in a row.
        seen: the rows (n, D).
        labels: their classes (n,).
        other: the rows (m, D) to classify.
    """
    scale = 1 / (seen.shape[1] * seen.var())
    for factor, group in groupby(settings, key=lambda setting: setting[1]):
        kernel = rbf_kernel(seen, gamma=factor * scale)
        of_other = rbf_kernel(other, seen, gamma=factor * scale)
        for c, _ in group:
            yield SVC(C=c, kernel="precomputed", cache_size=1000).fit(kernel, labels).predict(of_other)


def make_lightgbm(**options: Any) -> ClassifierMixin:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=200, colsample_bytree=0.1, verbose=-1, n_jobs=1, random_state=0, **options)


REFERENCES: dict[str, Reference] = {
    "scikit-learn LogisticRegression": grid_of(
        lambda **options: LogisticRegression(max_iter=300, **options),
        [{"C": c, "class_weight": weight} for weight in (None, "balanced") for c in (1e-5, 1e-4, 1e-3, 1e-2)],
    ),
    "scikit-learn SVC (RBF)": Reference(
        [(c, factor) for factor in (0.3, 1.0, 3.0) for c in (1.0, 3.0, 10.0)], svm_answers
    ),
    "scikit-learn LDA": grid_of(
        lambda **options: LinearDiscriminantAnalysis(solver="lsqr", **options),
        [{"shrinkage": shrinkage} for shrinkage in ("auto", 0.3, 0.6, 0.9)],
    ),
    "scikit-learn MLP": grid_of(
        lambda **options: MLPClassifier((256,), early_stopping=True, random_state=0, **options),
        [{"alpha": alpha} for alpha in (1e-3, 1e-1, 1.0)],
    ),
    "LightGBM": grid_of(make_lightgbm, [{"num_leaves": 15}, {"num_leaves": 31}]),
}


if __name__ == "__main__":
    main()
