"""The entries that are logged for a run or a report, as plain data that every tracker can take."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emofuse.results import RunRecord
from emofuse.specs import canonical_json, digest

Parameter = str | int | float | bool


@dataclass(frozen=True)
class Logged:
    """One entry of a tracker: a run, or the report on several.

    Attributes:
        kind: `run`, `reference`, `searched` or `report`.
        key: the SHA-256 that tells it from all others, by which nothing is logged twice.
        name: its name.
        created: the time of its end, UTC in ISO 8601; empty if that is unknown.
        seconds: how long it took.
        parameters: name of a parameter -> its value; those of nested parts are joined by a dot.
        metrics: name of a score -> its value; parts are joined by a slash, the split comes first.
        curves: name of a curve -> its points (epoch, value).
        tags: name -> text.
        notes: sentences for readers.
        files: the files of a report.
        folder: the folder that the files lie in.
    """

    kind: str
    key: str
    name: str
    created: str = ""
    seconds: float = 0.0
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    files: Sequence[Path] = ()
    folder: Path = field(default_factory=Path)


def logged_run(record: RunRecord) -> Logged:
    """Return what is logged of a saved run."""
    seed = (record.spec.get("train") or {}).get("seed")
    streams = {name: stream["digest"] for name, stream in sorted(record.streams.items())}
    scores = {split: record.metrics[split] for split in ("val", "test") if split in record.metrics}
    return Logged(
        kind="reference" if record.spec.get("reference") else "run",
        key=record.digest,
        name=record.name if seed is None else f"{record.name}, seed {seed}",
        created=record.created,
        seconds=record.seconds,
        parameters=dict(_flatten_spec(record.spec)),
        metrics={
            **dict(_flatten_scores(scores)),
            "parameters": float(record.parameters),
            "best_epoch": float(record.best_epoch),
            "seconds": record.seconds,
        },
        curves=_curves(record.history),
        tags={
            "digest": record.digest,
            "configuration": record.name,
            "dataset": str(record.dataset.get("name", "")),
            "cache_digest": digest(streams),
            "streams": ", ".join(streams),
            "emofuse_version": record.versions.get("emofuse", ""),
            "device": record.machine.get("device", ""),
        },
        notes=record.notes,
    )


def logged_searched_run(row: Mapping[str, Any]) -> Logged:
    """Return what is logged of a run of a search, by its row in plain data (see `emofuse.sweep.rows.RunRow`).

    It has no test scores and no streams' digests.
    """
    fold = "" if row["fold"] is None else f", fold {row['fold']}"
    scores = {name: row.get(name) for name in ("val_macro_f1", "val_accuracy", "val_loss", "val_ccc", "val_map")}
    metrics = {f"val/{name.removeprefix('val_')}": value for name, value in scores.items() if value is not None}
    numbers = {name: float(row[name]) for name in ("parameters", "best_epoch", "last_epoch", "seconds")}
    return Logged(
        kind="searched",
        key=row["digest"],
        name=f"{row['name']}, seed {row['seed']}{fold}",
        created=row["created"],
        seconds=row["seconds"],
        parameters=dict(_flatten_spec(row["spec"])),
        metrics={**metrics, **numbers},
        curves=_curves(row["history"]),
        tags={
            "digest": row["digest"],
            "configuration": row["name"],
            "sweep": row["sweep"],
            "ended": row["ended"],
            "emofuse_version": row["versions"].get("emofuse", ""),
            "device": row["device"],
        },
    )


def logged_report(folder: Path, title: str, records: Sequence[RunRecord]) -> Logged | None:
    """Return what is logged of the report in a folder; None if there is none.

    Args:
        folder: the folder of the report.
        title: the name of what it reports on.
        records: the runs that it reports on.
    """
    if not (folder / "index.html").is_file():
        return None
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    key = hashlib.sha256()
    for path in files:
        key.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    datasets = {str(record.dataset.get("name", "")): None for record in records}
    return Logged(
        kind="report",
        key=key.hexdigest(),
        name=f"report: {title}",
        tags={"digest": key.hexdigest(), "dataset": ", ".join(datasets), "runs": str(len(records))},
        files=files,
        folder=folder,
    )


def _flatten_spec(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Parameter]]:
    """Yield the values of a spec; lists of names are joined by commas, other lists are JSON."""
    for key, value in spec.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten_spec(value, f"{name}.")
        elif isinstance(value, list | tuple):
            are_names = all(isinstance(each, str) and "," not in each for each in value)
            yield name, ", ".join(value) if are_names else canonical_json(list(value))
        elif value is not None:
            yield name, value


def _flatten_scores(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a run's metrics. Parts of a list have the names of their labels; matrices are left out."""
    for key, value in scores.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten_scores(value, f"{name}/")
        elif isinstance(value, list | tuple):
            for part in value:
                label = part.get("label") if isinstance(part, Mapping) else None
                if label is not None:
                    of_part = {each: number for each, number in part.items() if each != "label"}
                    yield from _flatten_scores(of_part, f"{name}/{label}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def _curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for number, entry in enumerate(history, start=1):
        for name, value in entry.items():
            if name != "epoch" and isinstance(value, int | float):
                curves.setdefault(name, []).append((int(entry.get("epoch", number)), float(value)))
    return curves
