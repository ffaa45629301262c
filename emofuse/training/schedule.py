"""The learning rate of each step, and gradients bounded by their norm, for each member of a group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.members import owners
from emofuse.specs import TrainSpec

_NOT_ZERO = 1e-6  # as in `torch.nn.utils.clip_grad_norm_`


def is_scheduled(train: TrainSpec) -> bool:
    """Return whether the learning rate changes from step to step."""
    return train.schedule != "constant" or train.warmup > 0


def rate_factor(train: TrainSpec, step: int, steps_of_epoch: int) -> float:
    """Return what the learning rate of a step is multiplied by.

    In the first `warmup` share of all T steps it rises in equal parts to 1, which the last of them reaches. From there
    on it stays 1, or falls to 0 at step T as half a cosine (Loshchilov & Hutter, ICLR 2017).

    Args:
        train: the optimisation of a member; T is the number of its epochs times `steps_of_epoch`.
        step: the number of the step, from 0 through all epochs.
        steps_of_epoch: the number of steps of an epoch.
    """
    total = train.epochs * steps_of_epoch
    rising = round(train.warmup * total)
    if step < rising:
        return (step + 1) / rising
    if train.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


class GradientClip:
    """Bound the norm of the gradient of all weights of each member, as `torch.nn.utils.clip_grad_norm_` does for one.

    Args:
        head: the head of K members.
        trains: the optimisation of each member; those with `clip_norm` 0 keep their gradients to the last bit.
    """

    def __init__(self, head: nn.Module, trains: Sequence[TrainSpec]) -> None:
        weights = dict(head.named_parameters())
        layers = owners(head)
        self._members = {name: layers[name] for name in weights}
        first = next(iter(weights.values()))
        norms = [train.clip_norm or math.inf for train in trains]
        self._largest = torch.tensor(norms, dtype=first.dtype, device=first.device)  # (K,)

    @torch.no_grad()
    def apply(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the gradients of a step, scaled. Two weights may have one tensor as gradient, so it is copied."""
        squares = torch.zeros_like(self._largest)
        for name, gradient in gradients.items():
            norm = torch.linalg.vector_norm(gradient.unsqueeze(1).flatten(1), dim=1).to(squares.dtype)
            squares = self._members[name].add(squares, norm.square())
        factors = (self._largest / (squares.sqrt() + _NOT_ZERO)).clamp(max=1.0)
        return {
            name: gradient * self._members[name].pick(factors).view(-1, *[1] * (gradient.dim() - 1))
            for name, gradient in gradients.items()
        }
