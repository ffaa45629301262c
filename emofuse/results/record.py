"""The record of a run, `run.json`: everything about it but its arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from emofuse.errors import ResultsError
from emofuse.results.paths import RECORD_FILE, results_below
from emofuse.stores import replace_file

FORMAT = 1
_LISTED = 10


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
        costs: {"flops"}: the floating point operations of all heads for one row that has every stream (two for a
            multiplication with its addition), and, where it is known, {"together": {"heads", "seconds"}}: the heads
            that trained at the same time, those of other runs among them, and the wall time of all; runs of former
            versions lack it.
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
    costs: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    format: int = field(default=FORMAT)

    @property
    def target_kind(self) -> str:
        """What the run predicts: `class`, `distribution`, `regression` or `multilabel`."""
        return str((self.spec.get("target") or {}).get("kind", "class"))


def read_record(folder: Path) -> RunRecord:
    """Read the record of one run's folder. Keys of a later version of emofuse are passed over.

    Raises:
        ResultsError: there is no run, it is damaged, or another format version wrote it.
    """
    data = _read_json(folder)
    known = {each.name: each for each in fields(RunRecord)}
    lacking = [name for name, each in known.items() if name not in data and _is_required(each)]
    if lacking:
        path = folder / RECORD_FILE
        raise ResultsError(f"{path}: it lacks {', '.join(lacking)}; delete the folder and train the run again")
    return RunRecord(**{name: value for name, value in data.items() if name in known})


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / RECORD_FILE
    if not path.is_file():
        if not folder.is_dir():
            raise ResultsError(f"{folder}: no such folder; train first: emofuse run NAME")
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
        below = results_below(folder)
        return f"; name one of the folders below it: {below}" if below else ""
    records = [(path.parent, read_record(path.parent)) for path in paths[:_LISTED]]
    names = [f"{below} ({record.name}, seed {record.spec.get('train', {}).get('seed')})" for below, record in records]
    more = f", and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return f"; the runs below it: {', '.join(names)}{more}"


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
    replace_file(folder / RECORD_FILE, json_text({**_read_json(folder), **values}))
    return replace(record, **values)


def record_text(record: RunRecord) -> str:
    """Return the text of `run.json`; optional keys are left out if they are empty."""
    optional = {"heads", "refit", "costs", "evaluation"}
    return json_text({key: value for key, value in asdict(record).items() if value or key not in optional})


def json_text(data: Mapping[str, Any]) -> str:
    """Return the text of a JSON file of results."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
