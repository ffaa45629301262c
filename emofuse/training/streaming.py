"""Where rows of features come from: tensors on the device, or blocks that pass through it in windows.

Features that fit nowhere whole are read block by block. An epoch walks through *windows* of blocks; two of them lie on
the device, the one in use and the one that batches are just passing on to, while a thread reads the next. So a streamed
epoch holds three windows in memory whatever the number of rows. Its order of rows is shuffled window by window (see
`emofuse.training.batches.Order`), and the same order trains the same heads from tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.errors import TrainingError

WINDOWS_HELD = 3
"""Two on the device and one being read."""


@dataclass(frozen=True)
class Window:
    """How far rows are shuffled: `blocks` blocks of `block_rows` consecutive rows at a time."""

    block_rows: int
    blocks: int


@dataclass(frozen=True)
class Blocks:
    """Features that are read block by block.

    Attributes:
        read: (stream, block) -> (rows of the block, D) floating point; called from another thread.
        block_rows: rows of every block but the last.
        dims: stream -> D.
    """

    read: Callable[[str, int], npt.NDArray[Any]]
    block_rows: int
    dims: Mapping[str, int]

    def window(self, streams: Sequence[str], memory_bytes: int, dtype: torch.dtype) -> Window:
        """The widest window of these streams for which a streamed epoch stays within the memory.

        Raises:
            TrainingError: not even one block at a time does.
        """
        width = sum(self.dims[name] for name in streams)
        return widest_window(self.block_rows, width, memory_bytes, dtype.itemsize)


def widest_window(block_rows: int, width: int, memory_bytes: int, item_bytes: int) -> Window:
    """The widest window for which a streamed epoch stays within the memory.

    Args:
        block_rows: rows of a block.
        width: values a row.
        memory_bytes: for the windows that are held.
        item_bytes: of a value.

    Raises:
        TrainingError: not even one block at a time does.
    """
    block_bytes = block_rows * width * item_bytes
    blocks = memory_bytes // (WINDOWS_HELD * block_bytes)
    if blocks < 1:
        raise TrainingError(
            f"{memory_bytes / 1e9:.3g} GB hold no window of features: {WINDOWS_HELD} blocks of {block_rows} "
            f"rows take {WINDOWS_HELD * block_bytes / 1e9:.3g} GB. Give more memory, or train fewer streams at once"
        )
    return Window(block_rows, blocks)


class Source(Protocol):
    """Rows of features on a device."""

    def follow(self, windows: Sequence[Sequence[int]]) -> None:
        """Says which blocks will be needed, window after window; there is no way back."""
        ...

    def reach(self, window: int) -> None:
        """Makes sure that the window with this number, and the one before it, can be read."""
        ...

    def take(self, stream: str, rows: Tensor) -> Tensor:
        """(n, D) of rows (n,) int64 of the whole table, in memory of its own."""
        ...

    def close(self) -> None:
        """Gives back what it holds besides memory."""
        ...


class Resident:
    """The whole table on the device."""

    def __init__(self, features: Mapping[str, Tensor], streams: Sequence[str], device: torch.device) -> None:
        self._features = {name: features[name].to(device) for name in streams}

    def follow(self, windows: Sequence[Sequence[int]]) -> None:
        """All rows are there."""

    def reach(self, window: int) -> None:
        """All rows are there."""

    def take(self, stream: str, rows: Tensor) -> Tensor:
        """(n, D) of rows (n,)."""
        return self._features[stream].index_select(0, rows)

    def close(self) -> None:
        """Holds nothing but memory."""


class Streamed:
    """Two windows of blocks on the device, and a thread that reads the next.

    Args:
        blocks: what is read.
        window: how many at a time.
        streams: that are read.
        count: N rows of the table.
        device: where the windows lie.
        dtype: in which they lie there.
    """

    def __init__(
        self,
        blocks: Blocks,
        window: Window,
        streams: Sequence[str],
        *,
        count: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._blocks = blocks
        self._streams = tuple(streams)
        self._half = window.blocks * blocks.block_rows
        self._held = {
            name: torch.zeros(2 * self._half, blocks.dims[name], dtype=dtype, device=device) for name in streams
        }
        total = -(-count // blocks.block_rows)
        self._first = torch.zeros(total, dtype=torch.int64, device=device)  # block -> where its first row lies
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feature-blocks")
        self._windows: Sequence[Sequence[int]] = ()
        self._reached = -1
        self._next: Future[dict[str, list[npt.NDArray[Any]]]] | None = None

    def follow(self, windows: Sequence[Sequence[int]]) -> None:
        """Begins to read the first window."""
        if self._next is not None:
            self._next.cancel()
        self._windows, self._reached = windows, -1
        self._next = self._reader.submit(self._read, windows[0]) if windows else None

    def reach(self, window: int) -> None:
        """Waits for windows up to this one, and begins to read the one after it."""
        while self._reached < window:
            if self._next is None:
                raise RuntimeError(f"window {window} of {len(self._windows)} was not announced")
            read = self._next.result()
            self._reached += 1
            self._place(self._windows[self._reached], read)
            after = self._reached + 1
            self._next = self._reader.submit(self._read, self._windows[after]) if after < len(self._windows) else None

    def take(self, stream: str, rows: Tensor) -> Tensor:
        """(n, D) of rows (n,) of the windows that can be read."""
        within = rows % self._blocks.block_rows
        return self._held[stream].index_select(0, self._first[rows // self._blocks.block_rows] + within)

    def close(self) -> None:
        """Ends the thread."""
        self._reader.shutdown(cancel_futures=True)

    def _read(self, window: Sequence[int]) -> dict[str, list[npt.NDArray[Any]]]:
        return {name: [self._blocks.read(name, block) for block in window] for name in self._streams}

    def _place(self, window: Sequence[int], read: Mapping[str, Sequence[npt.NDArray[Any]]]) -> None:
        start = (self._reached % 2) * self._half
        firsts = [start + index * self._blocks.block_rows for index in range(len(window))]
        for name, blocks in read.items():
            for first, rows in zip(firsts, blocks, strict=True):
                self._held[name][first : first + len(rows)].copy_(torch.from_numpy(rows))
        self._first[torch.tensor(window)] = torch.tensor(firsts, device=self._first.device)
