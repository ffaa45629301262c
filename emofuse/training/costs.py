"""What a head asks for: weights, memory, arithmetic, operations. Counted on heads without memory, not guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from emofuse.heads import make_empty_head
from emofuse.heads.layers import Projection
from emofuse.heads.members import HeadBatch, HeadMember
from emofuse.heads.stems import Shape, shape_of
from emofuse.specs import HeadSpec
from emofuse.training.machine import Machine

COPIES = 5
"""Of every weight: itself, its gradient, two moments, the best one so far."""


@dataclass(frozen=True)
class TrainingCost:
    """What one head asks for.

    Attributes:
        parameters: trainable.
        weight_bytes: of weights, gradients, moments, and the best weights.
        row_bytes: what a forward pass keeps of one row.
        flops_per_row: of a step, matrix products only.
        eval_flops_per_row: of a forward pass.
    """

    parameters: int
    weight_bytes: int
    row_bytes: int
    flops_per_row: int
    eval_flops_per_row: int


@lru_cache(maxsize=4096)
def head_cost(
    spec: HeadSpec, dims: tuple[tuple[str, Shape], ...], classes: int, batch_size: int, machine: Machine
) -> TrainingCost:
    """The cost of one head, counted on the `meta` device, where tensors have shapes and no memory.

    Every matrix product of the forward pass has two more in the backward pass, but the first layers have one: nobody
    asks for the gradient of the features.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_memory_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    head, batch = _empty(spec, dims, classes, batch_size, folds=1)
    with saved_tensors_hooks(keep, lambda tensor: tensor), FlopCounterMode(display=False) as counter:
        head(batch)
    for tensor in (*head.parameters(), *batch.features.values()):  # counted for themselves, and with the batches
        kept.pop(_memory_of(tensor), None)
    parameters = sum(tensor.numel() for tensor in head.parameters())
    scale = machine.dtype.itemsize / torch.float32.itemsize
    weights = parameters * (COPIES * machine.dtype.itemsize + (machine.products.itemsize if machine.products else 0))
    first = sum(2 * layer.weight.numel() for layer in head.modules() if isinstance(layer, Projection))
    forward = counter.get_total_flops() // batch_size
    return TrainingCost(parameters, weights, int(scale * sum(kept.values()) / batch_size), 3 * forward - first, forward)


@dataclass(frozen=True)
class Operations:
    """Operations of a group, of whatever number of heads: each costs its start, however small its tensors.

    Attributes:
        forward: of a forward pass, with the reading of the batch.
        update: of the optimizer in a step, for each setting that it has.
    """

    forward: int
    update: int

    @property
    def derived(self) -> int:
        """Of a forward pass and the backward pass that follows, which has twice as many."""
        return 3 * self.forward


@lru_cache(maxsize=4096)
def group_operations(spec: HeadSpec, streams: int, folds: int) -> Operations:
    """Operations of a group on so many streams and folds; widths and labels make no difference."""
    head, batch = _empty(spec, tuple((f"stream{index}", 2) for index in range(streams)), classes=2, rows=4, folds=folds)
    counter = _Counter()
    with counter:
        head(batch)
    reading = 8 * streams
    return Operations(counter.count + reading, sum(1 for _ in head.parameters()))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts operations as they reach the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        self.count += 1
        return func(*args, **(kwargs or {}))


def _empty(
    spec: HeadSpec, dims: tuple[tuple[str, Shape], ...], classes: int, rows: int, folds: int
) -> tuple[nn.Module, HeadBatch]:
    """A head of one member a fold on the `meta` device, and a batch for it."""
    with torch.device("meta"):
        streams = tuple(stream for stream, _ in dims)
        head = make_empty_head(spec, [HeadMember(streams, fold=fold) for fold in range(folds)], dict(dims), classes)
        features = {stream: torch.empty(folds, rows, *shape_of(shape)) for stream, shape in dims}
        valid = {stream: torch.ones(folds, rows, dtype=torch.bool) for stream in streams}
        steps = {
            stream: torch.ones(folds, rows, shape_of(shape)[0], dtype=torch.bool)
            for stream, shape in dims
            if len(shape_of(shape)) in {2, 4}
        }
    return head, HeadBatch(features, valid, steps)


def _memory_of(tensor: Tensor) -> int:
    """The same number for tensors that share their memory; addresses are all zero on `meta`."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  torch has no public name for it
