"""Layers of the oracle: dropout, transformer layers and stems, one head, one row at a time."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from emofuse.heads.dropout import OFFSETS, named_generator, noise_offset


class Dropout(nn.Module):
    """Zeros read from the noise of (order seed, step, place), from where the member's seed says."""

    def forward(self, x, place, rows=None):
        """`rows` (n,) are the places of x (n, width) in the batch; all rows by default."""
        run = self.run
        share = run.stem_share if place.endswith(".stem") else run.share
        if not self.training or share == 0:
            return x
        rows, width = range(len(x)) if rows is None else rows, x.shape[1]
        noise = torch.rand(
            run.largest_batch * width + OFFSETS,
            generator=named_generator(run.order_seed, f"dropout {run.step} {place}"),
        )
        kept = noise[noise_offset(run.seed) :].unfold(0, width, width)[list(rows)] >= share
        return x * kept / (1 - share)


class Transformer(nn.Module):
    """A pre-norm layer. `tokens` and what it returns: name -> (rows, dim)."""

    def __init__(self, dim, width, heads, place):
        super().__init__()
        self.count, self.place = heads, place
        self.norm, self.hidden_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.value, self.mix = (nn.Linear(dim, dim) for _ in range(3))
        self.key = nn.Linear(dim, dim, bias=False)
        self.up, self.down = nn.Linear(dim, width), nn.Linear(width, dim)
        self.dropout = Dropout()

    def forward(self, tokens, rows=None):
        normed = {name: self.norm(token) for name, token in tokens.items()}
        keys = torch.stack([self.key(token) for token in normed.values()], dim=1)
        values = torch.stack([self.value(token) for token in normed.values()], dim=1)
        out = {}
        for name, token in tokens.items():
            query, heard = self.query(normed[name]), []
            for q, k, v in zip(*(t.chunk(self.count, dim=-1) for t in (query, keys, values)), strict=True):
                attention = torch.softmax((q.unsqueeze(1) * k).sum(2) / math.sqrt(q.shape[-1]), dim=1)
                heard.append((attention.unsqueeze(2) * v).sum(1))
            mixed = self.mix(torch.cat(heard, dim=1))
            asking = token + self.dropout(mixed, f"{self.place}.mix.{name}", rows)
            hidden = self.down(functional.gelu(self.up(self.hidden_norm(asking))))
            out[name] = asking + self.dropout(hidden, f"{self.place}.down.{name}", rows)
        return out


# ------------------------------------------------------------------------------------------------------------- stems


class Stem(nn.Module):
    """One vector of each row (*shape). Steps that are not there are NaN; they are left out."""

    def __init__(self, spec, stream, shape):
        super().__init__()
        self.is_sequence, self.dim = len(shape) in {2, 4}, shape[-1]
        if len(shape) >= 3:
            self.spatial = SPATIAL[spec.spatial](spec, shape[-3:])
            self.dim = self.spatial.dim
        if self.is_sequence:
            self.temporal = TEMPORAL[spec.temporal](spec, self.dim, shape[0], stream)
            self.dim = self.temporal.dim
        self.dropout, self.place = Dropout(), f"{stream}.stem"
        self.has_weights = any(True for _ in self.parameters())

    def forward(self, x, rows):
        """Vectors (n, dim) of the rows x (n, *shape), which stand at `rows` (n,) of the batch."""
        if getattr(getattr(self, "spatial", None), "in_batch", False):
            vectors = self.vectors_in_batch(x, rows.tolist())
        else:
            vectors = [self.vector(values, row) for values, row in zip(x, rows.tolist(), strict=True)]
        vectors = torch.stack(vectors) if vectors else x.new_zeros(0, self.dim)
        return self.dropout(vectors, self.place, rows.tolist()) if self.has_weights else vectors

    def vectors_in_batch(self, x, rows):
        """All maps that are there pass the network at once, for its batch norm."""
        if not len(x):
            return []
        if not self.is_sequence:
            return list(self.spatial.of_all(x))
        places = [torch.nonzero(~values.flatten(1).isnan().any(1)).flatten() for values in x]
        maps = torch.cat([values[there] for values, there in zip(x, places, strict=True)])
        vectors = torch.split(self.spatial.of_all(maps), [len(there) for there in places])
        return [
            self.temporal(steps, there.tolist(), row)
            if len(there) or isinstance(self.temporal, TransformerOverTime)
            else x.new_zeros(self.dim)
            for steps, there, row in zip(vectors, places, rows, strict=True)
        ]

    def vector(self, values, row):
        if not self.is_sequence:
            return self.spatial(values)
        places = torch.nonzero(~values.flatten(1).isnan().any(1)).flatten()
        steps = values[places]
        if len(places) == 0 and not isinstance(self.temporal, TransformerOverTime):
            return values.new_zeros(self.dim)
        if hasattr(self, "spatial"):
            maps = [self.spatial(step) for step in steps]
            steps = torch.stack(maps) if maps else values.new_zeros(0, self.spatial.dim)
        return self.temporal(steps, places.tolist(), row)


class MeanOfMap(nn.Module):
    def __init__(self, spec, shape):
        super().__init__()
        self.dim = shape[0]

    def forward(self, image):
        return image.mean((1, 2))


class AttentionPool(nn.Module):
    def __init__(self, spec, dim, *_):
        super().__init__()
        self.dim, self.hidden, self.score = dim, nn.Linear(dim, spec.stem_width), nn.Linear(spec.stem_width, 1)

    def forward(self, tokens, *_):
        return (torch.softmax(self.score(torch.tanh(self.hidden(tokens))), dim=0) * tokens).sum(0)


class AttentionOfMap(nn.Module):
    def __init__(self, spec, shape):
        super().__init__()
        self.dim, self.pool = shape[0], AttentionPool(spec, shape[0])

    def forward(self, image):
        return self.pool(image.flatten(1).T)


class Patches(nn.Module):
    def __init__(self, spec, shape):
        super().__init__()
        self.dim = spec.stem_width * len(spec.patch_kernels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(shape[0], spec.stem_width, kernel, padding="same") for kernel in spec.patch_kernels
        )
        self.squeeze, self.excite = nn.Linear(self.dim, self.dim // 4), nn.Linear(self.dim // 4, self.dim)

    def forward(self, image):
        patches = torch.cat([torch.relu(conv(image)) for conv in self.convolutions])
        attention = torch.sigmoid(self.excite(torch.relu(self.squeeze(patches.mean((1, 2))))))
        return (patches * attention[:, None, None]).mean((1, 2))


class SmallCNN(nn.Module):
    def __init__(self, spec, shape):
        super().__init__()
        channels, *sides = shape
        widths = [channels, spec.stem_width // 2, spec.stem_width, 2 * spec.stem_width]
        self.convolutions = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 3, padding="same") for i in range(3))
        self.in_batch = spec.stem_norm == "batch"
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width) if self.in_batch else nn.GroupNorm(math.gcd(width, 8), width) for width in widths[1:]
        )
        for _ in range(3):
            sides = [side // 2 for side in sides] if min(sides) >= 2 else sides
        self.grid = [min(3, side) for side in sides]
        self.dim = widths[-1] * math.prod(self.grid)

    def forward(self, image):
        return self.of_all(image.unsqueeze(0))[0]

    def of_all(self, values):
        """Vectors (n, dim) of images (n, C, H, W), which a batch norm sees together."""
        for conv, norm in zip(self.convolutions, self.norms, strict=True):
            values = torch.relu(norm(conv(values)))
            if min(values.shape[2:]) >= 2:
                values = functional.max_pool2d(values, 2)
        return functional.adaptive_avg_pool2d(values, self.grid).flatten(1)


class MeanOverTime(nn.Module):
    def __init__(self, spec, dim, *_):
        super().__init__()
        self.dim = dim

    def forward(self, steps, *_):
        return steps.mean(0)


class MaxOverTime(MeanOverTime):
    def forward(self, steps, *_):
        return steps.amax(0)


class MeanAndDeviationOverTime(nn.Module):
    def __init__(self, spec, dim, *_):
        super().__init__()
        self.dim = 2 * dim

    def forward(self, steps, *_):
        variance = steps.var(0, correction=0)  # the derivative of a deviation of 0 would be infinite
        deviation = torch.where(variance > 1e-12, variance.clamp(min=1e-12).sqrt(), 0.0)
        return torch.cat([steps.mean(0), deviation])


class LSTM(nn.LSTM):
    def __init__(self, spec, dim, *_):
        super().__init__(dim, spec.stem_width)
        self.dim = spec.stem_width

    def forward(self, steps, *_):
        return super().forward(steps)[0][-1]


class GRU(nn.GRU):
    def __init__(self, spec, dim, *_):
        super().__init__(dim, spec.stem_width)
        self.dim = spec.stem_width

    def forward(self, steps, *_):
        return super().forward(steps)[0][-1]


class TransformerOverTime(nn.Module):
    def __init__(self, spec, dim, length, stream):
        super().__init__()
        self.dim = width = spec.stem_width
        self.input = nn.Linear(dim, width)
        self.asking, self.positions = nn.Module(), nn.Module()
        self.asking.weight = nn.Parameter(torch.zeros(width))
        self.positions.weight = nn.Parameter(torch.zeros(length * width))
        self.layers = nn.ModuleList(
            Transformer(width, 2 * width, math.gcd(width, 4), f"{stream}.temporal.{i}") for i in range(2)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, steps, places, row):
        positions = self.positions.weight.view(-1, self.dim)
        tokens = {"asking": self.asking.weight[None]}
        for step, place in zip(steps, places, strict=True):
            tokens[f"step {place}"] = (self.input(step) + positions[place])[None]
        for layer in self.layers:
            tokens = layer(tokens, [row])
        return self.norm(tokens["asking"])[0]


SPATIAL = {"mean": MeanOfMap, "attention": AttentionOfMap, "patches": Patches, "cnn": SmallCNN}
TEMPORAL = {
    "mean": MeanOverTime,
    "max": MaxOverTime,
    "mean_std": MeanAndDeviationOverTime,
    "attention": AttentionPool,
    "lstm": LSTM,
    "gru": GRU,
    "transformer": TransformerOverTime,
}
