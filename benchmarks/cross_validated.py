"""Runs over outer folds, described with intervals and paired tests, beside scikit-learn on the same features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from benchmarks.faces import add_holm, describe, score_of, size_ratio, spread
from benchmarks.heads_accuracy import Reference, rows_of, score_reference, side_by_side, svm_answers
from emofuse.cache.reader import Cache
from emofuse.results import RunRecord, read_predictions, run_dir
from emofuse.specs import RunSpec, canonical_json
from emofuse.statistics import corrected_resampled_t

SVM = Reference([(c, factor) for factor in (0.3, 1.0, 3.0) for c in (0.3, 1.0, 3.0, 10.0)], svm_answers)
"""scikit-learn's SVC with an RBF kernel: gamma as a multiple of `gamma="scale"`, and C."""

Scores = Mapping[str, float]
"""Split, as canonical JSON -> score."""


def of_name(records: Sequence[RunRecord], name: str) -> list[RunRecord]:
    return [record for record in records if record.name == name]


def by_split(records: Sequence[RunRecord], score: str = "macro_f1") -> dict[str, float]:
    """Return the test score of the only run of every split."""
    return {canonical_json(record.spec["split"]): score_of(record, score) for record in records}


def score_svm(cache: Cache, records: Sequence[RunRecord]) -> Iterator[tuple[str, float]]:
    """Yield every split of a configuration and the test macro F1 of the SVM on the same features.

    Its settings are chosen on the validation rows of the split, then it is fitted to training and validation rows.
    """
    features = None
    for record in records:
        spec = RunSpec.model_validate(record.spec)
        features = side_by_side(cache, spec.features) if features is None else features
        scores = score_reference(SVM, features, rows_of(cache, spec.split, spec.features))
        yield canonical_json(record.spec["split"]), scores["macro_f1"]


def describe_with_svm(cache: Cache, records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return the scores of one configuration over its splits, and those of the SVM on the same features."""
    svm = dict(score_svm(cache, records))
    interval = corrected_resampled_t(list(svm.values()), size_ratio(records)).interval
    return {
        **describe(records[0].name, list(records)),
        "svm_test_macro_f1": spread(list(svm.values()))
        | {"low": round(interval.low, 4), "high": round(interval.high, 4)},
        "minus_svm": difference(by_split(records), svm, size_ratio(records)),
    }


def difference(ours: Scores, theirs: Scores, ratio: float) -> dict[str, Any]:
    """Return the mean difference of two scores over the same splits, with the corrected resampled t-test.

    Args:
        ours: the scores of every split.
        theirs: the same of the other.
        ratio: the number of test rows divided by that of training rows.
    """
    test = corrected_resampled_t([ours[split] - theirs[split] for split in ours], ratio)
    return {
        "mean": round(test.difference, 4),
        "low": round(test.interval.low, 4),
        "high": round(test.interval.high, 4),
        "p": round(test.p, 4),
    }


def compare_pairs(
    records: Sequence[RunRecord], pairs: Sequence[tuple[str, str]], score: str = "macro_f1"
) -> list[dict[str, Any]]:
    """Compare pairs of configurations split by split; p values are corrected by Holm over all pairs."""
    rows = []
    for one, other in pairs:
        ours, theirs = of_name(records, one), of_name(records, other)
        compared = difference(by_split(ours, score), by_split(theirs, score), size_ratio(ours))
        rows.append({"name": one, "against": other, **compared})
    add_holm(rows)
    return rows


def scores_on(runs: Path, records: Sequence[RunRecord], sample_ids: set[str]) -> dict[str, float]:
    """Return the test macro F1 of every split on the test rows with these ids alone."""
    scores = {}
    for record in records:
        predictions = read_predictions(run_dir(runs, record.digest))
        kept = np.array([each in sample_ids for each in predictions.sample_id.tolist()])
        labels, answers = predictions.label[kept], predictions.probs[kept].argmax(axis=1)
        scores[canonical_json(record.spec["split"])] = float(f1_score(labels, answers, average="macro"))
    return scores


def pooled_accuracy(runs: Path, records: Sequence[RunRecord], sample_ids: set[str]) -> float:
    """Return the share of right answers to the test rows with these ids, of all splits together."""
    right = []
    for record in records:
        predictions = read_predictions(run_dir(runs, record.digest))
        kept = np.array([each in sample_ids for each in predictions.sample_id.tolist()])
        right += (predictions.probs[kept].argmax(axis=1) == predictions.label[kept]).tolist()
    return round(float(np.mean(right)), 4)
