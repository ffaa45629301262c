"""The cost of heads: weights, memory, arithmetic, operations. Counted on heads without memory, not guessed.

Heads are built on torch's `meta` device, where tensors have shapes and no memory, and take one step there, forward and
backward. So stems are counted as they are: a recurrent stem takes T steps, and no gradient of features is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from emofuse.heads import make_empty_head
from emofuse.heads.members import HeadBatch, HeadMember
from emofuse.heads.stems import Shape, shape_of
from emofuse.specs import HeadSpec
from emofuse.training.machine import Machine
from emofuse.training.without_compiler import without_compiler

COPIES = 5
"""Of every weight: itself, its gradient, two moments, the best one so far."""


@dataclass(frozen=True)
class TrainingCost:
    """The cost of one head.

    Attributes:
        parameters: the number of trainable parameters.
        weight_bytes: the bytes of weights, gradients, moments and best weights.
        row_bytes: the bytes that a forward pass keeps of one row for the backward pass.
        flops_per_row: the floating-point operations of a training step, matrix products and convolutions only.
        eval_flops_per_row: those of a forward pass.
    """

    parameters: int
    weight_bytes: int
    row_bytes: int
    flops_per_row: int
    eval_flops_per_row: int


@lru_cache(maxsize=4096)
@without_compiler()
def head_cost(
    spec: HeadSpec, dims: tuple[tuple[str, Shape], ...], classes: int, batch_size: int, machine: Machine
) -> TrainingCost:
    """Count the cost of one head.

    Args:
        spec: the head.
        dims: (stream, shape of a row) of each stream that it sees.
        classes: C.
        batch_size: the rows of a step.
        machine: the precision.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_memory_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    head, batch = _empty(spec, dims, classes, batch_size, folds=1)
    with _FlopCounter() as forward, saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = head(batch)
    with _FlopCounter() as backward:
        torch.autograd.grad(logits.sum(), tuple(head.parameters()))
    for tensor in (*head.parameters(), *batch.features.values()):  # counted with the weights and with the batches
        kept.pop(_memory_of(tensor), None)
    parameters = sum(tensor.numel() for tensor in head.parameters())
    scale = machine.dtype.itemsize / torch.float32.itemsize
    products = machine.products.itemsize if machine.products else 0
    of_forward, of_backward = (counter.flops // batch_size for counter in (forward, backward))
    return TrainingCost(
        parameters=parameters,
        weight_bytes=parameters * (COPIES * machine.dtype.itemsize + products),
        row_bytes=int(scale * sum(kept.values()) / batch_size),
        flops_per_row=of_forward + of_backward,
        eval_flops_per_row=of_forward,
    )


@without_compiler()
def forward_flops(head: nn.Module, dims: Mapping[str, Shape]) -> int:
    """Count the operations of a single head with its weights, on the CPU, for one row with every stream and every step.

    The kernel that computes attention in one step is off meanwhile, because no formula knows it.
    """
    batch = _batch({name: shape_of(shape) for name, shape in dims.items()}, rows=1, folds=1)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _FlopCounter() as counter:
        head(batch)
    return int(counter.flops)


def without_dropout(spec: HeadSpec) -> HeadSpec:
    """Return the head without dropout, of equal cost: a search that draws it counts each structure once."""
    shares: dict[str, Any] = {}
    for name in ("dropout", "stem_dropout"):
        if name in type(spec).model_fields:
            shares[name] = 0.0
    return spec.model_copy(update=shares) if shares else spec


def step_bytes(costs: Sequence[TrainingCost], rows: int, *, folds: int, width: int, machine: Machine) -> int:
    """Return the bytes of heads that train together, beside the features of the whole table and validation.

    That is: the weights; the batch of each fold as read, standardised and cast; what a step keeps for its backward
    pass, and as much again for the gradients of it.

    Args:
        costs: of each head.
        rows: the rows of a step.
        folds: the number of folds that the heads use.
        width: the values of a row, of all streams that the heads use.
        machine: the precision.
    """
    batches = 3 * folds * rows * width * machine.dtype.itemsize
    return batches + sum(cost.weight_bytes + 2 * rows * cost.row_bytes for cost in costs)


@dataclass(frozen=True)
class Operations:
    """The number of operations of a group, which each cost their start, however many heads and rows they serve.

    Attributes:
        forward: of a forward pass, with the reading of the batch.
        step: of a forward and a backward pass, with the reading of the batch.
        update: of the optimizer in a step, for each `optimizer_key` of the group.
    """

    forward: int
    step: int
    update: int


@lru_cache(maxsize=4096)
@without_compiler()
def group_operations(spec: HeadSpec, shapes: tuple[tuple[int, ...], ...], folds: int) -> Operations:
    """Count the operations of a group.

    Args:
        spec: the head.
        shapes: of a row of each stream that the group sees. The length of a vector makes no difference.
        folds: the number of folds that the group uses.
    """
    dims = tuple((f"stream{index}", shape) for index, shape in enumerate(shapes))
    head, batch = _empty(spec, dims, classes=2, rows=4, folds=folds)
    with _OperationCounter() as forward:
        logits = head(batch)
    with _OperationCounter() as backward:
        torch.autograd.grad(logits.sum(), tuple(head.parameters()))
    reading = 8 * len(shapes)
    return Operations(
        forward=forward.operations + reading,
        step=forward.operations + backward.operations + reading,
        update=sum(1 for _ in head.parameters()),
    )


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Call `count` with every operation as it reaches the device.

    The counters take the place of torch's `FlopCounterMode`, which needs torch's compiler (`without_compiler`).
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.count(func, args, kwargs, out)
        return out

    def count(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        """Count an operation with its arguments and its result."""
        raise NotImplementedError


class _FlopCounter(_Counter):
    """Count the floating-point operations of matrix products and convolutions by torch's formulas."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def count(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=out))


class _OperationCounter(_Counter):
    """Count all operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def count(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        del func, args, kwargs, out
        self.operations += 1


def _empty(
    spec: HeadSpec, dims: tuple[tuple[str, Shape], ...], classes: int, rows: int, folds: int
) -> tuple[nn.Module, HeadBatch]:
    """Return a head with one member for each fold on the `meta` device, and a batch for it."""
    with torch.device("meta"):
        streams = tuple(stream for stream, _ in dims)
        head = make_empty_head(spec, [HeadMember(streams, fold=fold) for fold in range(folds)], dict(dims), classes)
        return head, _batch({stream: shape_of(shape) for stream, shape in dims}, rows, folds)


def _batch(shapes: Mapping[str, tuple[int, ...]], rows: int, folds: int) -> HeadBatch:
    """Return rows of zeros that have every stream and every step."""
    features = {stream: torch.zeros(folds, rows, *shape) for stream, shape in shapes.items()}
    valid = {stream: torch.ones(folds, rows, dtype=torch.bool) for stream in shapes}
    steps = {
        stream: torch.ones(folds, rows, shape[0], dtype=torch.bool)
        for stream, shape in shapes.items()
        if len(shape) in {2, 4}
    }
    return HeadBatch(features, valid, steps)


def _memory_of(tensor: Tensor) -> int:
    """Return the same number for tensors that share their memory; addresses are all zero on `meta`."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  torch has no public name for it
