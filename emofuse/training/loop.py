"""One head, trained: features stay on the device, the epoch is chosen on validation rows, test rows never come here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.errors import TrainingError
from emofuse.features import FeatureTable
from emofuse.heads.initial import named_generator
from emofuse.specs import TrainSpec
from emofuse.training.metrics import classification_metrics

EVAL_ROWS = 4096
OnEpoch = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Batch:
    """Rows on a device: a whole split, or the rows of one step.

    Attributes:
        features: stream -> (B, D) float32.
        valid: stream -> (B,) bool.
        labels: (B,) int64.
    """

    features: dict[str, Tensor]
    valid: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_table(cls, table: FeatureTable, device: torch.device) -> Self:
        """All rows of a table; on the CPU the features are shared with it, not copied."""
        return cls(
            features={name: torch.from_numpy(array).to(device) for name, array in table.features.items()},
            valid={name: torch.from_numpy(array).to(device) for name, array in table.valid.items()},
            labels=torch.from_numpy(table.labels).to(device),
        )

    def take(self, rows: Tensor | slice) -> Batch:
        """Some of the rows, by index on the same device or by slice."""
        return Batch(
            {name: tensor[rows] for name, tensor in self.features.items()},
            {name: tensor[rows] for name, tensor in self.valid.items()},
            self.labels[rows],
        )


@dataclass(frozen=True)
class Training:
    """What `train_head` leaves besides the head's weights.

    Attributes:
        history: one entry an epoch: {epoch, train_loss, val_loss, val_accuracy, val_macro_f1}. `train_loss` is what was
            minimised (with label smoothing and dropout), `val_loss` plain cross-entropy.
        best_epoch: the epoch whose weights the head holds, counted from 1.
    """

    history: list[dict[str, float | int]]
    best_epoch: int


def resolve_device(device: str) -> torch.device:
    """`auto` is the current CUDA device where there is one, else the CPU.

    Raises:
        TrainingError: a device that torch does not know or does not see.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    name, _, number = device.partition(":")
    if device != "cpu" and (name != "cuda" or not (number.isdecimal() or device == "cuda")):
        raise TrainingError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N")
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count():
        raise TrainingError(f"device {device!r} was asked for, but torch sees no such CUDA device; use cpu or auto")
    return torch.device("cuda", int(number) if number else torch.cuda.current_device())


def check_rows(rows: Mapping[str, int]) -> None:
    """Raises unless every split given has a row.

    Raises:
        TrainingError: naming the splits that have none.
    """
    why = {"train": "to learn from", "val": "to choose the epoch on", "test": "to report on"}
    lacking = [f"{split!r} ({why[split]})" for split, count in rows.items() if count == 0]
    if lacking:
        raise TrainingError(
            f"no labelled row has split {' nor '.join(lacking)}. Give the dataset such rows, or have its labels split "
            "anew: `split: {kind: stratified}` in a pipeline, `--split stratified` on the command line"
        )


def train_head(
    head: nn.Module,
    train: FeatureTable,
    val: FeatureTable,
    spec: TrainSpec,
    device: torch.device,
    *,
    on_epoch: OnEpoch | None = None,
) -> Training:
    """Trains a head in place and leaves it on the device, in evaluation mode, with the weights of its best epoch.

    The best epoch has the highest macro F1 or accuracy, or the lowest loss, on validation rows (`spec.select`); equal
    scores go to the lower validation loss, equal losses to the earlier epoch. Same head, rows, spec and machine give
    the same bits: the order of rows and the dropout have random numbers of their own, and the global random state is
    as it was afterwards.

    Args:
        head: called as `head(features, valid) -> logits (B, C)`.
        train: standardised training rows.
        val: standardised validation rows.
        spec: optimisation.
        device: where to train.
        on_epoch: is given each epoch's entry of the history.

    Raises:
        TrainingError: no rows, one class only, or a loss that is not finite.
    """
    check_rows({"train": len(train), "val": len(val)})
    _check_labels(train)
    head.to(device)
    rows, held_out = Batch.from_table(train, device), Batch.from_table(val, device)
    optimizer = _make_optimizer(head, spec)
    shuffle = named_generator(spec.seed, "order of rows")
    history: list[dict[str, float | int]] = []
    best_score, best_epoch, best_weights = (-math.inf, -math.inf), 0, {}
    with _own_dropout_numbers(spec.seed, device):
        for epoch in range(1, spec.epochs + 1):
            train_loss = _train_epoch(head, rows, optimizer, spec, shuffle)
            entry = {"epoch": epoch, "train_loss": train_loss, **_validate(head, held_out, val)}
            _check_finite(entry, spec)
            history.append(entry)
            if on_epoch is not None:
                on_epoch(entry)
            if _score(entry, spec) > best_score:
                best_score, best_epoch = _score(entry, spec), epoch
                best_weights = {name: tensor.clone() for name, tensor in head.state_dict().items()}
            elif spec.patience is not None and epoch - best_epoch >= spec.patience:
                break
    head.load_state_dict(best_weights)
    head.eval()
    return Training(history, best_epoch)


@torch.no_grad()
def predict_probs(head: nn.Module, rows: Batch) -> npt.NDArray[np.float32]:
    """Softmax of a head in evaluation mode, (n, C) float32; the head is left in that mode."""
    head.eval()
    parts = [rows.take(slice(start, start + EVAL_ROWS)) for start in range(0, len(rows), EVAL_ROWS)]
    probs = [functional.softmax(head(part.features, part.valid), dim=1).cpu() for part in parts]
    result: npt.NDArray[np.float32] = torch.cat(probs).numpy()
    return result


def epoch_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Every row once, in a new order, as index tensors on the CPU.

    The last batch may be smaller. One row alone has no batch statistics, so it joins the batch before it.
    """
    order = torch.randperm(count, generator=generator)
    start = 0
    while start < count:
        stop = start + batch_size
        if stop + 1 >= count:
            stop = count
        yield order[start:stop]
        start = stop


def _train_epoch(
    head: nn.Module, rows: Batch, optimizer: torch.optim.Optimizer, spec: TrainSpec, shuffle: torch.Generator
) -> float:
    """One pass over the training rows; the mean loss a row. The device is waited for once, at the end."""
    head.train()
    total = torch.zeros((), device=rows.labels.device)
    for order in epoch_batches(len(rows), spec.batch_size, shuffle):
        batch = rows.take(order.to(rows.labels.device, non_blocking=True))
        logits = head(batch.features, batch.valid)
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=spec.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * len(batch)
    return float(total) / len(rows)


def _validate(head: nn.Module, rows: Batch, table: FeatureTable) -> dict[str, float]:
    probs = predict_probs(head, rows)
    metrics = classification_metrics(table.labels, probs, table.classes)
    loss = metrics["loss"] if np.isfinite(probs).all() else math.nan
    return {"val_loss": loss, "val_accuracy": metrics["accuracy"], "val_macro_f1": metrics["macro"]["f1"]}


def _make_optimizer(head: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if spec.optimizer == "adam" else torch.optim.AdamW
    # Fused: one pass over the weights a step; they are many and a step is short.
    return kind(head.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)


def _score(entry: Mapping[str, float], spec: TrainSpec) -> tuple[float, float]:
    """Larger is better; the second number decides between equal first ones."""
    chosen_by = -entry["val_loss"] if spec.select == "loss" else entry[f"val_{spec.select}"]
    return chosen_by, -entry["val_loss"]


@contextmanager
def _own_dropout_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from the global generators: they are seeded here and put back afterwards."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        generator = torch.cuda.default_generators[device.index] if on_gpu else torch.default_generator
        generator.manual_seed(named_generator(seed, "dropout").initial_seed())
        yield


def _check_labels(train: FeatureTable) -> None:
    found = np.unique(train.labels)
    if len(found) == 1:
        raise TrainingError(
            f"all {len(train)} training rows are labelled {train.classes[found[0]]!r}: a head needs at least two labels"
        )


def _check_finite(entry: Mapping[str, float], spec: TrainSpec) -> None:
    for name in ("train_loss", "val_loss"):
        if not math.isfinite(entry[name]):
            raise TrainingError(
                f"{name} is {entry[name]} in epoch {entry['epoch']} with learning_rate {spec.learning_rate:g}: "
                "the training diverged. Lower the learning rate"
            )
