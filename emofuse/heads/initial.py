"""The initial weights of every head: one rule, and every tensor has random numbers of its own.

Rule. A linear layer with n inputs starts with weights and biases uniform in +-1/sqrt(n), as torch's own do (He et al.,
ICCV 2015, a = sqrt(5)); everything else starts as its module says: batch norm with 1 and 0, the vectors for missing
streams with 0. The numbers of a tensor come from a generator seeded by (seed, name of the tensor) alone. So a tensor
begins the same whatever other layers the head has: without one of the streams, or as one head of many trained in one
batch. The generator runs on the CPU: the device changes nothing, and no global random state is read or moved.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def empty_linear(wide_in: int, wide_out: int) -> nn.Linear:
    """A linear layer whose values are not set yet: `initialise` does that, without a global random number."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, wide_in, wide_out)  # type: ignore[no-untyped-call]
    return layer


def named_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator whose numbers depend on (seed, name) alone."""
    mixed = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(mixed[:8], "big") >> 1)  # 63 bits: a signed 64-bit seed


@torch.no_grad()
def initialise(module: nn.Module, seed: int) -> None:
    """Sets all weights and biases of linear layers by the rule above, in place."""
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            for name, tensor in layer.named_parameters(prefix=path):
                numbers = torch.rand(tensor.shape, generator=named_generator(seed, name), dtype=torch.float32)
                tensor.copy_(numbers.mul_(2 * bound).sub_(bound))
