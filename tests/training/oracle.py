"""The oracle: one head, one plain PyTorch loop, written for the eye. The engine must do the same for every member.

Nothing here is batched over heads or masked: rows without a stream are left out and put back, streams that a head
lacks do not exist, and a fold's rows are picked out of each batch. Only the names of random numbers are the engine's.
"""

from __future__ import annotations

import math
import re
from functools import partial
from itertools import pairwise

import numpy as np
import scipy.stats
import torch
from oracle_layers import Dropout, Stem, Transformer
from oracle_targets import Lesson, logits_of, outputs_of
from torch import nn
from torch.nn import functional

from emofuse.heads.dropout import OFFSETS, named_generator, noise_offset
from emofuse.heads.members import key_of
from emofuse.metrics.classification import classification_metrics

# ------------------------------------------------------------------------------------------------------------- heads


class Embedding(nn.Module):
    """Project and normalise the rows that have the stream; the others get a learned vector."""

    def __init__(self, spec, stream, shape, embed_dim, norm=True):
        super().__init__()
        if len(shape) > 1:
            self.stem = Stem(spec, stream, shape)
        self.dim = shape[0] if len(shape) == 1 else self.stem.dim
        self.linear = nn.Linear(self.dim, embed_dim, bias=False)
        self.norm = nn.BatchNorm1d(embed_dim) if norm else None
        self.missing = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, x, valid):
        vectors = self.stem(x[valid], torch.nonzero(valid).flatten()) if hasattr(self, "stem") else x[valid]
        projected = self.linear(vectors)
        if self.norm is None:
            normed = projected
        elif self.training and len(projected) < 2:  # no variance: the running statistics serve
            norm = self.norm
            normed = functional.batch_norm(projected, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        else:
            normed = self.norm(projected)
        out = self.missing.expand(len(x), -1).clone()
        out[valid] = normed
        return out


class Hidden(nn.Module):
    def __init__(self, widths, place):
        super().__init__()
        pairs = list(pairwise(widths))
        self.dropout, self.place = Dropout(), place
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)

    def forward(self, x):
        for i, linear in enumerate(self.linear):
            x = linear(self.dropout(torch.relu(x), f"{self.place}.{i}"))
        return x


class Concat(nn.Module):
    def __init__(self, spec, dims, classes):
        super().__init__()
        widths = [spec.width] * spec.depth + [classes]
        self.embeddings = embeddings_of(spec, dims)
        self.join = nn.Linear(spec.embed_dim * len(dims), widths[0])
        self.hidden = Hidden(widths, "hidden")

    def forward(self, x, valid):
        return self.hidden(self.join(torch.cat(embed(self, x, valid), dim=1)))


class Linear(nn.Module):
    def __init__(self, spec, dims, classes):
        super().__init__()
        self.embeddings = nn.ModuleDict({key_of(s): Embedding(spec, s, d, classes, False) for s, d in dims.items()})
        self.bias = nn.Module()
        self.bias.weight = nn.Parameter(torch.zeros(classes))

    def forward(self, x, valid):
        return self.bias.weight + sum(embed(self, x, valid))


class Gated(nn.Module):
    def __init__(self, spec, dims, classes):
        super().__init__()
        widths = [spec.width] * spec.depth + [classes]
        self.embeddings = embeddings_of(spec, dims)
        self.context = nn.Linear(spec.embed_dim * len(dims), spec.gate_dim)
        self.gates = nn.ModuleDict({key_of(s): nn.Linear(spec.gate_dim, 1) for s in dims})
        self.join = nn.Linear(spec.embed_dim * len(dims), widths[0])
        self.hidden = Hidden(widths, "hidden")

    def forward(self, x, valid):
        embeddings = embed(self, x, valid)
        context = torch.tanh(self.context(torch.cat(embeddings, dim=1)))
        gated = [e * torch.sigmoid(gate(context)) for e, gate in zip(embeddings, self.gates.values(), strict=True)]
        return self.hidden(self.join(torch.cat(gated, dim=1)))


class Late(nn.Module):
    kind = "class"

    def __init__(self, spec, dims, classes):
        super().__init__()
        widths = [spec.width] * spec.depth + [classes]
        self.embeddings = embeddings_of(spec, dims)
        self.heads = nn.ModuleDict({key_of(s): nn.Module() for s in dims})
        for stream in dims:
            own = self.heads[key_of(stream)]
            own.first = nn.Linear(spec.embed_dim, widths[0])
            own.hidden = Hidden(widths, f"{stream}.hidden")
            own.log_weight = nn.Parameter(torch.zeros(()))
        self.nothing = nn.Module()
        self.nothing.weight = nn.Parameter(torch.zeros(classes))

    def forward(self, x, valid):
        probs, weights = [], []
        for embedding, stream in zip(embed(self, x, valid), x, strict=True):
            own = self.heads[key_of(stream)]
            probs.append(outputs_of(self.kind, own.hidden(own.first(embedding))))
            weights.append(own.log_weight.exp() * mixed(self, valid[stream].to(embedding.dtype)))
        rows = []
        for row in range(len(probs[0])):
            total = sum(w[row] for w in weights)
            if total > 0:
                rows.append(sum(w[row] * p[row] for w, p in zip(weights, probs, strict=True)) / total)
            else:
                rows.append(outputs_of(self.kind, self.nothing.weight))
        return logits_of(self.kind, torch.stack(rows))


class Attention(nn.Module):
    def __init__(self, spec, dims, classes):
        super().__init__()
        dim = spec.embed_dim
        self.embeddings = embeddings_of(spec, dims)
        self.asking, self.names = nn.Module(), nn.ModuleDict({key_of(s): nn.Module() for s in dims})
        for part in (self.asking, *self.names.values()):
            part.weight = nn.Parameter(torch.zeros(dim))
        self.layers = nn.ModuleList(
            Transformer(dim, spec.width, spec.attention_heads, f"layers.{i}") for i in range(spec.depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, classes)

    def forward(self, x, valid):
        tokens = {"asking": self.asking.weight.expand(len(next(iter(x.values()))), -1)}
        for stream, embedding in zip(x, embed(self, x, valid), strict=True):
            tokens[f"stream {stream}"] = embedding + self.names[key_of(stream)].weight
        for layer in self.layers:
            tokens = layer(tokens)
        return self.output(self.norm(tokens["asking"]))


HEADS = {"concat": Concat, "linear": Linear, "gated": Gated, "late": Late, "attention": Attention}


def embeddings_of(spec, dims):
    return nn.ModuleDict({key_of(s): Embedding(spec, s, shape, spec.embed_dim) for s, shape in dims.items()})


def embed(head, x, valid):
    return [mixed(head, head.embeddings[key_of(stream)](x[stream], valid[stream])) for stream in x]


def mixed(head, values):
    """In training with mixup: every row with its partner."""
    if not head.training or head.run.partners is None:
        return values
    return head.run.lam * values + (1 - head.run.lam) * values[head.run.partners]


# ----------------------------------------------------------------------------------- names and beginnings of weights


def engine_weights(head, streams):
    """A copy of all weights under the engine's names: `join` and `context` cut into one part a stream."""
    named = {}
    for plain_name, tensor in head.state_dict().items():
        name = engine_name(plain_name)
        layer, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            continue
        if layer not in ("join", "context"):
            named[name] = tensor.clone()
        elif kind == "bias":
            named[f"{layer}.bias.weight"] = tensor.clone()
        else:
            parts = tensor.chunk(len(streams), dim=1)
            named |= {f"{layer}.{key_of(s)}.weight": part.clone() for s, part in zip(streams, parts, strict=True)}
    return named


def engine_name(name):
    """The engine calls the two layers of an LSTM or GRU `input` and `state`."""
    path, _, kind = name.rpartition(".")
    parts = re.fullmatch("(weight|bias)_(ih|hh)_l0", kind)
    return f"{path}.{ {'ih': 'input', 'hh': 'state'}[parts[2]] }.{parts[1]}" if parts else name


@torch.no_grad()
def begin(head, streams, seed):
    """Uniform in +-1/sqrt(inputs), from a generator named after the tensor."""

    def numbers(name, shape, inputs):
        bound = inputs**-0.5
        return torch.rand(shape, generator=named_generator(seed, name)) * (2 * bound) - bound

    for path, layer in head.named_modules():
        if path in ("join", "context"):
            out, inputs = layer.weight.shape
            parts = [numbers(f"{path}.{key_of(s)}.weight", (out, inputs // len(streams)), inputs) for s in streams]
            layer.weight.copy_(torch.cat(parts, dim=1))
            layer.bias.copy_(numbers(f"{path}.bias.weight", (out,), inputs))
            continue
        inputs = inputs_of(head, path, layer)
        if inputs is not None:
            for name, tensor in layer.named_parameters(prefix=path, recurse=False):
                tensor.copy_(numbers(engine_name(name), tensor.shape, inputs))


def inputs_of(head, path, layer):
    """The number of inputs by which a layer starts, None for one that starts with ones or zeros."""
    parent, _, name = path.rpartition(".")
    match layer:
        case nn.Linear():
            return layer.in_features
        case nn.Conv2d():
            return layer.in_channels * layer.kernel_size[0] ** 2
        case nn.LSTM() | nn.GRU():
            return layer.hidden_size
    if path == "bias":
        return sum(embedding.dim for embedding in head.embeddings.values())
    if name == "positions":
        return head.get_submodule(parent).dim
    return len(layer.weight) if name == "asking" or parent == "names" else None


# --------------------------------------------------------------------------------------------------------- the loop


class Run:
    """What dropout and mixup ask for."""

    step, partners, lam = 0, None, 1.0

    def numbers(self, place, count):
        """The member's part of the noise of a place of which each row has `count` numbers."""
        generator = named_generator(self.order_seed, f"dropout {self.step} {place}")
        return torch.rand(self.largest_batch * count + OFFSETS, generator=generator)[noise_offset(self.seed) :]

    def draw_mixture(self, alpha, rows):
        """The partner of each of the rows, and one lambda from Beta(alpha, alpha) by its quantiles."""
        if alpha == 0:
            return
        self.partners = torch.argsort(self.numbers("mixup partners", 1)[:rows])
        part = int(self.numbers("mixup share", 0)[0] * 4096)
        self.lam = float(scipy.stats.beta.ppf((part + 0.5) / 4096, alpha, alpha))


def cut(order, batch_size):
    """Batches of an epoch; one row alone joins the batch before it."""
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = np.concatenate([batches[-1], last])
    return batches


def draw_evenly(balance, own, table, generator):
    """The (view, row) of all draws of an epoch: as many of each label, or one more."""
    labels = table.labels[own].tolist()
    present = sorted(set(labels))
    wanted = [len(own) // len(present)] * len(present)
    for place in torch.randperm(len(present), generator=generator)[: len(own) % len(present)]:
        wanted[place] += 1
    drawn = []
    for label, count in zip(present, wanted, strict=True):
        rows = [row for row, of_row in zip(own.tolist(), labels, strict=True) if of_row == label]
        if balance == "sampling":
            chosen = torch.randint(len(rows), (count,), generator=generator).tolist()
            shown = (
                torch.randint(table.views, (count,), generator=generator).tolist() if table.views > 1 else [0] * count
            )
            drawn += [(view, rows[place]) for view, place in zip(shown, chosen, strict=True)]
            continue
        of_label = [(0, rows[place]) for place in torch.randperm(len(rows), generator=generator)]
        copies = [(view, row) for view in range(1, table.views) for row in rows]
        while len(of_label) < count:
            of_label += [copies[place] for place in torch.randperm(len(copies), generator=generator)]
        drawn += of_label[:count]
    return [drawn[place] for place in torch.randperm(len(drawn), generator=generator)]


def class_weights(kind, counts):
    """Weights whose mean over the rows is 1; a class without rows gets 1."""
    if kind == "none":
        return np.ones(len(counts))
    weight = {"balanced": lambda n: 1 / n, "sqrt": lambda n: n**-0.5, "effective": lambda n: 0.001 / (1 - 0.999**n)}
    raw = [weight[kind](n) if n else 0 for n in counts]
    mean = sum(n * w for n, w in zip(counts, raw, strict=True)) / sum(counts)
    return np.array([w / mean if n else 1 for n, w in zip(counts, raw, strict=True)])


def seen_streams(valid, run, share):
    """What is seen of each row: each stream is lost with probability `share`, but not the one that drew most."""
    seen = {stream: there.clone() for stream, there in valid.items()}
    for row in range(len(next(iter(valid.values())))):
        drawn = {
            stream: torch.rand(
                run.largest_batch + OFFSETS,
                generator=named_generator(run.order_seed, f"dropout {run.step} stream dropout {stream}"),
            )[noise_offset(run.seed) + row]
            for stream, there in valid.items()
            if share and there[row]
        }
        for stream, number in drawn.items():
            seen[stream][row] = number >= share or number == max(drawn.values())
    return seen


def rate_at(step, train, total):
    """What the learning rate of a step is multiplied by."""
    rising = round(train.warmup * total)
    if step < rising:
        return (step + 1) / rising
    if train.schedule == "cosine":
        return math.cos((step - rising) / (total - rising) * math.pi) / 2 + 0.5
    return 1.0


def train_alone(table, folds, member, dtype=torch.float64):
    """One member, alone.

    Returns:
        best weights under the engine's names, history, best epoch, last epoch, why it ended.
    """
    fold, train = folds[member.fold], member.train
    x, valid = {}, {}
    for stream in member.streams:
        scaling = fold.scaling[stream]
        shape = table.features[stream].shape[1:]
        each = (-1, 1, 1) if len(shape) >= 3 else (-1,)  # of a channel, or of a feature
        center, scale, limit = (
            torch.from_numpy(part).to(dtype).view(each) for part in (scaling.center, scaling.scale, scaling.limit)
        )
        valid[stream] = table.valid[stream] & scaling.fitted
        x[stream] = ((table.features[stream].to(dtype) - center) / scale).clamp(-limit, limit)
        if stream in table.steps:
            x[stream][~table.steps[stream]] = torch.nan
    dims = {stream: tuple(table.features[stream].shape[1:]) for stream in member.streams}
    head = HEADS[member.head.kind](member.head, dims, table.classes)
    head.kind = table.target.kind
    begin(head, member.streams, train.seed)
    head.to(dtype)

    own = torch.from_numpy(np.sort(fold.train))
    run = Run()
    run.share, run.seed, run.order_seed = member.head.dropout, train.seed, train.order_seed
    run.stem_share = member.head.stem_dropout
    run.largest_batch = max(len(batch) for f in folds for batch in cut(f.train, train.batch_size))
    for layer in head.modules():
        layer.run = run

    branches = [list(own.parameters()) for own in head.embeddings.values()]
    inside = {id(p) for branch in branches for p in branch}
    rest = [p for p in head.parameters() if id(p) not in inside]
    kind = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": partial(torch.optim.RMSprop, alpha=0.9, eps=1e-7),
        "sgd": torch.optim.SGD,
    }[train.optimizer]
    groups = [{"params": params} for params in (*branches, rest)]
    optimizer = kind(groups, lr=train.learning_rate, weight_decay=train.weight_decay, foreach=False)
    smooth, norms, scales = None, [], []
    steps = max(len(cut(f.train, train.batch_size)) for f in folds)
    counts = np.array([(table.labels[fold.train] == c).sum().item() for c in range(table.classes)])
    weights = torch.tensor(class_weights(train.class_weights, counts), dtype=dtype)
    lesson = Lesson(table, fold, train, dtype)
    log_shares = torch.tensor(np.log(np.maximum(counts, 1) / len(fold.train)), dtype=dtype)
    averages, updates = {name: tensor.clone() for name, tensor in head.state_dict().items()}, 0

    order_name = f"order of rows{f', fold {member.fold}' if member.fold else ''}"
    shuffle = named_generator(train.order_seed, order_name)
    draws = named_generator(train.order_seed, f"{train.balance}, {order_name}")
    history, best, best_score, best_epoch = [], {}, (-math.inf, -math.inf), 0
    for epoch in range(1, train.epochs + 1):
        head.train()
        total, norms, scales = 0.0, [], []
        if train.balance == "none":
            places = own[torch.randperm(len(own), generator=shuffle)].numpy()
        else:
            drawn = draw_evenly(train.balance, own, table, draws)
            places = np.array([view * len(table.labels) + row for view, row in drawn])
        for number, batch in enumerate(cut(places, train.batch_size)):
            run.step, shown = (epoch - 1) * steps + number, torch.from_numpy(batch)
            rows = shown % len(table.labels)
            seen = seen_streams({s: valid[s][shown] for s in x}, run, train.stream_dropout)
            run.draw_mixture(train.mixup, len(rows))
            logits = head({s: x[s][shown] for s in x}, seen) + train.logit_adjustment * log_shares

            def loss_of(rows, logits=logits):
                if lesson.kind != "class":
                    return lesson.loss(logits, rows, weights)
                labels = table.labels[rows]
                losses = functional.cross_entropy(
                    logits, labels, reduction="none", label_smoothing=train.label_smoothing
                )
                unsure = 1 - torch.softmax(logits, dim=1)[range(len(rows)), labels]
                return (lesson.weights[rows] * weights[labels] * unsure**train.focal_gamma * losses).mean()

            loss = loss_of(rows)
            if train.mixup:
                loss = run.lam * loss + (1 - run.lam) * loss_of(rows[run.partners])
            for weight in head.parameters():  # one that no row of the batch uses has gradient zero, not none
                weight.grad = torch.zeros_like(weight)
            loss.backward()
            if train.gradient_balancing != "off":
                norm = [math.sqrt(sum(p.grad.square().sum().item() for p in branch)) for branch in branches]
                smooth = norm if smooth is None else [0.9 * s + 0.1 * n for s, n in zip(smooth, norm, strict=True)]
                scale = [min(4, max(0.25, np.mean(smooth) / s)) for s in smooth]
                if train.gradient_balancing == "monitor":
                    scale = [1.0] * len(scale)
                norms.append(norm)
                scales.append(scale)
            factors = scales[-1] if train.gradient_balancing == "on" else [1.0] * len(branches)
            for group, factor in zip(optimizer.param_groups, [*factors, 1.0], strict=True):
                group["lr"] = train.learning_rate * factor * rate_at(run.step, train, train.epochs * steps)
            if train.clip_norm:
                nn.utils.clip_grad_norm_(head.parameters(), train.clip_norm)
            optimizer.step()
            updates += 1
            decay = min(train.ema, (1 + updates) / (10 + updates))
            for name, tensor in head.state_dict().items():
                averages[name] = decay * averages[name] + (1 - decay) * tensor
            total += loss.item() * len(rows)

        head.eval()
        trained = {name: tensor.clone() for name, tensor in head.state_dict().items()}
        if train.ema:
            head.load_state_dict(averages)
        with torch.no_grad():
            for stream in x:  # where no training row lacks a stream, the mean embedding stands for it in other rows
                embedding = head.embeddings[key_of(stream)]
                untrained = valid[stream].view(table.views, -1)[:, fold.train].all() and not (
                    train.stream_dropout and len(x) > 1
                )
                if embedding.norm is not None and untrained:
                    embedding.missing.copy_(embedding.norm.bias)
            logits = head({s: x[s][fold.val] for s in x}, {s: valid[s][fold.val] for s in x})
        probs = torch.softmax(logits, dim=1).numpy()
        entry = {"epoch": epoch, "train_loss": total / len(own)}
        if not (math.isfinite(total) and np.isfinite(probs).all()):
            return best, history, best_epoch, epoch, "diverged"
        if lesson.kind == "class":
            names = [str(c) for c in range(table.classes)]
            metrics = classification_metrics(table.labels[fold.val].numpy(), probs, names)
            entry |= {"val_loss": metrics["loss"], "val_accuracy": metrics["accuracy"]}
            entry["val_macro_f1"] = metrics["macro"]["f1"]
        else:
            entry |= lesson.scores(logits, fold.val)
        if norms:
            entry["branch_norms"] = dict(zip(x, np.mean(norms, axis=0), strict=True))
            entry["branch_scales"] = dict(zip(x, np.mean(scales, axis=0), strict=True))
        history.append(entry)
        score = (-entry["val_loss"] if train.select == "loss" else entry[f"val_{train.select}"], -entry["val_loss"])
        if score > best_score:
            best, best_score, best_epoch = engine_weights(head, member.streams), score, epoch
        elif train.patience is not None and epoch - best_epoch >= train.patience:
            return best, history, best_epoch, epoch, "patience" if epoch < train.epochs else "epochs"
        if train.ema:
            head.load_state_dict(trained)
    return best, history, best_epoch, train.epochs, "epochs"
