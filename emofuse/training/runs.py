"""Saved runs: split, standardise, train, score the test rows once, write. The same run asked again is read."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

import emofuse
from emofuse.datasets.splits import SPLITS, stratified_split
from emofuse.errors import TrainingError
from emofuse.features import (
    ACTION_UNITS,
    STORED_DIMS,
    FeatureTable,
    Scaling,
    cached_streams,
    fit_scaling,
    read_features,
    standardise,
)
from emofuse.heads import load_head_weights
from emofuse.results import Predictions, RunRecord, read_record, rename_run, run_dir, write_run
from emofuse.specs import RunSpec, SplitSpec, StratifiedSplit, digest
from emofuse.training.engine import train_group
from emofuse.training.machine import Machine, resolve_device
from emofuse.training.members import Fold, Member, Outcome, Table
from emofuse.training.metrics import classification_metrics
from emofuse.training.trained import head_probs

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

OnEpoch = Callable[[Mapping[str, Any]], None]
TRAINING_VERSION = 2  # raised whenever this code gives other weights for the same spec and rows: part of every digest


def train_run(
    cache: Cache, spec: RunSpec, runs: Path, *, device: str = "auto", on_epoch: OnEpoch | None = None
) -> tuple[RunRecord, bool]:
    """Trains one run and writes its folder, or finds it there.

    A run is found again by its digest, which its name is no part of: the same run under another name is not trained
    again, and its record takes the name asked for last.

    Args:
        cache: where the features are.
        spec: the run.
        runs: folder of all runs.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        on_epoch: is given {epoch, train_loss, val_loss, val_accuracy, val_macro_f1} after each epoch.

    Returns:
        The record, and whether it was trained by this call.

    Raises:
        SpecError: a stream that is not in the cache.
        IncompleteCacheError: a stream that has not been built to its end.
        TrainingError: the run cannot be trained as asked.
        ResultsError: the folder that is there is damaged.
    """
    splits = run_splits(cache, spec.split)
    identity = run_digest(cache, spec, splits)
    folder = run_dir(runs, identity)
    if (folder / "run.json").is_file():
        record = read_record(folder)
        return (record if record.name == spec.name else rename_run(folder, spec.name)), False

    rows = {split: np.flatnonzero((splits == split) & (cache.labels >= 0)) for split in SPLITS}
    _check_rows({split: len(found) for split, found in rows.items()})
    where = resolve_device(device)
    table = read_features(cache, spec.features)
    scaling = fit_scaling(table, rows["train"], neutral_label=spec.features.neutral_label)
    started = time.perf_counter()
    outcome = _train(table, Fold(rows["train"], rows["val"], scaling), spec, where, on_epoch)
    seconds = time.perf_counter() - started

    parts = {split: standardise(table, rows[split], scaling) for split in SPLITS}
    del table  # the parts are a copy
    head = load_head_weights(spec.head, parts["train"].dims, len(cache.classes), outcome.weights).to(where)
    probs = {split: head_probs(head, part.features, part.valid) for split, part in parts.items()}
    record = RunRecord(
        digest=identity,
        name=spec.name,
        spec=spec.model_dump(mode="json"),
        cache_spec=_cache_spec(cache, spec),
        classes=list(cache.classes),
        dataset=dict(cache.manifest.info),
        streams=_streams(cache, parts["train"]),
        rows={split: {"rows": len(part), "missing": part.missing()} for split, part in parts.items()},
        metrics={split: classification_metrics(parts[split].labels, probs[split], cache.classes) for split in SPLITS},
        history=outcome.history,
        best_epoch=outcome.best_epoch,
        parameters=sum(tensor.numel() for tensor in head.parameters()),
        versions=_versions(),
        machine={"platform": platform.platform(), "device": _device_name(where)},
        seconds=seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=_notes(cache, splits, parts["train"]),
    )
    predictions = Predictions(parts["test"].sample_ids, parts["test"].labels, probs["test"])
    baseline = _action_unit_baseline(cache, spec, rows["train"])
    write_run(runs, record, predictions, _arrays(outcome.weights, scaling, baseline))
    return record, True


def _train(table: FeatureTable, fold: Fold, spec: RunSpec, device: torch.device, on_epoch: OnEpoch | None) -> Outcome:
    """One head, a group of one; that it diverges is an error here, where nobody else goes on."""
    found = np.unique(table.labels[fold.train])
    if len(found) == 1:
        raise TrainingError(
            f"all {len(fold.train)} training rows are labelled {table.classes[found[0]]!r}: a head needs at least two "
            "labels"
        )
    # Whoever chooses is given no other label than those of training and validation rows.
    used = np.concatenate([fold.train, fold.val])
    labels = np.full_like(table.labels, -1)
    labels[used] = table.labels[used]
    table = replace(table, labels=labels)
    member = Member(spec.features.streams, spec.head, spec.train)

    def tell(_: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
        if on_epoch is not None and entries:
            on_epoch(entries[0])

    (outcome,) = train_group(Table.of(table), [fold], [member], Machine.of(device), on_epoch=tell)
    if outcome.ended == "diverged":
        raise TrainingError(
            f"the loss is not finite in epoch {outcome.last_epoch} with learning_rate {spec.train.learning_rate:g}: "
            "the training diverged. Lower the learning rate"
        )
    return outcome


def _check_rows(rows: Mapping[str, int]) -> None:
    """Raises unless every split has a row, naming those that have none."""
    why = {"train": "to learn from", "val": "to choose the epoch on", "test": "to report on"}
    lacking = [f"{split!r} ({why[split]})" for split, count in rows.items() if count == 0]
    if lacking:
        raise TrainingError(
            f"no labelled row has split {' nor '.join(lacking)}. Give the dataset such rows, or have its labels split "
            "anew: `split: {kind: stratified}` in a pipeline, `--split stratified` on the command line"
        )


def run_digest(cache: Cache, spec: RunSpec, splits: npt.NDArray[np.str_]) -> str:
    """Identity of a run: all that changes its weights and scores, but the machine.

    The spec without its name, the digests of its streams, and the ids, labels and splits of all rows in their order.

    Raises:
        SpecError: a stream that is not in the cache.
    """
    streams = cached_streams(cache.streams, spec.features.streams, cache.path)
    return digest(
        {
            "version": TRAINING_VERSION,
            "spec": spec.model_dump(mode="json", exclude={"name"}),
            "streams": {name: stream.digest for name, stream in streams.items()},
            "classes": list(cache.classes),
            "sample_ids": [str(sample_id) for sample_id in cache.sample_ids],
            "labels": [int(label) for label in cache.labels],
            "splits": [str(split) for split in splits],
        }
    )


def run_splits(cache: Cache, spec: SplitSpec) -> npt.NDArray[np.str_]:
    """(N,) str, the split of a run: the manifest's own, or a seeded one of the same labels; "" for no split."""
    if not isinstance(spec, StratifiedSplit):
        return np.asarray(cache.splits, dtype=np.str_)
    labels = [cache.classes[label] if label >= 0 else None for label in cache.labels]
    return np.asarray([split or "" for split in stratified_split(labels, spec)], dtype=np.str_)


def _cache_spec(cache: Cache, spec: RunSpec) -> dict[str, Any]:
    streams = [cache.streams[name].spec for name in spec.features.streams]
    return {"name": cache.path.stem, "decode": cache.decode, "face": cache.face, "streams": streams}


def _streams(cache: Cache, train: FeatureTable) -> dict[str, Any]:
    streams = {name: cache.streams[name] for name in train.features}
    return {
        name: {
            "kind": stream.kind,
            "digest": stream.digest,
            "dim": stream.dim,
            "used_dim": train.dims[name],
            "weights": stream.weights,
        }
        for name, stream in streams.items()
    }


def _notes(cache: Cache, splits: npt.NDArray[np.str_], train: FeatureTable) -> list[str]:
    """What a reader of the results should know, one sentence each."""
    notes = []
    unlabelled = int(np.sum(cache.labels < 0))
    unsplit = int(np.sum((cache.labels >= 0) & ~np.isin(splits, SPLITS)))
    if unlabelled or unsplit:
        notes.append(
            f"{unlabelled + unsplit} of {len(splits)} rows are in no split of this run: "
            f"{unlabelled} without a label, {unsplit} with a label but no split."
        )
    seen = set(train.labels.tolist())
    unseen = [label for index, label in enumerate(train.classes) if index not in seen]
    empty = [name for name, valid in train.valid.items() if not valid.any()]
    return [
        *notes,
        *(f"No training row is labelled {label!r}: the head cannot learn it." for label in unseen),
        *(f"No training row has stream {name!r}: the head learned nothing from it." for name in empty),
    ]


def _action_unit_baseline(cache: Cache, spec: RunSpec, rows: npt.NDArray[np.int64]) -> Scaling | None:
    """All action units over the training faces: what a face is described against, whatever the head looks at.

    The run's own stream of them, else the first whole one of the cache.
    """
    found = [name for name, stream in cache.streams.items() if stream.kind == ACTION_UNITS]
    found.sort(key=lambda name: name not in spec.features.streams)
    whole = next((name for name in found if cache.streams[name].counts()["pending"] == 0), None)
    if whole is None:
        return None
    wanted = spec.features.model_copy(update={"streams": (whole,), "action_units": STORED_DIMS[ACTION_UNITS]})
    table = read_features(cache, wanted)
    if not table.valid[whole][rows].any():
        return None
    return fit_scaling(table, rows, neutral_label=wanted.neutral_label)[whole]


def _arrays(
    weights: Mapping[str, npt.NDArray[Any]], scaling: Mapping[str, Scaling], baseline: Scaling | None
) -> dict[str, npt.NDArray[np.float32]]:
    """All arrays of a run under the names they are saved by (see `emofuse.results`)."""
    arrays = {f"head.{name}": array for name, array in weights.items()}
    fitted = {f"scaling.{name}": values for name, values in scaling.items()}
    if baseline is not None:
        fitted["baseline"] = baseline
    for name, values in fitted.items():
        arrays |= {f"{name}.center": values.center, f"{name}.scale": values.scale}
    return arrays


def _versions() -> dict[str, str]:
    return {
        "emofuse": emofuse.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
