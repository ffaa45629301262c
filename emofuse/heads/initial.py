"""The initial weights of every head: one rule, and every tensor has random numbers of its own.

Rule. A linear layer with n inputs starts with weights and biases uniform in +-1/sqrt(n), as torch's own do (He et al.,
ICCV 2015, a = sqrt(5)); everything else starts as its module says: batch norm with 1 and 0, the vectors for missing
streams with 0. The numbers of a tensor come from a generator seeded by (seed, name of the tensor) alone, the name that
it has in a head on its own. So a tensor begins the same whatever other layers the head has: without one of the streams,
or as one head of many trained in one batch. The generator runs on the CPU: the device changes nothing, and no global
random state is read or moved.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import named_generator
from emofuse.heads.members import plain_name


@torch.no_grad()
def initialise(head: nn.Module) -> None:
    """Sets by the rule, in place, all tensors of the layers that say how many inputs they have (`fan_in`)."""
    for path, layer in head.named_modules():
        if hasattr(layer, "fan_in"):
            for name, tensor in layer.named_parameters(prefix=path, recurse=False):
                _fill(tensor, plain_name(name), [member.seed for member in layer.members.group], layer.fan_in)


def _fill(tensor: Tensor, name: str, seeds: list[int], fan_in: tuple[int, ...]) -> None:
    """`tensor` (n, ...): member k from seeds[k] and fan_in[k]. Members with the same seed share one drawing."""
    for seed in dict.fromkeys(seeds):
        numbers = torch.rand(tensor.shape[1:], generator=named_generator(seed, name), dtype=torch.float32, device="cpu")
        for inputs in dict.fromkeys(fan_in):
            members = [k for k, pair in enumerate(zip(seeds, fan_in, strict=True)) if pair == (seed, inputs)]
            bound = inputs**-0.5
            if members:
                tensor[members] = numbers.mul(2 * bound).sub_(bound).to(tensor)
