"""Saved runs: split, standardise, train, score the test rows once, write. The same run asked again is read."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

import emofuse
from emofuse.datasets.splits import stratified_split
from emofuse.errors import ResultsError
from emofuse.features import (
    ACTION_UNITS,
    SPLITS,
    STORED_DIMS,
    FeatureTable,
    Scaling,
    cached_streams,
    derived_features,
    fit_scaling,
    read_features,
    standardise,
)
from emofuse.heads import make_head
from emofuse.heads.concat import ConcatHead
from emofuse.results import Predictions, RunRecord, read_record, read_weights, rename_run, run_dir, write_run
from emofuse.specs import RunSpec, SplitSpec, StratifiedSplit, digest, parse_spec
from emofuse.status import Status
from emofuse.training.loop import Batch, OnEpoch, check_rows, predict_probs, resolve_device, train_head
from emofuse.training.metrics import classification_metrics

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

TRAINING_VERSION = 1  # raised whenever this code gives other weights for the same spec and rows: part of every digest


@dataclass(frozen=True)
class TrainedHead:
    """A saved run, ready to predict.

    Attributes:
        head: in evaluation mode, on the device asked for.
        scaling: stream -> as fitted on the run's training rows.
        action_unit_baseline: of all 30 action units over the run's training faces, whether or not its head looks at
            them; None if the cache had none.
        record: of the run.
    """

    head: ConcatHead
    scaling: Mapping[str, Scaling]
    action_unit_baseline: Scaling | None
    record: RunRecord

    def probs(
        self, features: Mapping[str, npt.NDArray[Any]], status: Mapping[str, npt.NDArray[np.uint8]]
    ) -> npt.NDArray[np.float32]:
        """Probabilities of new rows, from features as a cache stores them.

        Args:
            features: stream -> (n, D) as extracted, n >= 1.
            status: stream -> (n,) uint8 of `Status`.

        Returns:
            (n, C) float32, columns in the order of `record.classes`.
        """
        spec = _run_spec(self.record)
        device = self.head.output.weight.device
        rows, valid = {}, {}
        for name in self.head.streams:
            is_valid = status[name] == Status.OK
            derived = derived_features(self.record.streams[name]["kind"], features[name], spec.features)
            rows[name] = torch.from_numpy(self.scaling[name].apply(derived, is_valid)).to(device)
            valid[name] = torch.from_numpy(is_valid).to(device)
        count = len(next(iter(rows.values())))
        return predict_probs(self.head, Batch(rows, valid, torch.full((count,), -1, device=device)))


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
    check_rows({split: len(found) for split, found in rows.items()})
    where = resolve_device(device)
    table = read_features(cache, spec.features)
    scaling = fit_scaling(table, rows["train"], neutral_label=spec.features.neutral_label)
    parts = {split: standardise(table, rows[split], scaling) for split in SPLITS}
    del table  # the parts are a copy: no need for both while training

    head = make_head(spec.head, parts["train"].dims, len(cache.classes), seed=spec.train.seed)
    started = time.perf_counter()
    training = train_head(head, parts["train"], parts["val"], spec.train, where, on_epoch=on_epoch)
    seconds = time.perf_counter() - started

    probs = {split: predict_probs(head, Batch.from_table(part, where)) for split, part in parts.items()}
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
        history=training.history,
        best_epoch=training.best_epoch,
        parameters=sum(tensor.numel() for tensor in head.parameters()),
        versions=_versions(),
        machine={"platform": platform.platform(), "device": _device_name(where)},
        seconds=seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=_notes(cache, splits, parts["train"]),
    )
    predictions = Predictions(parts["test"].sample_ids, parts["test"].labels, probs["test"])
    baseline = _action_unit_baseline(cache, spec, rows["train"])
    write_run(runs, record, predictions, _weights(head, scaling, baseline))
    return record, True


def load_head(folder: Path, *, device: str = "cpu") -> TrainedHead:
    """The head of one run's folder, as it was when its test rows were scored.

    Raises:
        ResultsError: no run there, or its weights do not fit its record.
        TrainingError: no such device.
    """
    record, arrays = read_record(folder), read_weights(folder)
    spec = _run_spec(record)
    streams = spec.features.streams
    head = make_head(spec.head, {name: record.streams[name]["used_dim"] for name in streams}, len(record.classes))
    state = {name.removeprefix("head."): array for name, array in arrays.items() if name.startswith("head.")}
    try:
        head.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        scaling = {name: _saved_scaling(arrays, f"scaling.{name}") for name in streams}
        baseline = _saved_scaling(arrays, "baseline") if "baseline.center" in arrays else None
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ResultsError(
            f"{folder}: weights.safetensors does not fit run.json ({reason}); delete the folder and train the run again"
        ) from None
    return TrainedHead(head.to(resolve_device(device)).eval(), scaling, baseline, record)


def run_digest(cache: Cache, spec: RunSpec, splits: npt.NDArray[np.str_]) -> str:
    """Identity of a run: all that changes its weights and scores, but the machine.

    The spec without its name, the digests of its streams, and the ids, labels and splits of all rows in their order.

    Raises:
        SpecError: a stream that is not in the cache.
    """
    streams = cached_streams(cache, spec.features.streams)
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


def _run_spec(record: RunRecord) -> RunSpec:
    return parse_spec(RunSpec, record.spec, f"run {record.digest[:16]}")


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


def _weights(
    head: ConcatHead, scaling: Mapping[str, Scaling], baseline: Scaling | None
) -> dict[str, npt.NDArray[np.float32]]:
    """All arrays of a run under the names they are saved by (see `emofuse.results`)."""
    arrays = {f"head.{name}": tensor.cpu().numpy() for name, tensor in head.state_dict().items()}
    fitted = {f"scaling.{name}": values for name, values in scaling.items()}
    if baseline is not None:
        fitted["baseline"] = baseline
    for name, values in fitted.items():
        arrays |= {f"{name}.center": values.center, f"{name}.scale": values.scale}
    return arrays


def _saved_scaling(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> Scaling:
    return Scaling(arrays[f"{name}.center"], arrays[f"{name}.scale"])


def _versions() -> dict[str, str]:
    return {
        "emofuse": emofuse.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
