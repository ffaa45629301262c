"""Recurrent stems: the last state of an LSTM or a GRU over the steps that are there, for K heads at once.

A step that is not there leaves the state unchanged, so a row gives the same state as the shorter sequence without the
step. One matrix product projects the inputs of all steps. Then each step takes one batched product of all members.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emofuse.heads.members import Members
from emofuse.heads.stems.layers import MemberLinear


class LSTM(nn.Module):
    """The last hidden state of a layer of `torch.nn.LSTM` (Hochreiter & Schmidhuber, 1997), with its initial weights.

    Args:
        members: the members that have the layer.
        dim: the width D of a step.
        width: the width H of the state.
        shared: whether the inputs have an axis of folds instead of members.
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
        """Return (n, B, H) of values (F or n, B, T, D) and steps (F or n, B, T) bool; zeros where no step is there."""
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
        take, keep, new, show = (inputs + self.state(hidden)).chunk(4, dim=2)
        memory = torch.sigmoid(keep) * memory + torch.sigmoid(take) * torch.tanh(new)
        return torch.sigmoid(show) * torch.tanh(memory), memory


class GRU(LSTM):
    """The last hidden state of a layer of `torch.nn.GRU` (Cho et al., EMNLP 2014), which has no separate memory."""

    gates = 3

    def _step(self, inputs: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        reset, update, new = inputs.chunk(3, dim=2)
        of_reset, of_update, of_new = self.state(hidden).chunk(3, dim=2)
        update = torch.sigmoid(update + of_update)
        new = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
        return (1 - update) * new + update * hidden, memory
