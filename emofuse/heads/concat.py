"""The paper's head: embed each stream, join the embeddings, hidden layers, logits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from emofuse.heads.initial import empty_linear, initialise


class MaskedBatchNorm1d(nn.Module):
    """Batch norm (Ioffe & Szegedy, ICML 2015) over the valid rows of a batch alone.

    Equal to `torch.nn.BatchNorm1d` on those rows: in training their mean and population variance normalise, and the
    running statistics move by `momentum` towards mean and unbiased variance; in evaluation the running statistics
    normalise. A batch with fewer than two valid rows has no variance: it is normalised by the running statistics and
    leaves them alone. No value of a row that is not valid reaches a statistic, the output of another row or a gradient.
    Nothing here waits for the device.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, rows: Tensor, valid: Tensor) -> Tensor:
        """Normalised rows.

        Args:
            rows: (B, D) float32.
            valid: (B,) bool.

        Returns:
            (B, D) float32; rows that are not valid hold the bias.
        """
        keep = valid.unsqueeze(1)
        rows = torch.where(keep, rows, 0.0)
        mean, var = self._batch_statistics(rows, keep) if self.training else (self.running_mean, self.running_var)
        gain = self.weight * torch.rsqrt(var + self.eps)
        return torch.where(keep, rows - mean, 0.0) * gain + self.bias

    def _batch_statistics(self, rows: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (D,) to normalise by; moves the running ones. `rows` (B, D) holds zeros where not kept."""
        count = keep.sum().to(rows.dtype)
        enough = count >= 2
        mean = rows.sum(0) / count.clamp(min=1)
        var = torch.where(keep, rows - mean, 0.0).square().sum(0) / count.clamp(min=1)
        with torch.no_grad():
            momentum = enough * self.momentum
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(var.detach() * (count / (count - 1).clamp(min=1)), momentum)
        return torch.where(enough, mean, self.running_mean), torch.where(enough, var, self.running_var)


class StreamEmbedding(nn.Module):
    """One stream's features -> its embedding; a learned vector takes the place of a missing one.

    The vector starts at zero, which is the mean of all embeddings after batch norm.
    """

    def __init__(self, dim: int, embed_dim: int) -> None:
        super().__init__()
        self.linear = empty_linear(dim, embed_dim)
        self.norm = MaskedBatchNorm1d(embed_dim)
        self.missing = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """(B, E) float32 of features (B, D) float32 and valid (B,) bool."""
        return torch.where(valid.unsqueeze(1), self.norm(self.linear(features), valid), self.missing)


class ConcatHead(nn.Module):
    """Each stream projected and batch-normalised, joined, hidden layers with ReLU, one logit a class.

    The softmax belongs to the loss and to `emofuse.training.loop.predict_probs`. Initial weights follow
    `emofuse.heads.initial`, so each stream's projection begins the same whatever other streams the head has.

    Args:
        dims: stream -> D, in the order in which embeddings are joined.
        classes: C.
        embed_dim: width of each stream's embedding.
        depth: number of hidden layers; 0 is a linear classifier on the embeddings.
        width: of each hidden layer.
        dropout: share of hidden values zeroed in training.
        seed: of the initial weights.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        classes: int,
        *,
        embed_dim: int = 512,
        depth: int = 2,
        width: int = 512,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.streams = tuple(dims)
        self.embeddings = nn.ModuleDict({_key(name): StreamEmbedding(dim, embed_dim) for name, dim in dims.items()})
        widths = [embed_dim * len(self.streams)] + [width] * depth
        self.hidden = nn.Sequential()
        for wide_in, wide_out in pairwise(widths):
            layers: list[nn.Module] = [empty_linear(wide_in, wide_out), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            self.hidden.append(nn.Sequential(*layers))
        self.output = empty_linear(widths[-1], classes)
        initialise(self, seed)

    def forward(self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
        """Logits.

        Args:
            features: stream -> (B, D) float32, standardised.
            valid: stream -> (B,) bool, whether the row has the stream.

        Returns:
            (B, C) float32.
        """
        embeddings = [self.embeddings[_key(name)](features[name], valid[name]) for name in self.streams]
        logits: Tensor = self.output(self.hidden(torch.cat(embeddings, dim=1)))
        return logits


def _key(stream: str) -> str:
    """A stream's key among modules: torch allows no dots there, nor names of its attributes (`type`, `items`)."""
    return "of_" + stream.replace(".", ":")
