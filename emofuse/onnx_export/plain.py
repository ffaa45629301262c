"""Heads with plain operations in place of those that are written for the speed of training, so that they can be traced.

`make_plain` copies a single head and changes the class of its layers to one below, whose forward pass computes the same
from the same weights. Here K = F = 1: one head, one fold. Shapes stay symbolic: the number of rows, and of steps, is
that of the input.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.dropout import Noise
from emofuse.heads.embedding import Embeddings, StreamEmbedding
from emofuse.heads.kernel_ridge import KernelRidgeHead
from emofuse.heads.layers import Linear, Projection
from emofuse.heads.members import HeadBatch, key_of
from emofuse.heads.norm import masked_batch_norm
from emofuse.heads.stems.convolution import SmallCNN
from emofuse.heads.stems.layers import MemberBatchNorm, MemberConv, MemberLinear
from emofuse.heads.stems.recurrent import GRU, LSTM
from emofuse.heads.stems.transformer import TransformerOverTime
from emofuse.heads.transformer import TransformerLayer

_RECURRENT = "recurrent"


def make_plain(head: nn.Module) -> nn.Module:
    """Return a copy of a single head that computes the same by plain operations, in evaluation mode."""
    plain = copy.deepcopy(head).cpu().float()
    for module in plain.modules():
        known = _PLAIN.get(type(module))
        if known is not None:
            module.__class__ = known
        if isinstance(module, LSTM):
            module.add_module(_RECURRENT, _torch_layer(module))
    return plain.eval()


class _Linear(Linear):
    def forward(self, values: Tensor, onto: Tensor | None = None) -> Tensor:
        product = torch.matmul(values, self.weight.transpose(1, 2))
        product = product if self.bias is None else product + self.bias.unsqueeze(1)
        return product if onto is None else product + onto


class _Projection(Projection):
    def forward(self, features: Tensor) -> Tensor:
        return torch.matmul(features, self.weight.transpose(1, 2))


class _MemberLinear(MemberLinear):
    def forward(self, values: Tensor) -> Tensor:
        product = torch.matmul(values, self.weight[0].t())
        return product if self.bias is None else product + self.bias[0]


class _MemberConv(MemberConv):
    def forward(self, maps: Tensor) -> Tensor:
        return functional.conv2d(maps[0], self.weight[0], self.bias[0], padding=self._padding).unsqueeze(0)


class _Embeddings(Embeddings):
    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> dict[str, Tensor]:
        embedded = {}
        for stream in self.streams:
            embedding: StreamEmbedding = getattr(self, key_of(stream))
            vectors = batch.features[stream]
            if embedding.stem is not None:
                vectors = embedding.stem(vectors, batch.steps.get(stream), noise)
            embedded[stream] = masked_batch_norm(
                embedding.linear(vectors), batch.valid[stream], embedding.norm, embedding.missing, training=False
            )
        return embedded


class _KernelRidgeHead(KernelRidgeHead):
    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:  # noqa: ARG002  all heads are called alike
        total = None
        for name in sorted(self.streams):
            support = self._supports[name]
            rows, supports = batch.features[name][0].double(), support.features[0].double()
            values = self._kernel(rows, supports, support.gamma.double(), support.scale.double())
            values = values * batch.valid[name][0].to(values.dtype).unsqueeze(1) * support.valid[0].double()
            total = values if total is None else total + values
        if total is None:
            raise ValueError("a kernel_ridge head needs a stream, it has none")
        scores = torch.matmul(total / len(self.streams), self.coefficients[0].double()) + self.bias[0]
        return (self.factor * scores).float().unsqueeze(0)

    def _kernel(self, rows: Tensor, support: Tensor, gamma: Tensor, scale: Tensor) -> Tensor:
        if self.kind == "rbf":
            sizes = rows.square().sum(dim=1, keepdim=True) + support.square().sum(dim=1)
            distances = torch.relu(sizes - 2 * torch.matmul(rows, support.t()))
            return torch.exp(-gamma * distances) * scale
        if self.kind == "cosine":
            return torch.matmul(_unit(rows), _unit(support).t()) * scale
        return torch.matmul(rows, support.t()) / max(1, self._width(support)) * scale

    @staticmethod
    def _width(support: Tensor) -> int:
        return int(support.shape[1])


def _unit(rows: Tensor) -> Tensor:
    lengths = rows.square().sum(dim=1, keepdim=True).sqrt()
    return rows / lengths.clamp(min=torch.finfo(torch.float32).tiny)


class _LSTM(LSTM):
    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Return the state (1, B, H) of torch's own layer after the steps that are there.

        A step that is not there leaves the state as it is. So the steps that are there go first, and the state after
        their number is the answer.
        """
        rows, there = values[0], steps[0]
        places = torch.cumsum(torch.ones_like(there, dtype=torch.int64), dim=1)
        order = torch.argsort(torch.where(there, places, places + places.shape[1]), dim=1)
        states, _ = getattr(self, _RECURRENT)(torch.gather(rows, 1, order.unsqueeze(2).expand(-1, -1, rows.shape[2])))
        count = there.to(torch.int64).sum(dim=1)
        last = (count - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, self.dim)
        state = torch.gather(states, 1, last).squeeze(1)
        return torch.where((count > 0).unsqueeze(1), state, torch.zeros_like(state)).unsqueeze(0)


class _GRU(_LSTM, GRU):
    pass


def _torch_layer(stem: LSTM) -> nn.Module:
    """Return torch's own recurrent layer with the weights of a stem."""
    kind = nn.GRU if isinstance(stem, GRU) else nn.LSTM
    network = kind(stem.input.weight.shape[2], stem.dim, batch_first=True)
    with torch.no_grad():
        for name, layer in (("ih", stem.input), ("hh", stem.state)):
            getattr(network, f"weight_{name}_l0").copy_(layer.weight[0])
            if layer.bias is not None:
                getattr(network, f"bias_{name}_l0").copy_(layer.bias[0])
    return network


class _TransformerOverTime(TransformerOverTime):
    def forward(self, values: Tensor, steps: Tensor, noise: Noise | None) -> Tensor:
        tokens = self.input(values)
        positions = self.positions().view(1, 1, -1, self.dim)
        tokens = tokens + positions[:, :, : tokens.shape[2]]
        asking = self.asking().unsqueeze(1).expand(-1, tokens.shape[1], -1, -1)
        tokens = torch.cat([asking, tokens], dim=2)
        present = torch.cat([torch.ones_like(steps[:, :, :1]), steps], dim=2)
        for layer in self.layers:
            tokens = layer(tokens, present, noise)
        normed: Tensor = self.norm(tokens[:, :, 0])
        return normed


class _TransformerLayer(TransformerLayer):
    def forward(self, tokens: Tensor, present: Tensor, noise: Noise | None) -> Tensor:  # noqa: ARG002  all layers are called alike
        """Return the tokens after this layer; `present` is (1, T), or (1, B, T)."""
        rows = tokens[0]
        normed = self.norm(rows.unsqueeze(0).flatten(1, 2)).view_as(tokens)[0]
        asking, first = (rows[:, :1], normed[:, :1]) if self.asking == 1 else (rows, normed)
        query, key, value = (
            self._heads(layer(part.reshape(1, -1, part.shape[2])).view_as(part))
            for layer, part in ((self.query, first), (self.key, normed), (self.value, normed))
        )
        there = present[0] if present.dim() == 3 else present
        scores = torch.matmul(query, key.transpose(2, 3)) / (query.shape[3] ** 0.5)
        scores = scores.masked_fill(~there[:, None, None, :], torch.finfo(torch.float32).min)
        attended = torch.matmul(functional.softmax(scores, dim=3), value)
        joined = attended.transpose(1, 2).flatten(2)
        asking = asking + self.mix(joined.reshape(1, -1, joined.shape[2])).view_as(asking)
        hidden = self.hidden_norm(asking.reshape(1, -1, asking.shape[2]))
        grown = self.down(functional.gelu(self.up(hidden)))
        added: Tensor = asking + grown.view_as(asking)
        return added.unsqueeze(0)

    def _heads(self, values: Tensor) -> Tensor:
        """Split values (B, T, E) into (B, attention heads, T, E / attention heads)."""
        width = values.shape[2] // self.attention_heads
        return values.reshape(values.shape[0], values.shape[1], self.attention_heads, width).transpose(1, 2)


class _SmallCNN(SmallCNN):
    def forward(self, maps: Tensor, there: Tensor | None = None) -> Tensor:
        for conv, norm, pooled in zip(self.convolutions, self.norms, self.pooled, strict=True):
            convolved = conv(maps)
            normed = norm(convolved, there) if isinstance(norm, MemberBatchNorm) else norm(convolved)
            maps = functional.relu(normed)
            if pooled:
                maps = functional.max_pool2d(maps[0], 2).unsqueeze(0)
        height, width = int(maps.shape[3]), int(maps.shape[4])
        cells = [
            maps[0, :, :, rows, columns].mean((2, 3))
            for rows in _cells(height, self.grid[0])
            for columns in _cells(width, self.grid[1])
        ]
        return torch.stack(cells, dim=2).flatten(1).unsqueeze(0)


def _cells(size: int, count: int) -> list[slice]:
    """Return the parts that adaptive pooling averages, which ONNX does not know for all sizes."""
    return [slice(index * size // count, -(-(index + 1) * size // count)) for index in range(count)]


_PLAIN: Mapping[type[nn.Module], type[nn.Module]] = {
    Linear: _Linear,
    Projection: _Projection,
    MemberLinear: _MemberLinear,
    MemberConv: _MemberConv,
    Embeddings: _Embeddings,
    KernelRidgeHead: _KernelRidgeHead,
    LSTM: _LSTM,
    GRU: _GRU,
    TransformerOverTime: _TransformerOverTime,
    TransformerLayer: _TransformerLayer,
    SmallCNN: _SmallCNN,
}
"""Layer -> the layer with plain operations."""
