"""Accuracy of single streams and fusions on real emotional speech (RAVDESS), in six folds of four actors.

    python -m benchmarks.speech

The folder `../shared/data` (`--data`) holds `speech/ravdess` and `models/whisper_tiny_en_encoder_fp16.safetensors`,
the encoder of Whisper tiny.en. The pipeline is `pipelines/ravdess_speech.yaml`; what is cached or trained already is
not done again. Its heads learn from 16 actors, choose on four others, and learn again from these 20; four actors that
no head has seen are tested. Every sound is tested once.

Logistic regression and the support vector machine of scikit-learn see the same cached features on the same folds,
standardised by the rows they are fitted to. They are fitted for each setting of their grid to the 16 actors, chosen by
the unweighted accuracy (mean recall of the classes) on the same four, and fitted again to the 20.

Intervals are those of the corrected resampled t-test over the folds, whose training rows overlap.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.results_file import RESULTS, write_result
from emofuse.cache.reader import Cache, open_cache
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.results import ResultPaths, RunRecord
from emofuse.specs import FeaturesSpec, OuterFoldsSplit, RunSpec, read_pipeline_spec
from emofuse.statistics import corrected_resampled_t
from emofuse.training.data import TrainingData
from emofuse.weights import import_weights

SHARED = Path(__file__).parents[2] / "shared" / "data"
WHISPER = ("whisper_1", "whisper_2", "whisper_3", "whisper_last")
INPUTS = {
    "eGeMAPS": ("egemaps",),
    "Whisper, last layer": ("whisper_last",),
    "Whisper, layer 3": ("whisper_3",),
    "Whisper, all layers": WHISPER,
    "MFCC + eGeMAPS + Whisper, all layers": ("mfcc", "egemaps", *WHISPER),
}
REFERENCES: dict[str, tuple[Callable[..., ClassifierMixin], Sequence[Mapping[str, Any]]]] = {
    "scikit-learn LogisticRegression": (
        lambda **options: LogisticRegression(max_iter=1000, **options),
        [{"C": c} for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)],
    ),
    "scikit-learn SVC (RBF)": (SVC, [{"C": c} for c in (0.3, 1.0, 3.0, 10.0, 30.0)]),
}
Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""The training, validation and test rows of one fold."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--runs", type=Path, default=Path("emofuse-runs/speech"), help="folder of cache and runs")
    parser.add_argument("--skip", default="", help="names of runs to leave out, with semicolons between them")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args()

    import_weights(arguments.data / "models" / "whisper_tiny_en_encoder_fp16.safetensors", "whisper-tiny.en")
    spec = read_pipeline_spec("ravdess_speech")
    skipped = [name.strip() for name in arguments.skip.split(";")]
    runs = tuple(run for run in spec.runs if run.name not in skipped)
    spec = spec.model_copy(update={"runs": runs, "references": "off"})  # those of scikit-learn stand in their place
    options = PipelineOptions(out=arguments.runs, data=arguments.data / "speech" / "ravdess", device="cpu")
    records = run_pipeline(spec, options, say=print).records

    cache = open_cache(ResultPaths(arguments.runs).cache)
    rows = [
        describe(run.name, run.head.kind, run.features.streams or (), scores_of_runs(records, run.name))
        for run in spec.runs
    ]
    dataset = {"rows": len(cache), "classes": len(cache.manifest.classes), "speakers": len(set(cache.manifest.groups))}
    for name, (make, settings) in REFERENCES.items():
        for title, streams in INPUTS.items():
            scores = list(score_reference(cache, streams, make, settings, folds_of(cache, spec.test.splits())))
            rows.append(describe(title, name, streams, scores))
            print(json.dumps(rows[-1]), flush=True)
            numbers = {"dataset": dataset, "test": spec.test.model_dump(mode="json"), "models": rows}
            path = write_result("speech", numbers, folder=arguments.out)
    for row in rows:
        print(f"{row['name']:52} {row['model']:32} {row['uar']['mean']:.3f} {row['uar']['interval']}")
    print(path)


def scores_of_runs(records: Sequence[RunRecord], name: str) -> list[dict[str, float]]:
    """Return the test scores of one run on each fold, with the number of test rows over that of the rows learned."""
    return [
        {
            "accuracy": float(record.metrics["test"]["accuracy"]),
            "uar": float(record.metrics["test"]["macro"]["recall"]),
            "ratio": record.rows["test"]["rows"] / record.rows["train"]["rows"],  # those of the second training
        }
        for record in records
        if record.name == name
    ]


def folds_of(cache: Cache, splits: Sequence[OuterFoldsSplit]) -> Iterator[Fold]:
    """Yield the rows of each fold, as the heads have them."""
    for split in splits:
        data = TrainingData.of(cache, split)
        (fold,) = data.folds(RunSpec(name="rows", features=FeaturesSpec(streams=("mfcc",)), split=split))
        yield fold.train, fold.val, np.flatnonzero((data.splits == "test") & (cache.labels >= 0))


def score_reference(
    cache: Cache,
    streams: Sequence[str],
    make: Callable[..., ClassifierMixin],
    settings: Sequence[Mapping[str, Any]],
    folds: Iterator[Fold],
) -> Iterator[dict[str, float]]:
    """Yield the test scores of the setting of a model that is best on the validation rows of each fold."""
    warnings.simplefilter("ignore")  # of convergence: the grid holds settings that a user would try as well
    features = np.concatenate([cache.streams[name].read(0, np.float32)[0] for name in streams], axis=1)
    labels = cache.labels
    for train, val, test in folds:
        models = [make_pipeline(StandardScaler(), make(**options)) for options in settings]
        on_val = [
            balanced_accuracy_score(labels[val], model.fit(features[train], labels[train]).predict(features[val]))
            for model in models
        ]
        both = np.concatenate([train, val])
        answers = models[int(np.argmax(on_val))].fit(features[both], labels[both]).predict(features[test])
        yield {
            "accuracy": float(accuracy_score(labels[test], answers)),
            "uar": float(balanced_accuracy_score(labels[test], answers)),
            "ratio": len(test) / len(both),
        }


def describe(name: str, model: str, streams: Sequence[str], scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return one line of the table: the mean over the folds with its interval, and the score of each fold."""
    row: dict[str, Any] = {"name": name, "model": model, "streams": list(streams)}
    ratio = float(np.mean([score["ratio"] for score in scores]))
    for metric in ("uar", "accuracy"):
        values = [score[metric] for score in scores]
        interval = corrected_resampled_t(values, ratio).interval
        row[metric] = {
            "mean": round(float(np.mean(values)), 4),
            "interval": [round(interval.low, 4), round(interval.high, 4)],
            "each": [round(value, 4) for value in values],
        }
    return row


if __name__ == "__main__":
    main()
