"""Adam, AdamW, RMSprop and SGD where each member has its own options.

Kingma & Ba, ICLR 2015; Loshchilov & Hutter, ICLR 2019. RMSprop divides each gradient by the root of the running mean of
its square, whose decay is .9 as in Keras, which the paper on real-time face emotion uses; SGD has no momentum.

An update of Adam reads weight, gradient and both moments and writes all but the gradient: 28 bytes a weight, if one
kernel does it all. torch's fused kernel does, but takes one learning rate a call. So there is one call for each
distinct fold, learning rate, weight decay and algorithm, over the neighbouring members that share them: members are
ordered that way, and a sweep has few different ones. Written as tensor operations with a vector of learning rates, a
whole step takes 1.9 times as long for 8 of the paper's heads and 1.4 times for 32 small ones (batch 64, one CPU core;
1.03 times at batch 1024).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from emofuse.heads.members import owners
from emofuse.specs import TrainSpec
from emofuse.training.schedule import is_scheduled, rate_factor

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
RMS_DECAY, RMS_EPS = 0.9, 1e-7


def optimizer_key(train: TrainSpec) -> tuple[str, float, float, str, float, int]:
    """Return what members must share to be updated by one call; groups are ordered by fold, then by this."""
    epochs = train.epochs if is_scheduled(train) else 0
    return (train.optimizer, train.learning_rate, train.weight_decay, train.schedule, train.warmup, epochs)


@dataclass(frozen=True)
class Share:
    """The neighbouring members of some parameters that one call updates.

    Attributes:
        fold: the fold whose rows they see.
        train: the algorithm and its weight decay.
        rate: the learning rate; a tensor where balancing or a schedule changes it.
        members: name of a parameter -> the members of it.
        steps: the number of updates of each parameter so far, float32 without dimension, as torch's kernel wants it.
        weights: the weights of these members, views of each parameter, as are the moments.
        mean: the running means of their gradients.
        square: those of the squares of their gradients.
    """

    fold: int
    train: TrainSpec
    rate: float | Tensor
    members: Mapping[str, slice]
    steps: Sequence[Tensor]
    weights: list[Tensor]
    mean: list[Tensor]
    square: list[Tensor]


@dataclass(frozen=True)
class AdamMoments:
    """The running means of gradients and of their squares: name of a parameter -> a tensor of its shape."""

    mean: dict[str, Tensor]
    square: dict[str, Tensor]

    @classmethod
    def zero(cls, head: nn.Module) -> AdamMoments:
        """Return the moments before the first update."""
        mean, square = ({n: torch.zeros_like(p.detach()) for n, p in head.named_parameters()} for _ in range(2))
        return cls(mean, square)


class GroupAdam:
    """The optimizer of a group. Members of one fold see the same rows, so updates are counted by fold.

    Args:
        head: the head of K members.
        moments: the moments so far, which are changed in place.
        trains: the optimisation of each member, members ordered by fold and `optimizer_key`.
        folds: the fold of each member.
        rates: (K, S) learning rate of each member and branch, changed from outside; None where each member has one.
        branches: name of a parameter -> its branch, if it belongs to one.
        updates: fold -> the number of updates before.
    """

    def __init__(
        self,
        head: nn.Module,
        moments: AdamMoments,
        trains: Sequence[TrainSpec],
        folds: Sequence[int],
        *,
        rates: Tensor | None = None,
        branches: Mapping[str, int],
        updates: Mapping[int, int],
    ) -> None:
        self._weights = {name: tensor.detach() for name, tensor in head.named_parameters()}
        self._scheduled: list[tuple[TrainSpec, Tensor]] = []  # with the learning rates that follow from the step
        self.moments = moments
        layers = owners(head)
        self._members_of = {name: layers[name].indices for name in self._weights}
        self._shares = [
            share
            for first, stop in _neighbours(
                [(fold, *optimizer_key(train)) for fold, train in zip(folds, trains, strict=True)]
            )
            for share in self._plan(slice(first, stop), folds[first], trains[first], rates, branches)
        ]
        for share in self._shares:
            for steps in share.steps:
                steps.fill_(updates.get(share.fold, 0))

    @property
    def updates(self) -> dict[int, int]:
        """Return fold -> the number of updates so far."""
        return {share.fold: int(share.steps[0]) for share in self._shares}

    def set_rates(self, step: int, steps_of_epoch: int) -> None:
        """Set the learning rates of the step with this number, counted from 0 through all epochs."""
        for train, rate in self._scheduled:
            rate.fill_(train.learning_rate * rate_factor(train, step, steps_of_epoch))

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], idle: frozenset[int]) -> None:
        """Update all members except those of idle folds, which stay as they are.

        The kernel goes through memory without strides, so a gradient with another layout than its weight is copied.
        """
        gradients = {name: gradient.contiguous() for name, gradient in gradients.items()}
        for share in self._shares:
            if share.fold not in idle:
                slopes = [gradients[name][members] for name, members in share.members.items()]
                weights, mean, square = share.weights, share.mean, share.square
                if share.train.optimizer in {"rmsprop", "sgd"}:
                    _update_plainly(share, weights, slopes, square)
                    continue
                algorithm = adam if share.train.optimizer == "adam" else adamw
                algorithm(
                    weights,
                    slopes,
                    mean,
                    square,
                    [],
                    list(share.steps),
                    fused=True,
                    amsgrad=False,
                    beta1=BETA1,
                    beta2=BETA2,
                    lr=share.rate,
                    weight_decay=share.train.weight_decay,
                    eps=EPS,
                    maximize=False,
                )

    def _plan(
        self, group: slice, fold: int, train: TrainSpec, rates: Tensor | None, branches: Mapping[str, int]
    ) -> Iterator[Share]:
        """Yield one share for members with one `optimizer_key`, or with balancing one for each member and branch."""
        rate: float | Tensor = train.learning_rate
        if is_scheduled(train):
            weight = next(iter(self._weights.values()))
            rate = torch.full((), train.learning_rate, dtype=kind_of_rates(weight.device), device=weight.device)
            self._scheduled.append((train, rate))
        if rates is None:
            yield self._share(group, fold, train, rate, list(self._weights))
            return
        yield self._share(group, fold, train, rate, [n for n in self._weights if n not in branches])
        for member in range(group.start, group.stop):
            for branch in range(rates.shape[1]):
                names = [name for name in self._weights if branches.get(name) == branch]
                share = self._share(slice(member, member + 1), fold, train, rates[member, branch], names)
                if share.members:
                    yield share

    def _share(self, group: slice, fold: int, train: TrainSpec, rate: float | Tensor, names: Sequence[str]) -> Share:
        members = {
            name: slice(
                bisect_left(self._members_of[name], group.start), bisect_left(self._members_of[name], group.stop)
            )
            for name in names
        }
        members = {name: part for name, part in members.items() if part.start < part.stop}
        steps = [torch.zeros((), device=self._weights[name].device) for name in members]
        weights, mean, square = (
            [tensors[name][part] for name, part in members.items()]
            for tensors in (self._weights, self.moments.mean, self.moments.square)
        )
        return Share(fold, train, rate, members, steps, weights, mean, square)


def _update_plainly(
    share: Share, weights: Sequence[Tensor], gradients: Sequence[Tensor], squares: Sequence[Tensor]
) -> None:
    """Update weights by RMSprop or SGD as `torch.optim` does, for which torch has no kernel with a rate in a tensor."""
    for steps in share.steps:
        steps.add_(1)
    for weight, gradient, square in zip(weights, gradients, squares, strict=True):
        change = gradient.add(weight, alpha=share.train.weight_decay) if share.train.weight_decay else gradient
        if share.train.optimizer == "rmsprop":
            square.mul_(RMS_DECAY).addcmul_(change, change, value=1 - RMS_DECAY)
            change = change / (square.sqrt() + RMS_EPS)
        weight.sub_(change * share.rate)


def kind_of_rates(device: torch.device) -> torch.dtype:
    """Return the type of learning rates in tensors, as torch's fused kernels want them."""
    return torch.float64 if device.type == "cpu" else torch.float32


def _neighbours(keys: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Yield (first, stop) of every run of equal keys."""
    for _, run in groupby(range(len(keys)), key=lambda index: keys[index]):
        indices = list(run)
        yield indices[0], indices[-1] + 1
