"""The initial weights of all heads.

A linear layer with n inputs starts with weights and biases uniform in +-1/sqrt(n), as in torch (He et al., ICCV 2015,
a = sqrt(5)). All other tensors start as their module defines: batch norm with 1 and 0, the vectors for missing streams
with 0.

The numbers of a tensor come from a generator that is seeded by the seed and by the tensor's name in a single head. So
a tensor starts with the same values whatever other layers the head has and whichever heads are trained beside it. The
generator runs on the CPU, so the device changes nothing, and no global random state is read or changed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import named_generator
from emofuse.heads.members import plain_name


@torch.no_grad()
def initialise(head: nn.Module) -> None:
    """Set the tensors of all layers that declare their number of inputs (`fan_in`), in place."""
    for path, layer in head.named_modules():
        if hasattr(layer, "fan_in"):
            for name, tensor in layer.named_parameters(prefix=path, recurse=False):
                _fill(tensor, plain_name(name), [member.seed for member in layer.members.group], layer.fan_in)


def _fill(tensor: Tensor, name: str, seeds: list[int], fan_in: tuple[int, ...]) -> None:
    """Fill `tensor` (n, ...), member k by seeds[k] and fan_in[k]. Members with the same seed share the draws."""
    for seed in dict.fromkeys(seeds):
        numbers = torch.rand(tensor.shape[1:], generator=named_generator(seed, name), dtype=torch.float32, device="cpu")
        for inputs in dict.fromkeys(fan_in):
            members = [k for k, pair in enumerate(zip(seeds, fan_in, strict=True)) if pair == (seed, inputs)]
            bound = inputs**-0.5
            if members:
                tensor[members] = numbers.mul(2 * bound).sub_(bound).to(tensor)
