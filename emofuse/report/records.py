"""The records of saved runs as a report reads them: checked, completed, and scored anew from their predictions.

A folder may hold runs of several versions of emofuse. An option that a run was saved without has its default, as it had
when the run was trained. Scores of the test rows are computed from the saved predictions, so that all runs have the
same metrics by the same formulas, whatever version saved them. A key that cannot be replaced is named in an error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emofuse.errors import PluginError, ResultsError
from emofuse.metrics.targets import target_metrics
from emofuse.report.predictions import read_test_predictions
from emofuse.report.targets import TARGETS
from emofuse.results import RunRecord, list_runs, run_dir
from emofuse.specs import FeaturesSpec, TrainSpec
from emofuse.specs.base import Spec
from emofuse.specs.datasets import HoldoutSplit, OfficialSplit, OuterFoldsSplit, StratifiedSplit
from emofuse.specs.faults import describe_faults
from emofuse.specs.heads import HEADS

_SPLITS: Mapping[str, type[Spec]] = {
    "official": OfficialSplit,
    "stratified": StratifiedSplit,
    "holdout": HoldoutSplit,
    "outer_folds": OuterFoldsSplit,
}
_MOST_RUNS_NAMED = 3
_SCORES_OF_CLASSES = frozenset({"accuracy", "macro", "weighted", "per_class", "confusion"})
_KEPT_SCORES = {
    "class": _SCORES_OF_CLASSES,
    "distribution": _SCORES_OF_CLASSES | {"distribution"},
    "regression": frozenset({"columns", "mean"}),
    "multilabel": frozenset({"columns", "macro", "micro"}),
}
"""Kind of target -> the test scores that a report needs of a run without usable predictions."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Features(_Part):
    streams: list[str] | dict[str, Any]


class _Kind(_Part):
    kind: str


class _RunSpec(_Part):
    features: _Features
    head: _Kind
    train: dict[str, Any] = {}
    split: _Kind


class _Stream(_Part):
    kind: str
    digest: str
    dim: int
    used_dim: int
    weights: _Kind | None = None


class _Rows(_Part):
    rows: int
    missing: dict[str, dict[str, int]] = {}


class _SplitRows(_Part):
    train: _Rows
    val: _Rows
    test: _Rows


class _Needed(_Part):
    """The keys of `run.json` that a report cannot do without, and cannot compute either."""

    digest: str
    name: str
    spec: _RunSpec
    classes: Annotated[list[str], Field(min_length=1)]
    dataset: dict[str, Any]
    streams: dict[str, _Stream]
    rows: _SplitRows
    metrics: dict[str, dict[str, Any]]
    history: Annotated[list[dict[str, Any]], Field(min_length=1)]
    best_epoch: Annotated[int, Field(ge=1)]
    parameters: int
    versions: dict[str, str]
    machine: dict[str, str]
    seconds: float
    created: str
    notes: Sequence[str]
    plugins: Sequence[dict[str, str]] = ()


def read_records(runs: Path, only: Collection[str] | None = None) -> list[RunRecord]:
    """Read the runs of a folder, with all options and with test scores computed from their predictions.

    A run without usable predictions keeps the scores of its record, if it has them.

    Args:
        runs: the folder of saved runs.
        only: the digests of the runs to read; all unless given.

    Raises:
        ResultsError: the folder or a run of `only` is missing, a record lacks a key, or a run has no test scores.
    """
    records = list_runs(runs)
    if only is not None:
        absent = sorted(set(only) - {record.digest for record in records})
        if absent:
            raise ResultsError(f"{runs}: no run {', '.join(digest[:16] for digest in absent)}; train it again")
        records = [record for record in records if record.digest in only]
    check_records(records, runs)
    return [_scored(complete_record(record), runs) for record in records]


def check_records(records: Sequence[RunRecord], runs: Path) -> None:
    """Check that records have the keys that a report needs; name all problems of up to three runs at once.

    Raises:
        ResultsError: a key is missing or has another type.
    """
    faults = [(record, problems) for record in records if (problems := _problems(record))]
    if not faults:
        return
    told = [f"{run_dir(runs, str(record.digest)) / 'run.json'}: {', '.join(them)}" for record, them in faults]
    more = f" | and {len(told) - _MOST_RUNS_NAMED} more runs" if len(told) > _MOST_RUNS_NAMED else ""
    raise ResultsError(
        f"runs that a report cannot be made from: {' | '.join(told[:_MOST_RUNS_NAMED])}{more}. Delete these folders "
        "and train the runs again"
    )


def complete_record(record: RunRecord) -> RunRecord:
    """Return the record with the defaults of everything optional that it was saved without; unknown keys stay."""
    streams = {name: {"weights": None, **stream} for name, stream in record.streams.items()}
    rows = {split: {"missing": {}, **counts} for split, counts in record.rows.items()}
    return replace(record, spec=_complete_spec(record.spec), streams=streams, rows=rows)


def _complete_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    features, head, split = spec["features"], spec["head"], spec["split"]
    return {
        "fold": None,
        "ensemble": None,
        "refit": "none",
        "reference": False,
        **spec,
        "features": _defaults(FeaturesSpec, streams=tuple(features["streams"])) | features,
        "head": _defaults(_head_spec(head["kind"])) | head,
        "train": _defaults(TrainSpec) | spec.get("train", {}),
        "split": _defaults(_SPLITS.get(split["kind"])) | split,
    }


def _head_spec(kind: str) -> type[Spec] | None:
    try:
        return HEADS.find(kind)
    except PluginError:  # a report needs no head
        return None


def _defaults(model: type[Spec] | None, **required: Any) -> dict[str, Any]:
    """Return the options of a model with their defaults; none if the model is unknown or needs more options."""
    try:
        return model(**required).model_dump(mode="json") if model else {}
    except ValidationError:
        return {}


def _scored(record: RunRecord, runs: Path) -> RunRecord:
    try:
        predictions = read_test_predictions(record, runs)
    except ResultsError as error:
        if _KEPT_SCORES[record.target_kind] <= record.metrics.get("test", {}).keys():
            return record
        raise ResultsError(f"no test scores in run.json, and {error}") from None
    truth = predictions.label if predictions.target is None else predictions.target
    labels = predictions.label if record.target_kind == "distribution" else None
    scores = target_metrics(record.target_kind, truth, predictions.outputs, record.classes, labels=labels)
    return replace(record, metrics={**record.metrics, "test": scores})


def _problems(record: RunRecord) -> list[str]:
    try:
        _Needed.model_validate(vars(record))
    except ValidationError as error:
        return describe_faults(error, vars(record), _Needed)
    if record.target_kind not in TARGETS:
        return [f"spec.target.kind: {record.target_kind!r} is unknown, expected {', '.join(TARGETS)}"]
    streams = record.spec["features"]["streams"]
    problems = [f"streams.{name}: is missing" for name in streams if name not in record.streams]
    if record.best_epoch > len(record.history):
        problems.append(f"best_epoch: {record.best_epoch}, but history has {len(record.history)} entries")
    return problems
