"""Sources of features: tensors on the device, or blocks that pass through it in windows.

Features that do not fit the memory are read block by block. An epoch goes through *windows* of blocks. Two of them lie
on the device, since a batch may have rows of both, while a thread reads the next. So a streamed epoch holds three
windows in memory for any number of rows. Rows are shuffled window by window (see `emofuse.training.batches.Order`), and
the same order trains the same heads from tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.errors import TrainingError
from emofuse.heads.stems import Shape, shape_of

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
        read: (stream, block) -> (rows of the block, *shape) floating point; called from another thread.
        block_rows: the rows of every block except the last, which may have fewer.
        dims: stream -> the shape of a row, D for a vector.
    """

    read: Callable[[str, int], npt.NDArray[Any]]
    block_rows: int
    dims: Mapping[str, Shape]

    def window(self, streams: Sequence[str], memory_bytes: int, dtype: torch.dtype) -> Window:
        """Return the widest window of these streams with which a streamed epoch stays within the memory.

        Raises:
            TrainingError: the memory is too small for windows of one block.
        """
        width = sum(math.prod(shape_of(self.dims[name])) for name in streams)
        return widest_window(self.block_rows, width, memory_bytes, dtype.itemsize)


def widest_window(block_rows: int, width: int, memory_bytes: int, item_bytes: int, reading_bytes: int = 0) -> Window:
    """Return the widest window with which a streamed epoch stays within the memory.

    Args:
        block_rows: the rows of a block.
        width: the values of a row.
        memory_bytes: the memory for the windows that are held and for the block that is being read.
        item_bytes: the bytes of a value.
        reading_bytes: the bytes that a block takes while it is read, before it lies in its window.

    Raises:
        TrainingError: the memory is too small for windows of one block.
    """
    block_bytes = block_rows * width * item_bytes
    blocks = (memory_bytes - reading_bytes) // (WINDOWS_HELD * block_bytes)
    if blocks < 1:
        raise TrainingError(
            f"{memory_bytes / 1e9:.3g} GB hold no window of features: {WINDOWS_HELD} blocks of {block_rows} rows take "
            f"{(WINDOWS_HELD * block_bytes + reading_bytes) / 1e9:.3g} GB. Give more memory, or train fewer streams at "
            "once"
        )
    return Window(block_rows, blocks)


class Source(Protocol):
    """A source of rows of features on a device.

    Attributes:
        joined: the vectors that `take_joined` returns side by side.
    """

    joined: tuple[str, ...]

    def follow(self, windows: Sequence[Sequence[int]]) -> None:
        """Announce the blocks that will be needed, window after window, in this order."""
        ...

    def reach(self, window: int) -> None:
        """Wait until the window with this number, and the one before it, can be read."""
        ...

    def take(self, stream: str, rows: Tensor) -> Tensor:
        """Return a copy of rows (n,) int64 of the whole table, (n, *shape)."""
        ...

    def take_joined(self, rows: Tensor) -> Tensor:
        """Return a copy of rows (n,) of the joined streams, (n, all D)."""
        ...

    def close(self) -> None:
        """Release threads."""
        ...


class Resident:
    """The whole table on the device.

    A GPU, to which every stream is copied anyway, holds joined streams as one tensor and gathers rows by one operation.
    A CPU reads them from where they are: the tables are shared with other groups and would be in memory twice. There
    one gather for all streams takes 36 us less a batch of 64 rows, of the 250 us that reading takes.
    """

    def __init__(
        self, features: Mapping[str, Tensor], streams: Sequence[str], device: torch.device, joined: Sequence[str] = ()
    ) -> None:
        self.joined = tuple(joined)
        self._joined = [features[name] for name in joined]
        """The joined streams: all of them as one tensor on a GPU, each as it is on a CPU."""
        self._features = {name: features[name].to(device) for name in streams if name not in self.joined}
        if device.type != "cpu" and self._joined:
            self._joined = [_join(self._joined, device)]
            parts = torch.split(self._joined[0], [features[name].shape[1] for name in joined], dim=1)
            self._features |= dict(zip(joined, parts, strict=True))
        else:
            self._features |= dict(zip(joined, self._joined, strict=True))

    def follow(self, windows: Sequence[Sequence[int]]) -> None:
        """Do nothing: all rows are there."""

    def reach(self, window: int) -> None:
        """Do nothing: all rows are there."""

    def take(self, stream: str, rows: Tensor) -> Tensor:
        """Return a copy of rows (n,), (n, *shape)."""
        return self._features[stream].index_select(0, rows)

    def take_joined(self, rows: Tensor) -> Tensor:
        """Return a copy of rows (n,) of the joined streams, (n, all D)."""
        return _side_by_side(self._joined, rows)

    def close(self) -> None:
        """Do nothing: there is no thread."""


class Streamed:
    """Two windows of blocks on the device, and a thread that reads the next beside them.

    The next window lies in page-locked memory where the device is a GPU, so that it is copied while steps go on.

    Args:
        blocks: the features.
        window: the number of blocks at a time.
        streams: the streams that are read.
        count: the N rows of the table.
        device: the device of the windows.
        dtype: the type of the features there.
        joined: the streams whose windows lie side by side.
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
        joined: Sequence[str] = (),
    ) -> None:
        self.joined = tuple(joined)
        self._blocks = blocks
        self._streams = tuple(streams)
        self._half = window.blocks * blocks.block_rows
        on_gpu = device.type == "cuda"
        self._held = {
            name: torch.zeros(2 * self._half, *shape_of(blocks.dims[name]), dtype=dtype, device=device)
            for name in streams
            if name not in self.joined
        }
        widths = [shape_of(blocks.dims[name])[0] for name in joined]
        self._joined = torch.zeros(2 * self._half, sum(widths), dtype=dtype, device=device)
        self._held |= dict(zip(joined, torch.split(self._joined, widths, dim=1), strict=True)) if widths else {}
        self._staged = {
            name: torch.zeros(self._half, *shape_of(blocks.dims[name]), dtype=dtype, pin_memory=on_gpu)
            for name in streams
        }
        self._copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        total = -(-count // blocks.block_rows)
        self._first = torch.zeros(total, dtype=torch.int64, device=device)  # block -> where its first row lies
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feature-blocks")
        self._windows: Sequence[Sequence[int]] = ()
        self._last_reached = -1
        self._next: Future[None] | None = None

    def follow(self, windows: Sequence[Sequence[int]]) -> None:
        """Begin to read the first window."""
        if self._next is not None:
            self._next.cancel()
        self._windows, self._last_reached = windows, -1
        self._next = self._reader.submit(self._stage, windows[0]) if windows else None

    def reach(self, window: int) -> None:
        """Wait for windows up to this one, and begin to read the one after it."""
        while self._last_reached < window:
            if self._next is None:
                raise RuntimeError(f"window {window} of {len(self._windows)} was not announced")
            self._next.result()
            self._last_reached += 1
            self._place(self._windows[self._last_reached])
            after = self._last_reached + 1
            self._next = self._reader.submit(self._stage, self._windows[after]) if after < len(self._windows) else None

    def take(self, stream: str, rows: Tensor) -> Tensor:
        """Return a copy of rows (n,) of the windows that can be read, (n, *shape)."""
        return self._held[stream].index_select(0, self._places(rows))

    def take_joined(self, rows: Tensor) -> Tensor:
        """Return a copy of rows (n,) of the joined streams, (n, all D)."""
        return self._joined.index_select(0, self._places(rows))

    def _places(self, rows: Tensor) -> Tensor:
        return self._first[rows // self._blocks.block_rows] + rows % self._blocks.block_rows

    def close(self) -> None:
        """End the thread."""
        self._reader.shutdown(cancel_futures=True)

    def _stage(self, window: Sequence[int]) -> None:
        """Read a window, block after block, into the staging memory. Runs in the thread."""
        if self._copied is not None:
            self._copied.synchronize()  # the window that lay there before is on the device
        for name in self._streams:
            for index, block in enumerate(window):
                rows = torch.from_numpy(self._blocks.read(name, block))
                first = index * self._blocks.block_rows
                self._staged[name][first : first + len(rows)].copy_(rows)

    def _place(self, window: Sequence[int]) -> None:
        """Copy the window that was read over the older of the two on the device."""
        start = (self._last_reached % 2) * self._half
        count = len(window) * self._blocks.block_rows
        for name, staged in self._staged.items():
            self._held[name][start : start + count].copy_(staged[:count], non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        firsts = [start + index * self._blocks.block_rows for index in range(len(window))]
        self._first[torch.tensor(window)] = torch.tensor(firsts, device=self._first.device)


def _join(tables: Sequence[Tensor], device: torch.device) -> Tensor:
    """Copy tables (N, D) to a device, side by side (N, all D), one after another."""
    widths = [table.shape[1] for table in tables]
    kind = reduce(torch.promote_types, [table.dtype for table in tables])
    joined = torch.empty(len(tables[0]), sum(widths), dtype=kind, device=device)
    for columns, table in zip(torch.split(joined, widths, dim=1), tables, strict=True):
        columns.copy_(table)
    return joined


def _side_by_side(tables: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Return a copy of rows (n,) of tables (N, D), side by side, (n, all D)."""
    if len(tables) == 1:
        return tables[0].index_select(0, rows)
    if len({table.dtype for table in tables}) > 1:
        return torch.cat([table.index_select(0, rows) for table in tables], dim=1)
    widths = [table.shape[1] for table in tables]
    joined = tables[0].new_empty(len(rows), sum(widths))
    for columns, table in zip(torch.split(joined, widths, dim=1), tables, strict=True):
        torch.index_select(table, 0, rows, out=columns)
    return joined
