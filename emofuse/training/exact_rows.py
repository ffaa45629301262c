"""The standardised rows of one fold for exact heads, and what several members need of them, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from emofuse.heads.links import invert_link
from emofuse.metrics.classification import classification_metrics
from emofuse.solvers.kernels import Kernel, StreamRows, stream_kernel
from emofuse.specs import KernelRidgeHeadSpec
from emofuse.training.losses import class_weights, positive_weights
from emofuse.training.members import FeatureTable, Fold
from emofuse.training.targets import RowTargets
from emofuse.training.validation_scores import scores_of_rows


class ExactRows:
    """The rows of one fold, of which training rows with weight 0 are left out.

    Attributes:
        target: the kind of target and its loss.
        link: what turns logits into outputs.
        scale: the standardisation of a regression's targets; None for others.
        targets: (n, C) float64, what the training rows teach: one-hot labels, distributions, standardised values, or 0
            and 1.
        train_labels: (n,) int64.
        val_labels: (v,) int64.
        sample_weights: (n,) float64, the weights of the training rows; None for equal ones.
        classes: the number C of outputs.
        groups: (n,) int64, the groups of the training rows, see `FeatureTable`; None without groups.
    """

    def __init__(self, features: Mapping[str, Tensor], table: FeatureTable, fold: Fold, device: torch.device) -> None:
        self._features, self._device = features, device
        self._valid, self._source_of = table.valid, table.source_of
        self.target, self.link, self.scale = table.target, table.link, table.target_scale(fold)
        weights, train = table.row_weights(fold), fold.train
        if weights is not None:
            train = train[weights[train] > 0]
        self._rows = {True: train, False: fold.val}
        self._scaling = fold.scaling
        labels = table.labels.numpy()
        self.train_labels, self.val_labels = labels[train], labels[fold.val]
        self.sample_weights = None if weights is None else torch.from_numpy(weights[train]).to(device)
        self.classes = table.classes
        self.groups = None if table.groups is None else table.groups[torch.from_numpy(train)].to(device)
        self._values = {is_train: self._values_of(table, rows) for is_train, rows in self._rows.items()}
        one_hot = functional.one_hot(torch.from_numpy(self.train_labels), table.classes).to(device, torch.float64)
        of_train = self._values[True]
        self.targets = one_hot if of_train is None else of_train
        self._streams: dict[tuple[str, bool], StreamRows] = {}
        self._kernels: dict[tuple[str, str, float], tuple[Kernel, Tensor, Tensor]] = {}

    def _values_of(self, table: FeatureTable, rows: npt.NDArray[np.int64]) -> Tensor | None:
        """Return the targets of rows that are no class, (n, C) float64."""
        if table.targets is None:
            return None
        values = table.targets[torch.from_numpy(rows)].to(self._device, torch.float64)
        if self.scale is None:
            return values
        center, scale = (torch.from_numpy(part).to(values) for part in (self.scale.center, self.scale.scale))
        return (values - center) / scale

    def stream(self, name: str, *, train: bool) -> StreamRows:
        """Return one stream of the training or validation rows, float64; all rows are missing if it was not fitted."""
        key = (name, train)
        if key not in self._streams:
            rows, scaling = self._rows[train], self._scaling[name]
            source = self._source_of(name)
            present = self._valid[source].numpy()[rows] & scaling.fitted
            scaled = scaling.apply(self._features[source][rows].numpy().astype(np.float32), present)
            self._streams[key] = StreamRows(
                torch.from_numpy(scaled).to(self._device, torch.float64), torch.from_numpy(present).to(self._device)
            )
        return self._streams[key]

    def supports(self, head: KernelRidgeHeadSpec) -> Tensor:
        """Return (m,) places of the support rows among the training rows: all of them, or evenly spaced landmarks."""
        count = len(self.train_labels)
        if count <= head.landmarks:
            return torch.arange(count, device=self._device)
        return torch.linspace(0, count - 1, head.landmarks, dtype=torch.float64, device=self._device).round().long()

    def kernel(self, name: str, head: KernelRidgeHeadSpec) -> tuple[Kernel, Tensor, Tensor]:
        """Return the kernel of a stream, and its values of training rows (n, m) and validation rows (v, m)."""
        key = (name, head.kernel, head.factor)
        if key not in self._kernels:
            train, val = self.stream(name, train=True), self.stream(name, train=False)
            fitted = Kernel.fit(head.kernel, train.features[train.valid], factor=head.factor)
            supports = train.pick(self.supports(head))
            self._kernels[key] = (
                fitted,
                stream_kernel(fitted, train, supports),
                stream_kernel(fitted, val, supports),
            )
        return self._kernels[key]

    def history_entry(self, step: int, penalty: float, train: Tensor, val: Tensor) -> dict[str, Any]:
        """Return an entry of a history, from the outputs of the training and validation rows."""
        return {"epoch": step, "penalty": penalty, **self.scores(train, val)}

    def scores(self, train: Tensor, val: Tensor) -> dict[str, float]:
        """Return the scores of a history's entry, from the outputs of the training and validation rows."""
        everyone = np.ones(len(self.train_labels), dtype=bool)
        of_train = self._scores(train, everyone, is_train=True)
        return {"train_loss": of_train["val_loss"], **self.val_scores(val, np.ones(len(self.val_labels), dtype=bool))}

    def val_scores(self, val: Tensor, chosen: npt.NDArray[np.bool_]) -> dict[str, float]:
        """Return the scores of the chosen validation rows, at least one, from their outputs."""
        return self._scores(val, chosen, is_train=False)

    def _scores(self, outputs: Tensor, chosen: npt.NDArray[np.bool_], *, is_train: bool) -> dict[str, float]:
        labels = (self.train_labels if is_train else self.val_labels)[chosen]
        values = self._values[is_train]
        if values is not None:
            rows = RowTargets(torch.from_numpy(labels).to(self._device), values[torch.from_numpy(chosen)])
            return scores_of_rows(self.target, invert_link(self.link, outputs), rows, self.scale)
        scores = classification_metrics(labels, outputs.cpu().numpy(), self._names)
        return {
            "val_loss": scores["loss"],
            "val_accuracy": scores["accuracy"],
            "val_macro_f1": scores["macro"]["f1"],
        }

    def weights(self, kind: str, chosen: Tensor | None = None) -> Tensor | None:
        """Return the weights of training rows by their class and their own, see `class_weights`; None for equal ones.

        Args:
            kind: the kind of class weights.
            chosen: the rows, bool (n,); all of them if None. Classes are counted on these rows alone.
        """
        own = self.sample_weights if chosen is None or self.sample_weights is None else self.sample_weights[chosen]
        if kind == "none":
            return own
        labels = self.train_labels if chosen is None else self.train_labels[chosen.cpu().numpy()]
        counts = np.bincount(labels, minlength=self.classes)
        of_classes = torch.from_numpy(class_weights(kind, counts)[labels]).to(self._device)
        return of_classes if own is None else of_classes * own

    def label_weights(self, kind: str, chosen: Tensor | None = None) -> Tensor | None:
        """Return the weights of training rows for each of several labels, (n, C); see `weights` for the arguments."""
        own = self.sample_weights if chosen is None or self.sample_weights is None else self.sample_weights[chosen]
        labels = self.targets if chosen is None else self.targets[chosen]
        if kind == "none":
            return None if own is None else own.unsqueeze(1).expand_as(labels)
        positives = labels.sum(0).to(torch.int64).cpu().numpy()
        factors = torch.from_numpy(positive_weights(kind, positives, len(labels))).to(labels)
        weights = torch.where(labels > 0, factors, 1.0)
        return weights if own is None else weights * own.unsqueeze(1)

    def logit_shift(self, tau: float) -> Tensor:
        """Return tau times the log share of each class in the training rows, (C,); 0 for a class without rows.

        Probabilities of solved logits less this shift are those of equally frequent classes if tau is 1 (Menon et al.,
        ICLR 2021).
        """
        counts = np.bincount(self.train_labels, minlength=self.classes)
        shares = np.where(counts > 0, counts / max(1, len(self.train_labels)), 1.0)
        return torch.from_numpy(tau * np.log(shares)).to(self._device)

    @property
    def _names(self) -> list[str]:
        return [str(index) for index in range(self.classes)]
