"""Recurrent stems: the last state of an LSTM or a GRU over the steps that are there, for K heads at once.

A step that is not there leaves the state as it is, so that a row is read exactly as the shorter sequence without it.
The inputs of all steps are projected in one product; what follows is one batched product of all members a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emofuse.heads.members import Members
from emofuse.heads.stems.layers import MemberLinear


class LSTM(nn.Module):
    """The last hidden state of a layer of `torch.nn.LSTM` (Hochreiter & Schmidhuber, 1997), with its initial weights.

    Args:
        members: that have it.
        dim: D of a step.
        width: H of the state.
        shared: whether its inputs are those of the folds.
    """

    gates = 4

    def __init__(self, members: Members, dim: int, width: int, *, shared: bool) -> None:
        super().__init__()
        self.members = members
        self.dim = width
        self.shared = shared
        self.input = MemberLinear(members, dim, self.gates * width, shared=shared, fan_in=width)
        self.state = MemberLinear(members, width, self.gates * width, shared=False, fan_in=width)

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """(n, B, H) of values (F or n, B, T, D) and steps (F or n, B, T) bool; zeros where no step is there."""
        there = (self.members.of_folds(steps) if self.shared else steps).unsqueeze(3)
        inputs = self.input(values).to(self.state.weight.dtype)
        hidden: Tensor = inputs.new_zeros(*inputs.shape[:2], self.dim)
        memory = hidden
        for step in range(inputs.shape[2]):
            new_hidden, new_memory = self._step(inputs[:, :, step], hidden, memory)
            hidden = torch.where(there[:, :, step], new_hidden, hidden)
            memory = torch.where(there[:, :, step], new_memory, memory)
        return hidden

    def _step(self, inputs: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        taken, kept, new, shown = (inputs + self.state(hidden)).chunk(4, dim=2)
        memory = torch.sigmoid(kept) * memory + torch.sigmoid(taken) * torch.tanh(new)
        return torch.sigmoid(shown) * torch.tanh(memory), memory


class GRU(LSTM):
    """The same for a layer of `torch.nn.GRU` (Cho et al., EMNLP 2014), which has no memory beside its state."""

    gates = 3

    def _step(self, inputs: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        reset, update, new = inputs.chunk(3, dim=2)
        of_reset, of_update, of_new = self.state(hidden).chunk(3, dim=2)
        update = torch.sigmoid(update + of_update)
        new = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
        return (1 - update) * new + update * hidden, memory
