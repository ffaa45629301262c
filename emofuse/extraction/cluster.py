"""The workers of a running Dask scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker, as_completed, get_worker
from distributed.comm.addressing import get_address_host_port, parse_address

from emofuse.cache.layout import StreamLayout
from emofuse.errors import BuildError
from emofuse.extraction.isolation import IsolatedExtraction
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob
from emofuse.extraction.worker_kinds import (
    RESOURCE,
    PartialResults,
    TaskQueues,
    WorkerKind,
    gpu_streams,
    workers_by_kind,
)

Task = TypeVar("Task")
_Placed = tuple[BlockTask, WorkerKind]

_CONNECT_TIMEOUT_S = 15
_CLOSE_TIMEOUT_S = 5
_WITHOUT_PORT = ("inproc", "ucx")
"""The schemes of addresses whose form Dask cannot check beforehand."""


class DaskWorkers:
    """The workers of a Dask scheduler, each of which computes one block at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._address = str(client.scheduler_info(n_workers=0)["address"])
        self._opening: list[Future[Any]] = []
        self._builds: set[str] = set()

    def open_streams(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Open new streams in all workers at once, so that all load their models, and return the layouts.

        Raises:
            EmofuseError: a stream cannot be opened.
            BuildError: opening the streams ends the workers.
        """
        self._builds.add(job.build)
        on_gpu = gpu_streams(job, names)
        layouts: dict[str, StreamLayout] = {}
        for kind, workers in self._kinds(wants_gpu=bool(on_gpu)).items():
            wanted = [name for name in names if kind is WorkerKind.ANY or (name in on_gpu) == (kind is WorkerKind.GPU)]
            if wanted:
                layouts |= {layout.name: layout for layout in self._open_on(job, wanted, kind, workers)}
        return [layouts[name] for name in names]

    def _open_on(
        self, job: BuildJob, names: Sequence[str], kind: WorkerKind, workers: Sequence[str]
    ) -> list[StreamLayout]:
        # Each task is meant for one worker but not tied to it: a tied task waits for ever when its worker ends.
        opening = [self._submit(_describe, job, names, kind, workers) for _ in workers]
        self._opening += opening
        first = next(as_completed(opening, loop=self._client.loop))
        try:
            layouts: list[StreamLayout] = first.result()
        except KilledWorker as error:
            raise BuildError(
                f"workers died {error.allowed_failures + 1} times while they opened {', '.join(names)} (out of memory, "
                "or a native crash). Try fewer with --workers, or --workers 0 to see the crash."
            ) from None
        return layouts

    def compute(self, job: BuildJob, tasks: Iterator[BlockTask]) -> Iterator[BlockDone | BlockFailed]:
        """Yield the results of all tasks as they end. No more tasks than workers run at a time.

        The scheduler's graph and its memory therefore do not grow with the dataset, and a worker that dies has had one
        block only, which is the cause.

        Raises:
            BuildError: the scheduler is gone.
        """
        self._builds.add(job.build)
        try:
            yield from self._compute(job, tasks)
        except (OSError, CancelledError) as error:  # Dask's own errors are among them
            raise BuildError(
                f"{self._address}: the Dask scheduler is gone ({type(error).__name__}). "
                "Finished blocks are kept: start it again, and run the same build again."
            ) from None

    def _compute(self, job: BuildJob, tasks: Iterator[BlockTask]) -> Iterator[BlockDone | BlockFailed]:
        queues, parts = TaskQueues(job, tasks), PartialResults()
        wants_gpu = bool(gpu_streams(job, [spec.name for spec in job.spec.streams]))

        def submit(running: Collection[_Placed]) -> Iterator[tuple[Any, _Placed]]:
            for kind, workers in self._kinds(wants_gpu=wants_gpu).items():
                busy = len(running) if kind is WorkerKind.ANY else sum(each is kind for _, each in running)
                for _ in range(len(workers) - busy):
                    task = queues.take(kind)
                    if task is None:
                        break
                    yield self._submit(_compute, job, task, kind, workers), (task, kind)

        for future, (task, _) in run_tasks(self._client, submit):
            result = parts.add(task, _result(future, task))
            if result is not None:
                yield result
        yield from parts.left()

    def _submit(
        self, work: Callable[..., Any], job: BuildJob, what: Any, kind: WorkerKind, workers: Sequence[str]
    ) -> Any:
        """Submit a task for the workers of a kind. Workers without a GPU are only preferred: they may leave."""
        where: dict[str, Any] = {}
        if kind is WorkerKind.GPU:
            where = {"resources": {RESOURCE: 1}}
        elif kind is WorkerKind.CPU:
            where = {"workers": list(workers), "allow_other_workers": True}
        return self._client.submit(work, job, what, pure=False, **where)

    def _kinds(self, *, wants_gpu: bool) -> dict[WorkerKind, list[str]]:
        """Return the workers of each kind now, at least one: a cluster may grow or shrink."""
        kinds = workers_by_kind(self._client.scheduler_info()["workers"], wants_gpu)
        return kinds if any(kinds.values()) else {WorkerKind.ANY: [""]}

    def close(self) -> None:
        """End the extraction processes at once; blocks that they are computing are lost."""
        for build in self._builds:
            close_extractions(build)
            with suppress(OSError, TimeoutError, ValueError):  # a cluster that has ended has ended them too
                self._client.run(close_extractions, build, on_error="ignore")


def run_tasks(
    client: Client, submit: Callable[[Collection[Task]], Iterable[tuple[Future[Any], Task]]]
) -> Iterator[tuple[Future[Any], Task]]:
    """Yield every future with its task as soon as it has ended.

    Args:
        client: the client of a scheduler.
        submit: submits as many tasks as there are free workers, now that these tasks are running, and yields each with
            its future. It is called again whenever a task has ended; the work is done when nothing runs and it submits
            nothing.
    """
    running: dict[Future[Any], Task] = {}
    finished = as_completed(loop=client.loop)
    while True:
        for future, task in list(submit(list(running.values()))):
            running[future] = task
            finished.add(future)
        if not running:
            return
        future = next(finished)
        yield future, running.pop(future)


@contextmanager
def remote_workers(scheduler: str) -> Iterator[DaskWorkers]:
    """Connect to the workers of a running scheduler, which must see the same files as this process.

    Raises:
        BuildError: the scheduler does not answer, or has no worker.
    """
    with remote_client(scheduler) as client, closing(DaskWorkers(client)) as workers:
        yield workers


@contextmanager
def remote_client(scheduler: str) -> Iterator[Client]:
    """Connect to a running scheduler that has at least one worker.

    Raises:
        BuildError: the scheduler does not answer, or has no worker.
    """
    with _connect(scheduler) as client:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise BuildError(
                f"{scheduler}: the scheduler has no workers. Start one a core with: "
                f"dask worker {scheduler} --nthreads 1 --nworkers N"
            ) from None
        yield client


@contextmanager
def _connect(address: str) -> Iterator[Client]:
    """Connect a client that is not the default client of the user and does not wait long when it is closed."""
    _check_address(address)
    try:
        client = Client(address, set_as_default=False, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, ValueError, TypeError) as error:
        remedy = "Start one with: dask scheduler"
        if address.startswith("tls:"):
            remedy = (
                "Certificates are set in Dask's configuration: distributed.comm.tls.ca-file, .client.key, .client.cert"
            )
        raise BuildError(f"{address}: no Dask scheduler answers ({error}). {remedy}") from None
    try:
        yield client
    finally:
        with suppress(TimeoutError):
            client.close(timeout=_CLOSE_TIMEOUT_S)


def _check_address(address: str) -> None:
    """Refuse what is no address. Dask's client would fail too, but after half a minute and with a traceback."""
    if parse_address(address)[0] in _WITHOUT_PORT:
        return
    try:
        get_address_host_port(address)
    except ValueError as error:
        raise BuildError(
            f"{address!r} is no address of a Dask scheduler ({error}). It looks like tcp://HOST:8786; "
            "`dask scheduler` prints it"
        ) from None


def _result(future: Future[Any], task: BlockTask) -> BlockDone | BlockFailed:
    try:
        result = future.result()
    except KilledWorker as error:
        deaths = error.allowed_failures + 1
        return BlockFailed(str(task), f"its Dask worker died {deaths} times")
    except CancelledError:  # the scheduler has ended
        raise
    except Exception as error:  # noqa: BLE001 - Dask raises anything if a task cannot be sent or unpacked, or is lost
        return BlockFailed(str(task), f"{type(error).__name__}: {error}")
    if not isinstance(result, BlockDone | BlockFailed):
        raise BuildError(f"{task}: a worker of another emofuse answered with {type(result).__name__}")
    return result


# There is one extraction process for each worker and build: several workers may be threads of one process.
_extractions: dict[tuple[str, str], IsolatedExtraction] = {}
_closed_builds: set[str] = set()
_extractions_lock = threading.Lock()


def _describe(job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
    return _extraction(job).describe(job, names)


def _compute(job: BuildJob, task: BlockTask) -> BlockDone | BlockFailed:
    return _extraction(job).compute(job, task)


def _extraction(job: BuildJob) -> IsolatedExtraction:
    with _extractions_lock:
        if job.build in _closed_builds:
            raise BuildError("the build was stopped")
        return _extractions.setdefault((get_worker().address, job.build), IsolatedExtraction())


def close_extractions(build: str) -> None:
    """End the extraction processes of a build in this process. None is started for it again."""
    with _extractions_lock:
        _closed_builds.add(build)
        for key in [key for key in _extractions if key[1] == build]:
            _extractions.pop(key).close()
