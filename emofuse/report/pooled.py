"""Scores of outer folds that are pooled: the answers of all folds of a repeat are scored together, once for each row.

The mean over folds, with its corrected t interval, treats each fold as one measurement. The pooled score counts every
row of the dataset once, and its interval draws rows (or whole groups), as on a single test split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emofuse.report.answers import ConfigurationAnswers, RowSet, pool_by_images
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.formats import join_some
from emofuse.report.pool_scores import score_pool
from emofuse.statistics import Interval, Resampling


@dataclass(frozen=True)
class PooledScores:
    """The pooled scores of a configuration with outer folds.

    Attributes:
        folds: the number of folds.
        repeats: the number of repeats (deals of the rows, times seeds), over which pooled scores are averaged.
        rows: the number of rows, each of which was tested once in each repeat.
        groups: the number of groups that resamples draw as a whole; None if they draw single rows.
        scores: compared score -> its pooled value.
        intervals: compared score -> its interval.
    """

    folds: int
    repeats: int
    rows: int
    groups: int | None
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]


def pool_folds(
    results: Results, answered: Sequence[ConfigurationAnswers], resampling: Resampling
) -> dict[str, PooledScores]:
    """Return label -> pooled scores, for the configurations whose runs are all outer folds of complete repeats.

    Args:
        results: the configurations and reference models.
        answered: their answers.
        resampling: the number of resamples and the seed.
    """
    by_label = {item.label: item for item in (*results.configurations, *results.references)}
    joined = {item.label: join_folds(item, fold_count(by_label[item.label])) for item in answered}
    pools, _ = pool_by_images(item for item in joined.values() if item is not None)
    pooled = {}
    for pool in pools:
        if pool.splits > 1:  # repeats that tested different rows, because pictures could not be read
            continue
        scores = score_pool(pool, len(results.classes), resampling, results.target)
        for item in pool.answered:
            intervals, paths = scores.intervals(item.label), [score.path for score in results.target.compared]
            pooled[item.label] = PooledScores(
                folds=fold_count(by_label[item.label]),
                repeats=len(item.rows),
                rows=len(pool.sample_id),
                groups=pool.unit_count if pool.grouped else None,
                scores=scores.observed(item.label),
                intervals={path: intervals[path] for path in paths},
            )
    return pooled


def fold_count(item: ReportedConfiguration) -> int:
    """Return the number of outer folds of a configuration; 0 if its runs have other splits."""
    split = item.spec["split"]
    return int(split["count"]) if split["kind"] == "outer_folds" else 0


def join_folds(item: ConfigurationAnswers, folds: int) -> ConfigurationAnswers | None:
    """Return the answers of a configuration with all folds of a repeat as one run; None if a fold is missing.

    Args:
        item: the answers.
        folds: the number of outer folds, 0 without.
    """
    repeats: dict[tuple[int, int], list[int]] = {}
    for place, (split, seed) in enumerate(item.repeats):
        if not isinstance(split, tuple):
            return None
        repeats.setdefault((split[0], seed), []).append(place)
    if not repeats or any(len(places) != folds for places in repeats.values()):
        return None
    rows, predicted, outputs = [], [], []
    probs: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
    for places in repeats.values():
        whole, order = _joined_rows([item.rows[place] for place in places])
        rows.append(whole)
        if all(len(item.predicted[place]) for place in places):
            predicted.append(np.concatenate([item.predicted[place] for place in places])[order])
        else:
            predicted.append(item.predicted[places[0]][:0])
        if item.outputs:
            outputs.append(np.concatenate([item.outputs[place] for place in places])[order])
        of_folds = np.concatenate([item.probs[item.rows[place].key] for place in places])[order]
        probs[whole.key] = probs.get(whole.key, 0.0) + of_folds
    return ConfigurationAnswers(
        item.label, tuple(rows), tuple(predicted), probs, tuple(repeats), item.test_to_train, tuple(outputs)
    )


def _joined_rows(sets: Sequence[RowSet]) -> tuple[RowSet, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Return the rows of several folds ordered by sample, and their places in the folds one after the other."""
    sample_id = np.concatenate([rows.sample_id for rows in sets])
    order = np.argsort(sample_id, kind="stable")
    label = np.concatenate([rows.label for rows in sets])[order]
    groups = [rows.group for rows in sets if rows.group is not None]
    targets = [rows.target for rows in sets if rows.target is not None]
    group = np.concatenate(groups)[order] if len(groups) == len(sets) else None
    target = np.concatenate(targets)[order] if len(targets) == len(sets) else None
    truth = label.tobytes() + (b"" if target is None else target.tobytes())
    key = hashlib.sha256("\0".join(sample_id[order].tolist()).encode() + b"\0\0" + truth).hexdigest()
    return RowSet(sample_id[order], label, group, key, target), order


def pooled_note(pooled: Mapping[str, PooledScores]) -> str:
    """Return how pooled scores are made; an empty text without any."""
    if not pooled:
        return ""
    each = next(iter(pooled.values()))
    units = f"{each.rows:,} rows" if each.groups is None else f"{each.groups:,} groups with {each.rows:,} rows"
    again = f" in each of {each.repeats} repeats" if each.repeats > 1 else ""
    mean = ", and their mean over the repeats is shown" if each.repeats > 1 else ""
    return (
        f"Every row was tested once{again}, by a model that saw neither it nor its outer fold. Pooled scores count the "
        f"answers of all {each.folds} folds together, each row once{mean}; their intervals are a percentile bootstrap "
        f"over the {units} and cover the choice of test rows. Other scores are means over the folds; their intervals "
        "and tests are corrected for the training rows that folds share."
    )


def nested_sentences(results: Results) -> list[str]:
    """Return whose options are stated, where a nested sweep chose them anew in every outer fold."""
    labels = [item.label for item in results.configurations if item.is_nested]
    if not labels:
        return []
    sentence = (
        f"Streams, head, sizes and options that are stated of {join_some(labels)} are those of the first outer fold; a "
        "nested sweep chose them anew in every fold, and run.json of each run has its own."
    )
    return [sentence]
