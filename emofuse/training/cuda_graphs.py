"""CUDA graphs: a training step is captured once and replayed, one launch in place of hundreds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from emofuse.training.batches import StepRows

Step = Callable[[StepRows], None]


class Graph(Protocol):
    """The part of `torch.cuda.CUDAGraph` that is used."""

    def replay(self) -> None:
        """Run what was captured."""
        ...


class GraphedStep:
    """Run steps, of which the first few run plainly, the next is captured, and the others replay the capture.

    A graph reads and writes the same memory each time. So the rows of a step are copied into buffers that the graph
    reads, and all steps must have the same width (`Order(fixed_width=True)`). A step with an idle fold updates fewer
    members and runs plainly. The first steps run plainly too: they fill the caches that a capture must not touch.

    Args:
        capture: records a function, which must not change memory meanwhile.
        warm_up: the number of steps before the capture.
    """

    def __init__(self, capture: Callable[[Callable[[], None]], Graph], warm_up: int = 3) -> None:
        self._capture = capture
        self._plain_steps_left = warm_up
        self._graph: Graph | None = None
        self._buffers: StepRows | None = None

    def run(self, train_step: Step, step: StepRows) -> None:
        """Train on the rows of one step; `train_step` must be the same function each time."""
        if self._plain_steps_left > 0 or step.idle:
            self._plain_steps_left -= 1
            train_step(step)
            return
        if self._buffers is None or self._graph is None:
            self._buffers = buffers = StepRows(step.rows.clone(), step.present.clone(), frozenset())
            self._graph = self._capture(lambda: train_step(buffers))
        self._buffers.rows.copy_(step.rows)
        self._buffers.present.copy_(step.present)
        self._graph.replay()


def capture_cuda(function: Callable[[], None]) -> Graph:
    """Record what a function launches on the current CUDA device, as `torch.cuda.graph` does."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph
