"""The options of a build."""

from __future__ import annotations

from dataclasses import dataclass

from emofuse.streams.runtimes import Runtime


@dataclass(frozen=True)
class BuildOptions:
    """The options that decide where and how fast a build runs. They are no part of any digest.

    Attributes:
        scheduler: the address of a running Dask scheduler, `tcp://...`; None starts local workers.
        workers: the number of local worker processes. None means one for each core, as far as memory allows; 0 means
            that this process does the work, for debugging.
        device: the device of the networks: `cpu`, `cuda`, `cuda:N`, or `auto`.
        block_timeout_s: the time that a block may take. After it, its images are tried one by one, and those that hang
            are FAILED. None means one minute and four seconds for each image.
        memory_bytes: the memory that an extraction process may take. Above it, the process is ended and its images are
            tried one by one. None leaves the limit to the machine, which ends such a process before others.
        runtime: the runtime of the networks: `torch`, `openvino`, or `auto`, which is OpenVINO on a CPU where it is
            installed (see `emofuse.streams.runtimes`).
        keep_gone: whether rows whose samples are no longer in the dataset are kept, in no split, and are no error.
    """

    scheduler: str | None = None
    workers: int | None = None
    device: str = "auto"
    block_timeout_s: float | None = None
    memory_bytes: int | None = None
    keep_gone: bool = False
    runtime: Runtime = "auto"

    @property
    def in_this_process(self) -> bool:
        """Whether the build runs without workers."""
        return self.scheduler is None and self.workers == 0
