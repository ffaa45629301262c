"""Saved runs: plain files that training writes and reports read.

A run is one folder named by its digest::

    runs/<digest, 16 hex digits>/
        run.json            everything but arrays (class `RunRecord`)
        predictions.npz     test rows: sample_id (str), label (int64), probs (n, C) float32 or, of a regression, values
                            (n, C) float32; group (str) if there are groups; target (n, C) float32 of all but classes
        weights.safetensors `head.<parameter or buffer>`, `scaling.<stream>.center|scale|limit`, of a stream with
                            principal components also `scaling.<stream>.components|offset|variances`, and, if the cache
                            has action units, `baseline.center|scale` of all 30 over the run's training faces; of head k
                            of an ensemble `heads.<k>.head...` and `heads.<k>.scaling...`

The folder is written under another name and renamed, so it is complete or absent. `references.json` beside the runs has
the notes on their reference models, for reports that are made later.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import ResultsError
from emofuse.stores import making_folder, replace_file

FORMAT = 1
_REFERENCES = "references.json"
_LISTED = 10
_UNREADABLE_NPZ = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""The errors of zipfile and NumPy for a damaged file, which depend on the place of the damage."""


@dataclass(frozen=True)
class RunRecord:
    """One trained run, without arrays. All values are plain JSON.

    Attributes:
        digest: the SHA-256 of the spec without its name, the streams' digests, and the manifest's labels and splits.
        name: the configuration's name, the same for all its repeats.
        spec: the `RunSpec` as plain data.
        cache_spec: the `CacheSpec` as plain data with the streams of this run, from which `predict` extracts again.
        classes: the names of the C outputs in index order: of the classes, or of the columns of a regression or of
            several labels (see `target_kind`).
        dataset: the manifest's info.
        streams: name -> {kind, digest, dim, weights: {kind, name, sha256} or null, used_dim}, and with principal
            components pca: {wanted, components, variance}, the last two of each head.
        rows: split -> {"rows": n, "missing": {stream: {status name: count}}}.
        metrics: split -> metrics as `emofuse.metrics.classification` computes them.
        history: one entry for each epoch: {epoch, train_loss, val_loss, val_accuracy, val_macro_f1}.
        best_epoch: the epoch whose weights were kept, counted from 1.
        parameters: the number of trainable parameters of the head.
        versions: package -> version.
        machine: {platform, device, products}, the last the type of the operands of matrix products in training; runs of
            former versions lack it.
        seconds: the wall time of training, or the run's share of it if several trained together.
        created: the time of the end, UTC in ISO 8601.
        notes: notes for readers of the results (rows left out, labels never seen), one sentence each.
        heads: for each head of an ensemble {fold, seed, best_epoch, history, fitted: {stream: bool}}; no entry for a
            run of one head. `history` and `best_epoch` of the run are then the means over its heads.
        refit: for each second training on training and validation rows {rows, epochs, train_loss, seconds}; no entry
            without one. `history`, `best_epoch` and the scores of "val" are those of the first training.
        plugins: the plugin files with metrics that the run was trained or reported with, {path, sha256} each.
        evaluation: what is known of a test on another dataset (see `emofuse.evaluation`), whose rows are then those of
            "test"; empty for a run.
    """

    digest: str
    name: str
    spec: Mapping[str, Any]
    cache_spec: Mapping[str, Any]
    classes: Sequence[str]
    dataset: Mapping[str, Any]
    streams: Mapping[str, Any]
    rows: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    best_epoch: int
    parameters: int
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    seconds: float
    created: str
    notes: Sequence[str] = ()
    plugins: Sequence[Mapping[str, str]] = field(default_factory=list)  # a list, as JSON has it
    heads: Sequence[Mapping[str, Any]] = field(default_factory=list)
    refit: Sequence[Mapping[str, Any]] = field(default_factory=list)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    format: int = field(default=FORMAT)

    @property
    def target_kind(self) -> str:
        """What the run predicts: `class`, `distribution`, `regression` or `multilabel`."""
        return str((self.spec.get("target") or {}).get("kind", "class"))


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run for its n test rows.

    Attributes:
        sample_id: the ids of the samples, (n,) str.
        label: the class index of each row, (n,) int64; -1 in every row of a regression and of several labels.
        outputs: the probabilities of the C classes, whose rows sum to 1, or of the C labels, or the C values of a
            regression in the units of its columns, (n, C) float32.
        group: the group of each sample (its speaker, film or picture), (n,) str, empty for a sample that is a group of
            its own; None if the manifest has no groups.
        target: the true values that `outputs` is compared with, (n, C) float32: a distribution over the classes, the
            columns of a regression, or 0 and 1 of each label; None if the target is a class.
    """

    sample_id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.float32]
    group: npt.NDArray[np.str_] | None = None
    target: npt.NDArray[np.float32] | None = None

    @property
    def probs(self) -> npt.NDArray[np.float32]:
        """The outputs where they are probabilities: of classes, of a distribution, or of several labels."""
        return self.outputs


def check_results_folder(path: Path) -> None:
    """Check that results can be written to this folder, or that it can be made. Nothing is written.

    Raises:
        ResultsError: a file is in its place or in that of a folder above it, or this process may not write there.
    """
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise ResultsError(
            f"{path}: results cannot be written there, {there} is a file. Name another folder with --out"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ResultsError(f"{path}: results cannot be written there, {there} is read-only. Name another with --out")


def run_dir(runs: Path, digest: str) -> Path:
    """Return the folder of the run with this digest."""
    return runs / digest[:16]


def write_run(
    runs: Path, record: RunRecord, predictions: Predictions, weights: Mapping[str, npt.NDArray[Any]] | None
) -> Path:
    """Write a run's folder at once and return it. If another process has written the equal run, that one stays.

    Args:
        runs: the folder of all runs.
        record: all but the arrays.
        predictions: the predictions of the test rows.
        weights: weights and scaling; None for an evaluation, which has none.
    """
    from safetensors.numpy import save_file

    runs.mkdir(parents=True, exist_ok=True)
    target = run_dir(runs, record.digest)
    contiguous = {name: np.asarray(array, order="C") for name, array in (weights or {}).items()}
    try:
        with making_folder(target) as partial:
            (partial / "run.json").write_text(_json_text(_written(record)), encoding="utf-8")
            arrays = {name: array for name, array in vars(predictions).items() if array is not None}
            arrays[_outputs_name(record)] = arrays.pop("outputs")
            np.savez(partial / "predictions.npz", **arrays)
            if weights is not None:
                save_file(contiguous, partial / "weights.safetensors")
    except OSError:
        if not (target / "run.json").is_file():
            raise
    return target


def _outputs_name(record: RunRecord) -> str:
    """Return the name of the outputs in `predictions.npz`."""
    return "values" if record.target_kind == "regression" else "probs"


def _written(record: RunRecord) -> dict[str, Any]:
    """Return the keys of `run.json`; those of ensembles, second trainings and evaluations are left out without any."""
    optional = {"heads", "refit", "evaluation"}
    return {key: value for key, value in asdict(record).items() if value or key not in optional}


def _json_text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_record(folder: Path) -> RunRecord:
    """Read the record of one run's folder. Keys of a later version of emofuse are passed over.

    Raises:
        ResultsError: there is no run, it is damaged, or another format version wrote it.
    """
    data = _read_json(folder)
    known = {each.name: each for each in fields(RunRecord)}
    lacking = [name for name, each in known.items() if name not in data and _is_required(each)]
    if lacking:
        path = folder / "run.json"
        raise ResultsError(f"{path}: it lacks {', '.join(lacking)}; delete the folder and train the run again")
    return RunRecord(**{name: value for name, value in data.items() if name in known})


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.is_file():
        raise ResultsError(f"{folder}: no run here (run.json is missing){_runs_below(folder)}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: damaged ({error}); delete the folder and train the run again") from None
    if not isinstance(data, dict):
        raise ResultsError(f"{path}: damaged (it holds no JSON object); delete the folder and train the run again")
    if data.get("format") != FORMAT:
        raise ResultsError(
            f"{path}: format {data.get('format')}, this emofuse reads format {FORMAT}; train the run again"
        )
    return data


def _is_required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _runs_below(folder: Path) -> str:
    """Return the folders that may have been meant: users know the folder of a pipeline, and not a digest."""
    paths = sorted({*folder.glob("*/run.json"), *folder.glob("runs/*/run.json")})
    if not paths:
        return ""
    records = [(path.parent, read_record(path.parent)) for path in paths[:_LISTED]]
    names = [f"{below} ({record.name}, seed {record.spec.get('train', {}).get('seed')})" for below, record in records]
    more = f", and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return f"; the runs below it: {', '.join(names)}{more}"


def rename_run(folder: Path, name: str) -> RunRecord:
    """Give a run another name, which is no part of its digest, and return the new record. Other keys stay as they are.

    Raises:
        ResultsError: see `read_record`.
    """
    return _update(folder, name=name, spec={**read_record(folder).spec, "name": name})


def record_plugins(folder: Path, plugins: Sequence[Mapping[str, str]]) -> RunRecord:
    """Add plugin files with metrics to the record of a run, so that later reports find them; return the new record.

    A file that is recorded already, by its path, has its new hash afterwards. Other keys stay as they are.

    Raises:
        ResultsError: see `read_record`.
    """
    record = read_record(folder)
    paths = {plugin["path"] for plugin in plugins}
    combined = [*(each for each in record.plugins if each.get("path") not in paths), *plugins]
    return record if combined == list(record.plugins) else _update(folder, plugins=combined)


def _update(folder: Path, **values: Any) -> RunRecord:
    """Replace some keys of `run.json` at once and return the new record."""
    record = read_record(folder)
    replace_file(folder / "run.json", _json_text({**_read_json(folder), **values}))
    return replace(record, **values)


def read_predictions(folder: Path) -> Predictions:
    """Read the predictions of a run's folder, without unpickling.

    Raises:
        ResultsError: the file is missing or damaged.
    """
    path = folder / "predictions.npz"
    try:
        with np.load(path, allow_pickle=False) as data:
            outputs = data["values"] if "values" in data else data["probs"]
            return Predictions(data["sample_id"], data["label"], outputs, data.get("group"), data.get("target"))
    except _UNREADABLE_NPZ as error:
        raise ResultsError(f"{path}: missing or damaged ({error}); delete the folder and train the run again") from None


def read_weights(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the parameters, buffers and scaling of the head from a run's folder.

    Raises:
        ResultsError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / "weights.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ResultsError(f"{path}: missing or damaged ({error}); delete the folder and train the run again") from None


def list_runs(runs: Path) -> list[RunRecord]:
    """Read the records of all runs of a folder, sorted by name and digest.

    Raises:
        ResultsError: the folder does not exist, or a run in it is damaged.
    """
    if not runs.is_dir():
        raise ResultsError(f"{runs}: no such folder of runs; train first: emofuse run NAME")
    folders = [path.parent for path in sorted(runs.glob("*/run.json"))]
    records = [read_record(folder) for folder in folders if not folder.name.startswith(".")]
    return sorted(records, key=lambda record: (record.name, record.digest))


def write_reference_notes(runs: Path, notes: Sequence[str]) -> None:
    """Keep the notes on the reference models of a folder of runs, in place of former ones."""
    path = runs / _REFERENCES
    text = _json_text({"notes": list(notes)})
    if not notes:
        path.unlink(missing_ok=True)
    elif not path.is_file() or path.read_bytes() != text.encode():
        runs.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)


def read_reference_notes(runs: Path) -> list[str]:
    """Return the notes on the reference models of a folder of runs; none if there are none.

    Raises:
        ResultsError: the file is damaged.
    """
    path = runs / _REFERENCES
    if not path.is_file():
        return []
    try:
        return [str(note) for note in json.loads(path.read_text(encoding="utf-8"))["notes"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{path}: damaged ({error!r}); delete it, the next run of the pipeline or sweep writes it again"
        ) from None
