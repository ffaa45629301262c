"""The record and the predictions of a test, in the form of those of a run, so that reports read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.reader import Cache
from emofuse.evaluation.features import statuses
from emofuse.evaluation.rows import WITH_CLASSES, TestedRows
from emofuse.metrics.targets import target_metrics
from emofuse.predict.models import ChosenModel
from emofuse.results import Predictions, RunRecord
from emofuse.specs import digest
from emofuse.status import Status

_OF_PARTS = frozenset({"per_class", "confusion", "columns"})


def score(
    model: ChosenModel, cache: Cache, tested: TestedRows, outputs: npt.NDArray[np.float32]
) -> tuple[RunRecord, Predictions]:
    """Score the rows of a test.

    Args:
        model: the model.
        cache: the cache of the other data.
        tested: the rows and their targets.
        outputs: the outputs of the model for all rows of the cache, (N, M).

    Returns:
        The record of the model, with the rows, scores and dataset of the test; the predictions of the scored rows.
    """
    rows, targets, shared, first = tested.rows, tested.targets, tested.shared, model.record
    answers = outputs[rows] if shared is None else shared.outputs(outputs[rows])
    values, labels = None if targets.values is None else targets.values[rows], targets.labels[rows]
    scores = target_metrics(targets.kind, labels if values is None else values, answers, targets.names)
    described = _describe(model, cache, tested, outputs[rows])
    identity = {
        "models": [record.digest for record in model.records],
        "rows": [cache.manifest.ids_digest, rows.tolist(), labels.tolist()],
        "evaluation": {key: value for key, value in described.items() if key != "models"},
    }
    record = replace(
        first,
        digest=digest(identity),
        spec=dict(first.spec) if shared is None else {**first.spec, "target": {"kind": "class"}},
        classes=list(targets.names),
        dataset=dict(cache.manifest.info),
        rows={**first.rows, "test": {"rows": len(rows), "missing": _missing(model, cache, rows)}},
        metrics={**{split: _whole(first.metrics[split]) for split in ("train", "val")}, "test": scores},
        parameters=sum(record.parameters for record in model.records),
        seconds=sum(record.seconds for record in model.records),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        evaluation=described,
    )
    groups = cache.groups[rows] if cache.has_groups else None
    label = labels if targets.kind in WITH_CLASSES else np.full(len(rows), -1, np.int64)
    return record, Predictions(cache.sample_ids[rows], label, answers, groups, values)


def _whole(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of a split without those of single classes, which may be others than the shared ones."""
    return {name: value for name, value in metrics.items() if name not in _OF_PARTS}


def _missing(model: ChosenModel, cache: Cache, rows: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Return stream -> lower-case status -> the number of rows that lack the stream with it, if there are any."""
    missing = {}
    for name, status in statuses(cache, model.record.spec["features"]["streams"]).items():
        counts = {each.name.lower(): int((status[rows] == each).sum()) for each in Status if each is not Status.OK}
        missing[name] = {reason: count for reason, count in counts.items() if count}
    return missing


def _describe(model: ChosenModel, cache: Cache, tested: TestedRows, outputs: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Return the record of the test as plain JSON, which `emofuse.report.foreign` shows."""
    described: dict[str, Any] = {
        "models": [str(folder) for folder in model.folders],
        "trained_on": str(model.record.dataset.get("name", "unnamed")),
        "tested_on": str(cache.manifest.info.get("name", "unnamed")),
        "rows": tested.which,
        "left_out": tested.left_out,
        "unlabelled": tested.unlabelled,
        "unreadable": tested.unreadable,
    }
    shared = tested.shared
    if shared is None:
        return described
    free, used = shared.without_restriction(outputs), shared.label_map
    counts = np.bincount(cache.labels[tested.rows], minlength=len(cache.classes))
    return described | {
        "map": used and {"name": used.name, "from": used.source, "to": used.target, "side": shared.side},
        "of_data": dict(shared.of_data),
        "of_model": dict(shared.of_model),
        "rows_of_labels": {label: int(count) for label, count in zip(cache.classes, counts, strict=True)},
        "sentences": shared.sentences,
        "answered_otherwise": int((free < 0).sum()),
        "accuracy_without_restriction": float((free == tested.targets.labels[tested.rows]).mean()),
    }
