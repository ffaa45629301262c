"""Balance gradients, so that no stream's branch learns faster than the others because its gradients are larger.

The paper monitors the gradient of every feature branch and scales that branch's learning rate. Under Adam a scaled
gradient has no effect, since Adam divides by the gradient's size again, so the *update* is scaled. A branch consists of
all layers that turn a stream's features into its embedding. In every step, for each member and branch b of its S:

    n_b     = L2 norm of the gradient of the branch's parameters
    m_b     = DECAY m_b + (1 - DECAY) n_b, at first n_b
    scale_b = mean over the member's branches of m, over m_b, within 1 / LIMIT and LIMIT
    learning rate of the branch = the member's learning rate x scale_b, in this very step

The L2 norm and not the mean square: a step of Adam moves every weight by about the learning rate, so what the branch
adds to the embedding grows with its number of inputs, as does this norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.members import key_of, owners, stream_of
from emofuse.specs import TrainSpec
from emofuse.training.schedule import is_scheduled, rate_factor

DECAY, LIMIT = 0.9, 4.0


class BranchBalance:
    """The gradient norms, scales and learning rates of the branches of K members.

    Attributes:
        branches: name of a parameter -> the index of its branch's stream.
        rates: (K, S) learning rates, changed in place; None if norms are only monitored. float64 on the CPU, float32
            elsewhere, as torch's fused kernels want them.

    Args:
        head: the head of K members.
        streams: the S streams of all members together.
        trains: the optimisation of each member.
    """

    def __init__(self, head: nn.Module, streams: Sequence[str], trains: Sequence[TrainSpec]) -> None:
        keys = {f"embeddings.{key_of(stream)}.": index for index, stream in enumerate(streams)}
        layers = owners(head)
        self.branches = {
            name: index for name, _ in head.named_parameters() for key, index in keys.items() if name.startswith(key)
        }
        self._members = {name: layers[name] for name in self.branches}
        self._streams = tuple(streams)
        device = next(head.parameters()).device
        kind = torch.float64 if device.type == "cpu" else torch.float32
        self._has = torch.zeros(len(trains), len(streams), dtype=torch.bool, device=device)
        for name, index in self.branches.items():
            self._has[self._members[name].positions, index] = True
        self._trains = tuple(trains)
        self._base = torch.tensor([train.learning_rate for train in trains], dtype=kind, device=device).unsqueeze(1)
        self._smooth = torch.zeros_like(self._has, dtype=kind)
        self._seen = torch.zeros(len(trains), 1, dtype=torch.bool, device=device)
        self._sums = torch.zeros(2, *self._has.shape, dtype=kind, device=device)
        self._counts = torch.zeros(len(trains), 1, dtype=kind, device=device)
        self.rates = self._base.repeat(1, len(streams)) if trains[0].gradient_balancing == "on" else None

    def set_rates(self, step: int, steps_of_epoch: int) -> None:
        """Set the members' learning rates for the step with this number, counted from 0 through all epochs."""
        for base, train in zip(self._base, self._trains, strict=True):
            if is_scheduled(train):
                base.fill_(train.learning_rate * rate_factor(train, step, steps_of_epoch))

    @torch.no_grad()
    def observe(self, gradients: Mapping[str, Tensor], active: Tensor) -> None:
        """Take the gradients of one step and set the rates for its update.

        Args:
            gradients: the gradients of all parameters.
            active: (K,) bool, the members that are updated in this step.
        """
        norms = self._norms(gradients)
        active = active.unsqueeze(1)
        moved = torch.where(self._seen, self._smooth * DECAY + norms * (1 - DECAY), norms)
        self._smooth.copy_(torch.where(active, moved, self._smooth))
        self._seen.logical_or_(active)
        scales = self._scales()
        if self.rates is not None:
            self.rates.copy_(self._base * scales)
        self._sums.add_(torch.stack([norms, scales]) * active)
        self._counts.add_(active)

    def epoch_means(self) -> list[dict[str, dict[str, float]]]:
        """Return {branch_norms, branch_scales: {stream: mean over the steps since the last call}} for each member."""
        norms, scales = (self._sums / self._counts.clamp(min=1)).tolist()
        has = self._has.tolist()
        self._sums.zero_()
        self._counts.zero_()
        return [
            {"branch_norms": self._named(norms[k], has[k]), "branch_scales": self._named(scales[k], has[k])}
            for k in range(len(has))
        ]

    def go_on(self, before: BranchBalance, places: Sequence[int]) -> None:
        """Continue with the means of these members of a former, larger group."""
        self._smooth.copy_(before._smooth[places])
        self._seen.copy_(before._seen[places])

    def _norms(self, gradients: Mapping[str, Tensor]) -> Tensor:
        squares = torch.zeros_like(self._smooth)
        for name, index in self.branches.items():
            norm = torch.linalg.vector_norm(gradients[name].flatten(1), dim=1).to(squares.dtype)
            squares[:, index] = self._members[name].add(squares[:, index], norm.square())
        return squares.sqrt()

    def _scales(self) -> Tensor:
        """Return the scales (K, S): 1 if only monitored, and for branches without a gradient so far."""
        if self.rates is None:
            return torch.ones_like(self._smooth)
        mean = (self._smooth * self._has).sum(1, keepdim=True) / self._has.sum(1, keepdim=True)
        is_known = self._smooth > 0
        return torch.where(is_known, mean / torch.where(is_known, self._smooth, 1.0), 1.0).clamp(1 / LIMIT, LIMIT)

    def _named(self, values: Sequence[float], has: Sequence[bool]) -> dict[str, float]:
        named = zip(self._streams, values, has, strict=True)
        return {stream_of(stream): value for stream, value, is_there in named if is_there}
