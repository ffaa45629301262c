"""Links: what turns the last values of a head, its logits, into the outputs that it predicts.

softmax   probabilities of C classes, which sum to 1
sigmoid   probabilities of C labels, each on its own
identity  C values, standardised as the targets are (see `emofuse.training.targets`)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Link = Literal["softmax", "sigmoid", "identity"]


def apply_link(link: Link, logits: Tensor) -> Tensor:
    """Return the outputs (..., C) of logits (..., C)."""
    match link:
        case "softmax":
            return functional.softmax(logits, dim=-1)
        case "sigmoid":
            return torch.sigmoid(logits)
        case _:
            return logits


def invert_link(link: Link, outputs: Tensor) -> Tensor:
    """Return logits (..., C) whose outputs are these; probabilities of 0 and 1 have the largest finite logits."""
    if link == "identity":
        return outputs
    tiny = torch.finfo(outputs.dtype).tiny
    logs = outputs.clamp(min=tiny).log()
    return logs if link == "softmax" else logs - (1 - outputs).clamp(min=torch.finfo(outputs.dtype).eps / 2).log()
