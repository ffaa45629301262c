"""What will train together, before anything does: groups by shape, waves by memory, and about how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from emofuse.errors import TrainingError
from emofuse.heads import make_empty_head
from emofuse.heads.lanes import Batch, Lane
from emofuse.heads.layers import Projection
from emofuse.specs import HeadSpec
from emofuse.training.machine import Machine
from emofuse.training.members import Member, group_key
from emofuse.training.validation import eval_rows

COPIES = 5
"""Of every weight: itself, its gradient, two moments, the best one so far."""
UPDATE_BYTES = 28
"""An update of a float32 weight reads it, its gradient and moments, and writes all but the gradient."""


@dataclass(frozen=True)
class Cost:
    """What one member asks for. Counted on a head without memory, not guessed.

    Attributes:
        parameters: trainable.
        weight_bytes: of weights, gradients, moments, and the best weights.
        row_bytes: what a forward pass keeps of one row.
        flops_per_row: of a step, matrix products only.
    """

    parameters: int
    weight_bytes: int
    row_bytes: int
    flops_per_row: int


@dataclass(frozen=True)
class Wave:
    """Members that train at the same time.

    Attributes:
        members: their indices.
        parameters: of all together.
        memory_bytes: of all together, with their batches, without the table.
        seconds: estimated; every member trains all its epochs.
    """

    members: tuple[int, ...]
    parameters: int
    memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Groups of members that share their shapes, each in one or more waves, one wave after another."""

    groups: Mapping[str, tuple[Wave, ...]]
    table_bytes: int
    memory_bytes: int

    @property
    def waves(self) -> tuple[Wave, ...]:
        """All of them, in order."""
        return tuple(wave for waves in self.groups.values() for wave in waves)

    def __str__(self) -> str:
        waves = self.waves
        heads = sum(len(wave.members) for wave in waves)
        lines = [f"{'group':<52} {'heads':>6} {'waves':>6} {'parameters':>12} {'most memory':>12} {'about':>9}"]
        for title, own in self.groups.items():
            count, parameters = sum(len(wave.members) for wave in own), sum(wave.parameters for wave in own)
            memory = max(wave.memory_bytes for wave in own)
            seconds = sum(wave.seconds for wave in own)
            lines.append(
                f"{title:<52} {count:>6} {len(own):>6} {parameters / 1e6:>10.1f} M {memory / 1e9:>9.2f} GB "
                f"{_duration(seconds):>9}"
            )
        lines.append(
            f"{heads} heads in {len(self.groups)} groups and {len(waves)} waves, about "
            f"{_duration(sum(wave.seconds for wave in waves))}; features take {self.table_bytes / 1e9:.2f} GB of "
            f"{self.memory_bytes / 1e9:.2f} GB"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class Rates:
    """What a machine does, for estimates.

    Attributes:
        flops_per_s: matrix products.
        bytes_per_s: reading and writing memory.
    """

    flops_per_s: float
    bytes_per_s: float


def plan_training(
    members: Sequence[Member],
    dims: Mapping[str, int],
    classes: int,
    *,
    train_rows: int,
    table_bytes: int,
    memory_bytes: int,
    machine: Machine,
    rates: Rates,
) -> Plan:
    """Groups members by `group_key` and splits each group into waves that fit the memory. Trains and allocates nothing.

    Members stay in their order, so that those that belong together (the folds of one configuration) end together.

    Args:
        members: all of them.
        dims: stream -> D.
        classes: C.
        train_rows: rows of an epoch.
        table_bytes: of the features, in memory all the time.
        memory_bytes: that may be used in all.
        machine: where it will train.
        rates: of that machine.

    Raises:
        TrainingError: a member that does not fit alone.
    """
    grouped: dict[str, list[int]] = {}
    for index, member in enumerate(members):
        grouped.setdefault(group_key(member), []).append(index)
    groups: dict[str, tuple[Wave, ...]] = {}
    for indices in grouped.values():
        waves = [_OpenWave(dims, machine)]
        for index in indices:
            member = members[index]
            used = tuple((stream, dims[stream]) for stream in member.streams)
            cost = head_cost(member.head, used, classes, member.train.batch_size, machine)
            if waves[-1].members and waves[-1].memory_with(member, cost) > memory_bytes - table_bytes:
                waves.append(_OpenWave(dims, machine))
            if (alone := waves[-1].memory_with(member, cost)) > memory_bytes - table_bytes:
                raise TrainingError(
                    f"member {index} ({member.head.kind}, {', '.join(member.streams)}) needs {alone / 1e9:.3g} GB, "
                    f"the features {table_bytes / 1e9:.3g} GB, and there are {memory_bytes / 1e9:.3g} GB. Give more "
                    "memory, or take a smaller head or batch"
                )
            waves[-1].add(index, member, cost, _seconds_of(member, cost, train_rows, rates))
        groups[_title(members[indices[0]], len(groups))] = tuple(wave.closed() for wave in waves)
    return Plan(groups, table_bytes, memory_bytes)


class _OpenWave:
    """A wave that takes members as long as there is memory."""

    def __init__(self, dims: Mapping[str, int], machine: Machine) -> None:
        self.members: list[int] = []
        self._dims = dims
        self._machine = machine
        self._folds: set[int] = set()
        self._streams: set[str] = set()
        self._weight_bytes = self._row_bytes = self._most_row_bytes = self._parameters = self._memory = 0
        self._seconds = 0.0

    def memory_with(self, member: Member, cost: Cost) -> int:
        """Bytes of the wave with another member.

        Weights; the batch of each fold as read, standardised and cast; and what is larger of what a step keeps for its
        backward pass, with as much again for the gradients of it, and what a part of the validation rows takes.
        """
        rows = member.train.batch_size
        width = sum(self._dims[stream] for stream in self._streams | set(member.streams))
        batches = 3 * len(self._folds | {member.fold}) * rows * width * self._machine.dtype.itemsize
        step = 2 * rows * (self._row_bytes + cost.row_bytes)
        part = eval_rows(len(self.members) + 1) * (len(self.members) + 1) * max(self._most_row_bytes, cost.row_bytes)
        return self._weight_bytes + cost.weight_bytes + batches + max(step, part)

    def add(self, index: int, member: Member, cost: Cost, seconds: float) -> None:
        """Takes a member in."""
        self._memory = self.memory_with(member, cost)
        self.members.append(index)
        self._folds.add(member.fold)
        self._streams.update(member.streams)
        self._weight_bytes += cost.weight_bytes
        self._row_bytes += cost.row_bytes
        self._most_row_bytes = max(self._most_row_bytes, cost.row_bytes)
        self._parameters += cost.parameters
        self._seconds += seconds

    def closed(self) -> Wave:
        return Wave(tuple(self.members), self._parameters, self._memory, self._seconds)


def _seconds_of(member: Member, cost: Cost, train_rows: int, rates: Rates) -> float:
    steps = -(-train_rows // member.train.batch_size)
    products = train_rows * cost.flops_per_row / rates.flops_per_s
    updates = steps * cost.parameters * UPDATE_BYTES / rates.bytes_per_s
    return member.train.epochs * (products + updates)


@lru_cache(maxsize=4096)
def head_cost(
    spec: HeadSpec, dims: tuple[tuple[str, int], ...], classes: int, batch_size: int, machine: Machine
) -> Cost:
    """The cost of one head, counted on the `meta` device, where tensors have shapes and no memory.

    Every matrix product of the forward pass has two more in the backward pass, but the first layers have one: nobody
    asks for the gradient of the features.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_memory_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.device("meta"):
        head = make_empty_head(spec, [Lane(tuple(stream for stream, _ in dims))], dict(dims), classes)
        features = {stream: torch.empty(1, batch_size, dim) for stream, dim in dims}
        batch = Batch(features, {stream: torch.ones(1, batch_size, dtype=torch.bool) for stream, _ in dims})
        with saved_tensors_hooks(keep, lambda tensor: tensor), FlopCounterMode(display=False) as counter:
            head(batch)
    for tensor in (*head.parameters(), *features.values()):  # counted for themselves, and with the batches
        kept.pop(_memory_of(tensor), None)
    parameters = sum(tensor.numel() for tensor in head.parameters())
    scale = machine.dtype.itemsize / torch.float32.itemsize
    weights = parameters * (COPIES * machine.dtype.itemsize + (machine.products.itemsize if machine.products else 0))
    first = sum(2 * layer.weight.numel() for layer in head.modules() if isinstance(layer, Projection))
    flops_per_row = 3 * counter.get_total_flops() // batch_size - first
    return Cost(parameters, weights, int(scale * sum(kept.values()) / batch_size), flops_per_row)


def _memory_of(tensor: Tensor) -> int:
    """The same number for tensors that share their memory; addresses are all zero on `meta`."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  torch has no public name for it


def free_memory_bytes(device: torch.device) -> int:
    """Memory that can be asked for now: of the CUDA device, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def measure_rates(machine: Machine) -> Rates:
    """Times a matrix product and a pass through memory as steps have them, in about a tenth of a second."""
    kind = machine.products or machine.dtype
    left, right = (torch.ones(2048, 2048, dtype=kind, device=machine.device) for _ in range(2))
    read, written = (torch.ones(1 << 24, device=machine.device) for _ in range(2))
    product_s = _seconds(lambda: torch.mm(left, right), machine.device)
    copy_s = _seconds(lambda: written.copy_(read), machine.device)
    return Rates(2 * 2048**3 / product_s, 2 * read.nbytes / copy_s)


def _seconds(function: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """The shortest of some runs, without the first."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _title(member: Member, number: int) -> str:
    head = member.head.model_dump(exclude={"kind", "dropout"})
    sizes = "".join(f" {name} {value}" for name, value in head.items())
    return f"{number + 1}: {member.head.kind}{sizes}, batch {member.train.batch_size}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
