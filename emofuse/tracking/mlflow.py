"""Log to MLflow: the server, database or folder that MLFLOW_TRACKING_URI names, or MLflow's default."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

# Seven retries with growing pauses, the default, take minutes for each call to a server that is down.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun

from emofuse.tracking.logged import Logged

Item = TypeVar("Item")

EXPERIMENT = "emofuse"
_DIGEST = "emofuse.digest"
_IS_WHOLE = "emofuse.logged"
_PARAMETERS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
_PARAMETER_CHARACTERS = 6000
_TAG_CHARACTERS = 5000


class OpenTracker:
    """An experiment of MLflow. A run has the tag `emofuse.logged` once it is whole, by which none is logged twice."""

    def __init__(self, _: Path) -> None:
        self.name = "mlflow"
        self._uri = mlflow.get_tracking_uri()
        self._experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        self.where = f"experiment {self._experiment!r} of {self._uri}"

    @cached_property
    def _client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self._uri)

    @cached_property
    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        return str(found.experiment_id if found else self._client.create_experiment(self._experiment))

    @cached_property
    def _whole(self) -> set[str]:
        """The keys of all entries that are logged whole."""
        return {run.data.tags.get(_DIGEST, "") for run in self._search(f"tags.`{_IS_WHOLE}` = 'yes'")}

    def _search(self, condition: str) -> Iterator[MlflowRun]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment_id], condition, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def has(self, key: str) -> bool:
        """Return whether the experiment has the entry, whole."""
        return key in self._whole

    def log(self, entry: Logged) -> None:
        """Log an entry as one run; what an interrupted call has left of it is deleted first."""
        for former in list(self._search(f"tags.`{_DIGEST}` = '{entry.key}'")):
            self._client.delete_run(former.info.run_id)
        end = int(datetime.fromisoformat(entry.created).timestamp() * 1000) if entry.created else None
        start = None if end is None else end - int(entry.seconds * 1000)
        tags = {_DIGEST: entry.key, "emofuse.kind": entry.kind}
        tags |= {f"emofuse.{name}": text[:_TAG_CHARACTERS] for name, text in entry.tags.items()}
        if entry.notes:
            tags["mlflow.note.content"] = "\n".join(entry.notes)[:_TAG_CHARACTERS]
        run = self._client.create_run(self._experiment_id, start_time=start, tags=tags, run_name=entry.name)
        run_id = run.info.run_id
        try:
            self._log_values(run_id, entry, end or run.info.start_time)
            for path in entry.files:
                below = path.relative_to(entry.folder).parent.as_posix()
                self._client.log_artifact(run_id, str(path), None if below == "." else below)
            self._client.log_batch(run_id, tags=[RunTag(_IS_WHOLE, "yes")])
        except BaseException:
            self._client.set_terminated(run_id, "FAILED")
            raise
        self._client.set_terminated(run_id, end_time=end)
        self._whole.add(entry.key)

    def _log_values(self, run_id: str, entry: Logged, time_ms: int) -> None:
        values = {name: str(value) for name, value in entry.parameters.items()}
        params = [Param(name, text[:_PARAMETER_CHARACTERS]) for name, text in _allowed(values)]
        for some in _batches(params, _PARAMETERS_AT_ONCE):
            self._client.log_batch(run_id, params=some)
        metrics = [Metric(name, value, time_ms, 0) for name, value in _allowed(entry.metrics)]
        metrics += [
            Metric(name, value, time_ms, epoch) for name, points in _allowed(entry.curves) for epoch, value in points
        ]
        for batch in _batches(metrics, _METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics=batch)


def _allowed(values: Mapping[str, Item]) -> Iterator[tuple[str, Item]]:
    """Yield values under names that MLflow allows; names that are then equal are numbered."""
    seen: dict[str, int] = {}
    for name, value in values.items():
        allowed = re.sub(r"[^\w\-. :/]", "_", name)[:240]
        seen[allowed] = seen.get(allowed, 0) + 1
        yield allowed if seen[allowed] == 1 else f"{allowed}-{seen[allowed]}", value


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
