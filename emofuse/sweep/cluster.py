"""The trainer of a Dask cluster: each worker opens the cache and trains one group at a time, one worker a GPU.

A task is a pure function of the cache's path and the runs' specs. Workers write nothing: they return rows to the
process of the sweep, which writes them. If a worker dies, Dask gives its group to another one. A group that has killed
several workers ends the sweep; the rows of finished groups are kept.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from distributed import Client, Future, KilledWorker, get_worker

from emofuse.cache.reader import Cache, open_cache
from emofuse.errors import BuildError, EmofuseError, TrainingError
from emofuse.extraction.cluster import remote_client, run_tasks
from emofuse.machine.devices import resolve_device
from emofuse.specs import BaseRun
from emofuse.specs.plugins import PluginFile, load_sent, loaded_plugins
from emofuse.sweep.groups import OnRows, SearchGroup, device_name, train_rows, versions
from emofuse.sweep.rows import RunRow
from emofuse.training.data import TrainingData
from emofuse.training.machine import Machine, default_memory_bytes
from emofuse.training.rates import Rates, measure_rates

GPU = "GPU"
"""The usual name of the resource in Dask: `dask worker ... --resources GPU=1`."""
_SAME_EVERYWHERE = ("emofuse", "torch")


@dataclass(frozen=True)
class GroupTask:
    """Everything that a worker needs to train a group.

    Attributes:
        cache: the absolute path of the cache.
        memory_bytes: the memory that training may use.
        device: the device: cpu, cuda, cuda:N or auto.
        group: the group.
        digests: the digests of the runs in the process of the sweep, which the worker's must equal.
        plugins: the plugin files of the process of the sweep, which workers read at the same paths.
    """

    cache: Path
    memory_bytes: int
    device: str
    group: SearchGroup
    digests: tuple[str, ...]
    plugins: tuple[PluginFile, ...] = ()


@dataclass(frozen=True)
class WorkerFacts:
    """The properties of a worker.

    Attributes:
        host: the name of its machine.
        device: the device: `cpu`, `cuda:0`, ...
        name: the name of the device.
        memory_bytes: the memory that training may use.
        versions: package -> version.
    """

    host: str
    device: str
    name: str
    memory_bytes: int
    versions: dict[str, str]


class DaskTrainer:
    """A trainer that trains on the workers of a Dask scheduler.

    Args:
        client: the client of the scheduler.
        cache: the cache, which all workers see under the same path.
        base: the values that all runs share: their split, target and weights.
        device: the device, which each worker resolves for itself.
        memory_bytes: the memory that training may use on each worker; None for the default of the smallest one.

    Raises:
        BuildError: a worker has other versions of the packages.
    """

    def __init__(self, client: Client, cache: Cache, base: BaseRun, *, device: str, memory_bytes: int | None) -> None:
        self._client = client
        self._cache = cache.path.absolute()
        self._device = device
        facts = _worker_facts(client, device)
        smallest = min(facts, key=lambda each: each.memory_bytes)
        self.machine = Machine.of(torch.device(smallest.device))
        self.data = TrainingData.of(
            cache,
            base.split,
            target=base.target,
            weight_column=base.weight_column,
            memory_bytes=memory_bytes or smallest.memory_bytes,
        )
        self.description = _describe(facts)

    @property
    def rates(self) -> Rates:
        """The speed of one of the workers, measured on access."""
        rates: Rates = self._client.submit(measure_rates, self.machine, pure=False).result()
        return rates

    def train(
        self,
        groups: Iterator[SearchGroup],
        on_rows: OnRows,  # noqa: ARG002 - workers do not report epochs
        seconds: Sequence[float] = (),  # noqa: ARG002 - the number of workers decides
    ) -> Generator[tuple[SearchGroup, list[RunRow]], None, None]:
        """Yield every group with its rows as it finishes. There are never more running groups than workers.

        Raises:
            EmofuseError: a worker raised it, or a group killed its workers.
        """

        def submit(running: Collection[SearchGroup]) -> Iterator[tuple[Future[Any], SearchGroup]]:
            count, resources = self._workers()
            for group in islice(groups, max(0, count - len(running))):
                yield self._client.submit(train_task, self._task(group), pure=False, resources=resources), group

        for future, group in run_tasks(self._client, submit):
            yield group, _rows(future, group)

    def _task(self, group: SearchGroup) -> GroupTask:
        digests = tuple(self.data.digest(run.spec) for run in group.runs)
        return GroupTask(self._cache, self.data.memory_bytes, self._device, group, digests, loaded_plugins())

    def _workers(self) -> tuple[int, dict[str, float] | None]:
        """Return how many groups can run at a time, at least 1, and the resources that each of them takes."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        gpus = sum(int(worker["resources"].get(GPU, 0)) for worker in workers)
        return (gpus, {GPU: 1}) if gpus else (max(1, len(workers)), None)


@contextmanager
def dask_trainer(
    scheduler: str, cache: Cache, base: BaseRun, *, device: str, memory_bytes: int | None
) -> Iterator[DaskTrainer]:
    """Open a trainer on the workers of a running scheduler.

    Raises:
        BuildError: the scheduler does not answer or has no workers, or a worker has other versions of the packages.
    """
    with remote_client(scheduler) as client:
        yield DaskTrainer(client, cache, base, device=device, memory_bytes=memory_bytes)


# --- in the worker ---------------------------------------------------------------------------------------------------

# The data of the last task: a worker may outlive a sweep, so that more would fill its memory.
_opened: dict[tuple[Path, str, int], TrainingData] = {}
_one_group_at_a_time = threading.Lock()


def describe_worker(device: str) -> WorkerFacts:
    """Return the properties of this worker that the plan of a sweep depends on."""
    where = torch.device(resolve_device(device))
    return WorkerFacts(
        host=platform.node(),
        device=str(where),
        name=device_name(where),
        memory_bytes=default_memory_bytes(where),
        versions=versions(),
    )


def train_task(task: GroupTask) -> list[RunRow]:
    """Train a group in this worker.

    Raises:
        EmofuseError: the cache is absent or differs from that of the sweep, or the group cannot be trained.
    """
    with _one_group_at_a_time:
        _use_threads_of_worker()
        for plugin in task.plugins:
            load_sent(str(plugin.path), plugin.sha256)
        return train_rows(_open_data(task), task.group, Machine.of(torch.device(resolve_device(task.device))))


def _open_data(task: GroupTask) -> TrainingData:
    """Return the data of a task, reopened if targets or streams have changed since this worker opened it."""
    spec = task.group.runs[0].spec
    key = (task.cache, spec.model_dump_json(include={"split", "target", "weight_column"}), task.memory_bytes)
    if key in _opened and _is_the_same(_opened[key], task):
        return _opened[key]
    _opened.clear()
    data = TrainingData.of_run(open_cache(task.cache), spec, memory_bytes=task.memory_bytes)
    if not _is_the_same(data, task):
        raise TrainingError(
            f"worker on {platform.node()}: {task.cache} is another cache here, or another emofuse reads it. "
            "Give all workers the same files and the same emofuse"
        )
    _opened[key] = data
    return data


def _is_the_same(data: TrainingData, task: GroupTask) -> bool:
    return tuple(data.digest(run.spec) for run in task.group.runs) == task.digests


def _use_threads_of_worker() -> None:
    """Use as many threads as the worker was started with, because several workers may share a machine."""
    with suppress(ValueError):  # called outside a worker
        torch.set_num_threads(max(1, get_worker().state.nthreads))


# --- in the process of the sweep --------------------------------------------------------------------------------------


def _rows(future: Future[Any], group: SearchGroup) -> list[RunRow]:
    first = group.runs[0].spec.name
    try:
        rows: list[RunRow] = future.result()
    except KilledWorker as error:
        raise TrainingError(
            f"a group of {len(group.runs)} heads ({first}, ...) killed its worker {error.allowed_failures + 1} times: "
            "out of memory, or a native crash. Give less memory with --memory-gb, so that fewer heads train at once; "
            "finished groups are kept"
        ) from None
    except EmofuseError:
        raise
    except Exception as error:  # Dask raises errors of many types when a task cannot be sent, unpacked or is lost
        raise TrainingError(
            f"a group of {len(group.runs)} heads ({first}, ...) was lost ({type(error).__name__}: {error}). Finished "
            "groups are kept; start the same sweep again"
        ) from error
    return rows


def _worker_facts(client: Client, device: str) -> list[WorkerFacts]:
    """Return the properties of every worker, asked outside of tasks, so that busy workers answer too."""
    try:
        facts = list(client.run(describe_worker, device).values())
    except EmofuseError:
        raise
    except Exception as error:
        raise BuildError(
            f"the scheduler's workers cannot train ({type(error).__name__}: {error}). "
            "Give all workers the same emofuse, with torch."
        ) from error
    _check_versions(facts)
    return facts


def _check_versions(facts: list[WorkerFacts]) -> None:
    ours = versions()
    for worker in facts:
        for package in _SAME_EVERYWHERE:
            if worker.versions[package] != ours[package]:
                raise BuildError(
                    f"worker on {worker.host} has {package} {worker.versions[package]}, this process has "
                    f"{ours[package]}. Give all workers the same versions."
                )


def _describe(facts: list[WorkerFacts]) -> str:
    """Return text such as `2 workers (cpu on a, NVIDIA H200 on b)`."""
    kinds = dict.fromkeys(f"{worker.name} on {worker.host}" for worker in facts)
    return f"{len(facts)} worker{'s' * (len(facts) > 1)} ({', '.join(kinds)})"
