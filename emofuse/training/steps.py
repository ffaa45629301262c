"""One step of training, and how it is run: plainly, or as a captured CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.dropout import Noise
from emofuse.heads.layers import Linear, Projection, products_in
from emofuse.heads.members import Members
from emofuse.training.balancing import BranchBalance
from emofuse.training.batches import Standardised, StepRows
from emofuse.training.optim import GroupAdam


class TrainStep:
    """Forward, backward, update: of K heads on the rows of one step.

    The loss of a head is the mean over the rows of its fold in this step. What is derived is the sum of the heads'
    losses; since no head's loss depends on another's weights, each gets its own gradient and no other.

    Attributes:
        losses: (K,) float64, sum of the losses of all rows since it was last set to 0.

    Args:
        head: of K members.
        members: all of them.
        rows: where features are read.
        smoothing: label smoothing of each member.
        optimizer: of the group.
        balance: of its branches, if they are watched.
        noise: of the dropout.
        products: type of the operands of matrix products where it is not the weights' own.
    """

    def __init__(
        self,
        head: nn.Module,
        members: Members,
        rows: Standardised,
        *,
        smoothing: Sequence[float],
        optimizer: GroupAdam,
        balance: BranchBalance | None,
        noise: Noise,
        products: torch.dtype | None,
    ) -> None:
        self._head = head
        self._members = members
        self._rows = rows
        self._optimizer = optimizer
        self._balance = balance
        self._noise = noise
        self._products = products
        self._weights = dict(head.named_parameters())
        weight = next(iter(self._weights.values()))
        self._smoothing = torch.tensor(smoothing, dtype=weight.dtype, device=weight.device).unsqueeze(1)
        self.losses = torch.zeros(len(members), dtype=torch.float64, device=weight.device)
        for layer in head.modules():
            if isinstance(layer, (Projection, Linear)):  # gradients are used up before the next step
                layer.gradient = torch.empty_like(layer.weight, requires_grad=False)

    def __call__(self, step: StepRows) -> None:
        """Trains on the rows of one step."""
        batch, labels = self._rows.read(step.rows, step.present)
        with products_in(self._products, step.rows.device):
            logits = self._head(batch, self._noise)
        losses = row_losses(logits.to(self._smoothing.dtype), self._members.of_folds(labels), self._smoothing)
        present = self._members.of_folds(step.present)
        sums = torch.where(present, losses, 0.0).sum(1)
        counts = present.sum(1)
        slopes = torch.autograd.grad((sums / counts.clamp(min=1)).sum(), tuple(self._weights.values()))
        gradients = dict(zip(self._weights, slopes, strict=True))
        if self._balance is not None:
            self._balance.observe(gradients, counts > 0)
        self._optimizer.step(gradients, step.idle)
        self.losses += sums.detach()


def row_losses(logits: Tensor, labels: Tensor, smoothing: Tensor) -> Tensor:
    """Cross-entropy of every row, (K, B), with label smoothing a member.

    The smoothed target puts 1 - smoothing on the label and smoothing / C on every class (Szegedy et al., CVPR 2016), as
    `torch.nn.functional.cross_entropy` has it.

    Args:
        logits: (K, B, C).
        labels: (K, B) int64.
        smoothing: (K, 1).
    """
    log_probs = functional.log_softmax(logits, dim=2)
    of_label = -log_probs.gather(2, labels.unsqueeze(2)).squeeze(2)
    return (1 - smoothing) * of_label - smoothing * log_probs.mean(2)


class Graph(Protocol):
    """The part of `torch.cuda.CUDAGraph` that is used."""

    def replay(self) -> None:
        """Runs what was captured."""
        ...


Capture = Callable[[Callable[[], None]], Graph]


class GraphedStep:
    """A step captured once and replayed: one launch in place of hundreds.

    A graph reads and writes the same memory each time. So the rows of a step are copied into buffers that it reads, and
    all steps must be equally wide (`Order(fixed_width=True)`). A step with an idle fold updates other members and is
    run plainly. The first steps are run plainly too: they fill the caches that a capture must not touch.

    Args:
        step: what is captured.
        capture: runs a function while recording it, without effect on memory.
        warm_up: steps before the capture.
    """

    def __init__(self, step: Callable[[StepRows], None], capture: Capture, warm_up: int = 3) -> None:
        self._step = step
        self._capture = capture
        self._left = warm_up
        self._graph: Graph | None = None
        self._buffers: StepRows | None = None

    def __call__(self, step: StepRows) -> None:
        """Trains on the rows of one step."""
        if self._left > 0 or step.idle:
            self._left -= 1
            self._step(step)
            return
        if self._buffers is None or self._graph is None:
            self._buffers = buffers = StepRows(step.rows.clone(), step.present.clone(), frozenset())
            self._graph = self._capture(lambda: self._step(buffers))
        self._buffers.rows.copy_(step.rows)
        self._buffers.present.copy_(step.present)
        self._graph.replay()


def capture_cuda(function: Callable[[], None]) -> Graph:
    """Records what a function launches on the current CUDA device, as `torch.cuda.graph` does."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph
