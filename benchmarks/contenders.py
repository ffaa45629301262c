"""Train the same heads on the same rows in common ways and by `train_group`, timed alike.

Every contender trains for some epochs, scores its heads on the fold's validation rows after each and keeps the weights
of the best epoch. The clock runs from the end of the first epoch to the end of the last: work that is done once (for
memory, workers, graphs, a copy of the table) hardly counts in the 30 or 100 epochs of a real run, but would in the few
epochs of a measurement.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.synthetic import CLASSES, Synthetic
from emofuse.heads import load_head_weights
from emofuse.heads.members import HeadBatch
from emofuse.specs import ConcatHeadSpec, TrainSpec
from emofuse.training.engine import train_group
from emofuse.training.machine import Machine
from emofuse.training.members import Fold, Member
from emofuse.training.validation import predict_outputs

SCORED = 4
"""The heads of a contender whose accuracy is measured on all validation rows; they differ only in their seeds."""
EVAL_ROWS = 4096

Rows = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """A head, a batch, and how much of it one measurement trains.

    Attributes:
        embed_dim: of the head.
        width: of its hidden layers.
        batch_size: rows of a step.
        train_rows: rows of an epoch of the measurement.
        heads: the number of heads of contenders that train several at the same time.
        alone: the number of heads of contenders that train one after another.
        depth: hidden layers.
        epochs: of the measurement; the first is not timed.
        learning_rate: higher than the paper's, so that a short measurement learns something.
    """

    embed_dim: int
    width: int
    batch_size: int
    train_rows: int
    heads: int
    alone: int = 1
    depth: int = 2
    epochs: int = 3
    learning_rate: float = 1e-3

    @property
    def head(self) -> ConcatHeadSpec:
        """The spec of the head in emofuse."""
        return ConcatHeadSpec(embed_dim=self.embed_dim, depth=self.depth, width=self.width)


@dataclass(frozen=True)
class Work:
    """The inputs of all contenders."""

    data: Synthetic
    shape: Shape
    device: torch.device
    hdf5: Path

    @cached_property
    def fold(self) -> Fold:
        """The rows of the measurement."""
        return self.data.fold(self.shape.train_rows)

    @cached_property
    def features(self) -> Rows:
        """The table on the device. Its columns are about standardised: a plain loop reads them as they are."""
        return {stream: tensor.to(self.device) for stream, tensor in self.data.table.features.items()}

    @cached_property
    def labels(self) -> Tensor:
        """(N,) on the device."""
        return self.data.table.labels.to(self.device)

    @property
    def dims(self) -> dict[str, int]:
        """Stream -> D."""
        return {stream: dim for stream, (dim,) in self.data.table.dims.items()}


@dataclass(frozen=True)
class Trained:
    """The result of a contender.

    Attributes:
        heads: the number of heads that it trained.
        seconds: the time of the epochs that count, of all heads.
        rows: the number of rows that each head was trained on in these epochs.
        parameters: the number of parameters of one head.
        accuracies: those of the first `SCORED` heads on all validation rows; empty if not scored.
    """

    heads: int
    seconds: float
    rows: int
    parameters: int
    accuracies: tuple[float, ...]

    @property
    def rows_per_s(self) -> float:
        """Rows times heads a second."""
        return self.heads * self.rows / self.seconds


@dataclass
class Clock:
    """A clock that runs from the end of the first epoch to the end of the last."""

    ends: list[float] = field(default_factory=list)

    def epoch_done(self) -> None:
        """Record the end of an epoch, when the device is done."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """The seconds of the epochs that count."""
        return self.ends[-1] - self.ends[0]


class PlainHead(nn.Module):
    """The paper's head in plain PyTorch."""

    def __init__(self, shape: Shape, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.embed = nn.ModuleDict({s: nn.Linear(d, shape.embed_dim, bias=False) for s, d in dims.items()})
        self.norm = nn.ModuleDict({s: nn.BatchNorm1d(shape.embed_dim) for s in dims})
        layers: list[nn.Module] = [nn.Linear(shape.embed_dim * len(dims), shape.width)]
        for _ in range(shape.depth - 1):
            layers += [nn.ReLU(), nn.Linear(shape.width, shape.width)]
        self.hidden = nn.Sequential(*layers, nn.ReLU(), nn.Linear(shape.width, CLASSES))

    def forward(self, features: Rows) -> Tensor:
        """Return logits (B, C) of stream -> (B, D)."""
        embedded = [self.norm[stream](self.embed[stream](rows)) for stream, rows in features.items()]
        logits: Tensor = self.hidden(torch.cat(embedded, dim=1))
        return logits


def dataloader_hdf5(work: Work, *, workers: int, score: bool) -> Trained:
    """(a) Train one head after another on rows from a DataLoader over an HDF5 file."""
    shape = work.shape
    on_cuda = work.device.type == "cuda"
    # Workers stay from epoch to epoch: their start hardly counts in a whole epoch, but would in a short one.
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": on_cuda}
    train_rows = Hdf5Rows(work.hdf5, work.fold.train, tuple(work.dims))
    val_rows = Hdf5Rows(work.hdf5, work.fold.val, tuple(work.dims))
    train = DataLoader(train_rows, batch_size=shape.batch_size, shuffle=True, **options)
    val = DataLoader(val_rows, batch_size=shape.batch_size, **options)

    def there(loader: DataLoader[Any]) -> Iterable[tuple[Rows, Tensor]]:
        for features, labels in loader:
            on_device = {stream: rows.to(work.device, non_blocking=True) for stream, rows in features.items()}
            yield on_device, labels.to(work.device, non_blocking=True)

    def one(seed: int) -> tuple[float, PlainHead]:
        torch.manual_seed(seed)
        head = PlainHead(shape, work.dims).to(work.device)
        optimizer = torch.optim.Adam(head.parameters(), lr=shape.learning_rate)
        return train_plainly(head, optimizer, shape.epochs, lambda: there(train), lambda: there(val)), head

    return _one_after_another(work, one, score=score)


def plain_loop(work: Work, *, fused: bool, score: bool) -> Trained:
    """(b) Train one head after another on tensors in memory."""
    shape, device = work.shape, work.device
    train, val = (torch.from_numpy(rows).to(device) for rows in (work.fold.train, work.fold.val))

    def batches(rows: Tensor, size: int) -> Iterable[tuple[Rows, Tensor]]:
        for batch in rows.split(size):
            yield {stream: table[batch] for stream, table in work.features.items()}, work.labels[batch]

    def one(seed: int) -> tuple[float, PlainHead]:
        torch.manual_seed(seed)
        head = PlainHead(shape, work.dims).to(device)
        optimizer = torch.optim.Adam(head.parameters(), lr=shape.learning_rate, fused=fused)
        shuffled = lambda: batches(train[torch.randperm(len(train), device=device)], shape.batch_size)  # noqa: E731
        return train_plainly(head, optimizer, shape.epochs, shuffled, lambda: batches(val, EVAL_ROWS)), head

    return _one_after_another(work, one, score=score)


def train_plainly(
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    train: Callable[[], Iterable[tuple[Rows, Tensor]]],
    val: Callable[[], Iterable[tuple[Rows, Tensor]]],
) -> float:
    """Train by the usual loop, and leave the best weights in the head.

    Returns:
        The seconds of the epochs that count.
    """
    clock, best, best_accuracy = Clock(), {}, -1.0
    for _ in range(epochs):
        head.train()
        for features, labels in train():
            loss = functional.cross_entropy(head(features), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        head.eval()
        with torch.no_grad():
            right = torch.cat([head(features).argmax(1) == labels for features, labels in val()])
        accuracy = right.double().mean().item()
        if accuracy > best_accuracy:
            best, best_accuracy = copy.deepcopy(head.state_dict()), accuracy
        clock.epoch_done()
    head.load_state_dict(best)
    return clock.seconds


def _one_after_another(work: Work, one: Callable[[int], tuple[float, PlainHead]], *, score: bool) -> Trained:
    trained = [one(seed) for seed in range(work.shape.alone)]
    heads = [head for _, head in trained]
    return Trained(
        len(heads),
        sum(seconds for seconds, _ in trained),
        _rows_timed(work),
        parameters_of(heads[0]),
        tuple(accuracy_of(work, head) for head in heads[:SCORED]) if score else (),
    )


def summed_losses(work: Work, *, fused: bool, score: bool) -> Trained:
    """(c) Train K heads on each batch by the sum of their losses, as DINOv2 evaluates its linear heads."""
    shape, device = work.shape, work.device
    heads = nn.ModuleList()
    for seed in range(shape.heads):
        torch.manual_seed(seed)
        heads.append(PlainHead(shape, work.dims).to(device))
    optimizer = torch.optim.Adam(heads.parameters(), lr=shape.learning_rate, fused=fused)
    train, val = (torch.from_numpy(rows).to(device) for rows in (work.fold.train, work.fold.val))
    clock = Clock()
    best: list[dict[str, Tensor]] = [{} for _ in heads]
    best_accuracy = [-1.0] * len(heads)
    for _ in range(shape.epochs):
        heads.train()
        for batch in train[torch.randperm(len(train), device=device)].split(shape.batch_size):
            features = {stream: table[batch] for stream, table in work.features.items()}
            labels = work.labels[batch]
            loss = torch.stack([functional.cross_entropy(head(features), labels) for head in heads]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        heads.eval()
        right = torch.zeros(len(heads), dtype=torch.float64, device=device)
        with torch.no_grad():
            for batch in val.split(EVAL_ROWS):
                features = {stream: table[batch] for stream, table in work.features.items()}
                right += torch.stack([(head(features).argmax(1) == work.labels[batch]).sum() for head in heads])
        for index, accuracy in enumerate((right / len(val)).tolist()):
            if accuracy > best_accuracy[index]:
                best[index], best_accuracy[index] = copy.deepcopy(heads[index].state_dict()), accuracy
        clock.epoch_done()
    for head, weights in zip(heads, best, strict=True):
        head.load_state_dict(weights)
    scored = tuple(accuracy_of(work, head) for head in heads[:SCORED]) if score else ()
    return Trained(len(heads), clock.seconds, _rows_timed(work), parameters_of(heads[0]), scored)


def sklearn_mlp(work: Work, *, score: bool) -> Trained:
    """(d) Train scikit-learn's MLPClassifier, one head on all features side by side.

    Its first layer sees all streams at once, so it has no layer a stream, no batch norm, and fewer weights. One call of
    `partial_fit` is one epoch; it is not scored in between.
    """
    from sklearn.neural_network import MLPClassifier

    shape, table = work.shape, work.data.table
    features = [tensor.numpy() for tensor in table.features.values()]

    def side_by_side(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.concatenate([array[rows] for array in features], axis=1)

    train, labels = side_by_side(work.fold.train), table.labels.numpy()
    head = MLPClassifier(
        (shape.embed_dim, *[shape.width] * shape.depth),
        batch_size=shape.batch_size,
        learning_rate_init=shape.learning_rate,
        alpha=0.0,
        random_state=0,
    )
    clock = Clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(shape.epochs):
            head.partial_fit(train, labels[work.fold.train], classes=np.arange(CLASSES))
            clock.epoch_done()
    val = work.data.val
    scored = (float((head.predict(side_by_side(val)) == labels[val]).mean()),) if score else ()
    parameters = sum(array.size for array in (*head.coefs_, *head.intercepts_))
    return Trained(1, clock.seconds, _rows_timed(work), parameters, scored)


def emofuse_group(work: Work, *, products: torch.dtype | None, graphs: bool = False, score: bool) -> Trained:
    """(e) Train by `train_group`."""
    shape, clock = work.shape, Clock()
    results = train_group(
        work.data.table,
        [work.fold],
        [member_of(shape, tuple(work.dims), seed) for seed in range(shape.heads)],
        Machine(work.device, products=products, graphs=graphs),
        on_epoch=lambda *_: clock.epoch_done(),
    )
    heads = [load_head_weights(shape.head, work.dims, CLASSES, result.weights) for result in results[:SCORED]]
    scored = tuple(_accuracy_of_engine(work, head.to(work.device)) for head in heads) if score else ()
    return Trained(shape.heads, clock.seconds, _rows_timed(work), parameters_of(heads[0]), scored)


def member_of(shape: Shape, streams: Sequence[str], seed: int) -> Member:
    """Return one head for the engine."""
    train = TrainSpec(
        epochs=shape.epochs,
        batch_size=shape.batch_size,
        learning_rate=shape.learning_rate,
        select="accuracy",
        seed=seed,
    )
    return Member(tuple(streams), shape.head, train)


def parameters_of(head: nn.Module) -> int:
    """Return the number of trainable parameters of a head."""
    return sum(tensor.numel() for tensor in head.parameters())


@torch.no_grad()
def accuracy_of(work: Work, head: nn.Module) -> float:
    """Return the accuracy of a plain head on all validation rows."""
    head.eval()
    right = 0
    for rows in torch.from_numpy(work.data.val).to(work.device).split(EVAL_ROWS):
        features = {stream: table[rows] for stream, table in work.features.items()}
        right += int((head(features).argmax(1) == work.labels[rows]).sum())
    return right / len(work.data.val)


def _accuracy_of_engine(work: Work, head: nn.Module) -> float:
    right, table = 0, work.data.table
    for rows in torch.from_numpy(work.data.val).split(EVAL_ROWS):
        features, valid = {}, {}
        for stream, tensor in table.features.items():
            ones = torch.ones(len(rows), dtype=torch.bool)
            scaled = work.data.scaling[stream].apply(tensor[rows].numpy(), ones.numpy())
            features[stream] = torch.from_numpy(scaled).unsqueeze(0).to(work.device)
            valid[stream] = ones.unsqueeze(0).to(work.device)
        right += int(
            (predict_outputs(head, HeadBatch(features, valid))[0].argmax(1) == table.labels[rows].numpy()).sum()
        )
    return right / len(work.data.val)


def _rows_timed(work: Work) -> int:
    return (work.shape.epochs - 1) * len(work.fold.train)


class Hdf5Rows(Dataset[tuple[dict[str, npt.NDArray[Any]], int]]):
    """Rows of a file with one dataset a stream. Each worker opens it, since a handle must not be shared."""

    def __init__(self, path: Path, rows: npt.NDArray[np.int64], streams: Sequence[str]) -> None:
        self._path = path
        self._rows = rows
        self._streams = streams
        self._file: h5py.File | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[dict[str, npt.NDArray[Any]], int]:
        if self._file is None:
            self._file = h5py.File(self._path, "r")
            self._open = {stream: self._file[stream] for stream in (*self._streams, "labels")}
        row = self._rows[index]
        return {stream: self._open[stream][row] for stream in self._streams}, int(self._open["labels"][row])


def write_hdf5(data: Synthetic, path: Path) -> None:
    """Write the table as HDF5: one dataset a stream, float32, as the array lies in memory."""
    with h5py.File(path, "w") as file:
        for stream, tensor in data.table.features.items():
            file.create_dataset(stream, data=tensor.numpy())
        file.create_dataset("labels", data=data.table.labels.numpy())
