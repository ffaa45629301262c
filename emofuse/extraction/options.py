"""Where and how fast a build runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BuildOptions:
    """Where and how fast a build runs: no part of any digest.

    Attributes:
        scheduler: address of a running Dask scheduler, `tcp://...`; None starts local workers.
        workers: local worker processes; None is one a core as far as memory allows, 0 works in this process (for
            debugging).
        device: where backbones run: `cpu`, `cuda`, `cuda:N`, or `auto`.
        block_timeout_s: that a block may take before its pictures are tried one by one, and those that hang are
            FAILED; None is one minute and four seconds a picture.
        memory_bytes: that an extraction process may take before it is ended and its pictures are tried one by one;
            None leaves it to the machine, which ends such a process before any other.
        keep_gone: rows of a cache whose samples are no longer in the dataset are kept, in no split, and are no error.
    """

    scheduler: str | None = None
    workers: int | None = None
    device: str = "auto"
    block_timeout_s: float | None = None
    memory_bytes: int | None = None
    keep_gone: bool = False

    @property
    def in_this_process(self) -> bool:
        """Whether it runs without workers."""
        return self.scheduler is None and self.workers == 0
