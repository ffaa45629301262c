"""Losses, links and scores of the oracle for targets that are no class, and weights of rows: one head, plain torch."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss, mean_squared_error
from torch.nn import functional


def outputs_of(kind, logits):
    """The link: logits -> outputs."""
    match kind:
        case "regression":
            return logits
        case "multilabel":
            return torch.sigmoid(logits)
        case _:
            return torch.softmax(logits, dim=-1)


def logits_of(kind, outputs):
    """Logits whose outputs are these."""
    match kind:
        case "regression":
            return outputs
        case "multilabel":
            return torch.logit(outputs)
        case _:
            return outputs.log()


class Lesson:
    """What one fold teaches: its standardised targets, and the weights of its rows."""

    def __init__(self, table, fold, train, dtype):
        self.target, self.kind, self.train = table.target, table.target.kind, train
        self.labels = table.labels
        self.weights = torch.ones(len(table.labels), dtype=dtype)
        if table.weights is not None:
            self.weights = table.weights.to(dtype) / table.weights[fold.train].to(dtype).mean()
        if table.targets is not None:
            self.values, self.scale = table.targets.to(dtype), np.ones(table.classes)
            if self.kind == "regression":
                rows = self.values[fold.train].numpy()
                center, scale = (part.astype(np.float32) for part in (rows.mean(axis=0), rows.std(axis=0)))
                self.values, self.scale = (self.values - torch.tensor(center)) / torch.tensor(scale), scale
            positive = (self.values[fold.train] > 0).sum(0).double()
            odds = (len(fold.train) - positive) / positive
            self.positive_weight = {
                "none": torch.ones_like(odds),
                "balanced": odds,
                "sqrt": odds.sqrt(),
                "effective": (1 - 0.999 ** (len(fold.train) - positive)) / (1 - 0.999**positive),
            }[train.class_weights].to(dtype)

    def loss(self, logits, rows, class_weights):
        """The mean loss of rows of a batch."""
        values = self.values[rows]
        match self.kind, getattr(self.target, "loss", ""):
            case "distribution", "cross_entropy":
                losses = functional.cross_entropy(
                    logits, values, reduction="none", label_smoothing=self.train.label_smoothing
                )
                losses = losses * class_weights[self.labels[rows]]
            case "distribution", _:
                smooth = (1 - self.train.label_smoothing) * values + self.train.label_smoothing / values.shape[1]
                losses = functional.kl_div(torch.log_softmax(logits, dim=1), smooth, reduction="none").sum(1)
                losses = losses * class_weights[self.labels[rows]]
            case "multilabel", _:
                losses = functional.binary_cross_entropy_with_logits(
                    logits, values, reduction="none", pos_weight=self.positive_weight
                ).mean(1)
            case _, "mse":
                losses = functional.mse_loss(logits, values, reduction="none").mean(1)
            case _:
                return (1 - coefficient(logits, values, self.weights[rows])).mean()
        return (losses * self.weights[rows]).mean()

    def scores(self, logits, rows):
        """The scores of validation rows."""
        values, outputs = self.values[rows].numpy(), outputs_of(self.kind, logits).double().numpy()
        if self.kind == "distribution":
            loss = -(values * np.log(outputs)).sum(1).mean()
            if self.target.loss == "kl":
                loss = functional.kl_div(
                    torch.log(torch.tensor(outputs)), self.values[rows], reduction="batchmean"
                ).item()
            labels, answers = self.labels[rows].numpy(), outputs.argmax(1)
            f1 = f1_score(labels, answers, average="macro", zero_division=0)
            return {"val_loss": loss, "val_accuracy": accuracy_score(labels, answers), "val_macro_f1": f1}
        if self.kind == "multilabel":
            loss = np.mean([log_loss(y, p, labels=[0, 1]) for y, p in zip(values.T, outputs.T, strict=True)])
            known = values.any(axis=0)
            precision = average_precision_score(values[:, known], outputs[:, known].astype(np.float32), average="macro")
            return {"val_loss": loss, "val_map": precision}
        ccc = (
            coefficient(torch.tensor(outputs), self.values[rows].double(), torch.ones(len(rows)).double()).mean().item()
        )
        errors = mean_squared_error(values, outputs, multioutput="raw_values")
        loss = 1 - ccc if self.target.loss == "ccc" else errors.mean()
        return {"val_loss": loss, "val_ccc": ccc, "val_rmse": (np.sqrt(errors) * self.scale).mean()}


def coefficient(x, y, weights):
    """Lin's concordance correlation of each column, of weighted rows."""
    if len(x) == 1 or weights.sum() == 0:
        return (x * 0).sum(0)
    p = (weights / weights.sum()).to(x.dtype).unsqueeze(1)
    mx, my = (p * x).sum(0), (p * y).sum(0)
    covariance = (p * (x - mx) * (y - my)).sum(0)
    return 2 * covariance / ((p * (x - mx) ** 2).sum(0) + (p * (y - my) ** 2).sum(0) + (mx - my) ** 2)
