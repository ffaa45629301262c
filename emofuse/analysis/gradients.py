"""Integrated gradients: what each value of each stream contributes to the score of a class.

Source: Sundararajan, Taly and Yan, *Axiomatic attribution for deep networks*, ICML 2017.

The score of a class is its logit less the mean logit of all classes, which is what decides and does not depend on a
constant in all logits. That of a column of numbers is the answer in the unit of the column, and that of one of several
labels is its logit. The baseline of a stream is the mean of the training rows (0 after standardisation). The path
from the baseline to the row is cut into steps, and the gradients in their middles are averaged:

    contribution of x_i = (x_i - 0) * mean over steps of d score / d x_i

The contributions of a row sum to its score less that of the baseline, up to the error of the steps, which is reported.
Rows that lack a stream get nothing from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from emofuse.analysis.answers import Ints
from emofuse.errors import ResultsError
from emofuse.heads.members import HeadBatch
from emofuse.training.trained import HeadInputs, ScaledHead, TrainedHead

Floats = npt.NDArray[np.float64]
STEPS = 32
_ROWS = 256


@dataclass(frozen=True)
class Contributions:
    """The contributions of n rows to the score of one class for each row.

    Attributes:
        values: stream -> (n, *shape) float32.
        error: the largest difference between the sum of a row's contributions and its score less that of the baseline.
        scores: the scores of the rows, (n,).
    """

    values: Mapping[str, npt.NDArray[np.float32]]
    error: float
    scores: Floats

    def of_stream(self, stream: str) -> Floats:
        """Return the sum of the contributions of a stream, (n,)."""
        values = self.values[stream]
        total: Floats = values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)
        return total


def integrated_gradients(
    trained: TrainedHead,
    inputs: Sequence[HeadInputs],
    target: Ints,
    *,
    steps: int = STEPS,
    against_others: bool = True,
) -> Contributions:
    """Return the contributions of rows to the scores of outputs, the mean over the heads of an ensemble.

    Args:
        trained: the heads.
        inputs: what each head sees of n rows.
        target: the class, column or label of each row whose score is explained, int64 (n,).
        steps: the number of steps of the path.
        against_others: whether the score is the logit less the mean of all logits, as of classes.

    Raises:
        ResultsError: the head gives no gradient of its features.
    """
    parts = [
        _of_head(each, seen, target, steps, against_others=against_others)
        for each, seen in zip(trained.heads, inputs, strict=True)
    ]
    values = {
        stream: np.mean([part.values[stream] for part in parts], axis=0, dtype=np.float64).astype(np.float32)
        for stream in parts[0].values
    }
    return Contributions(values, max(part.error for part in parts), np.mean([part.scores for part in parts], axis=0))


def _of_head(each: ScaledHead, seen: HeadInputs, target: Ints, steps: int, *, against_others: bool) -> Contributions:
    values: dict[str, list[npt.NDArray[np.float32]]] = {}
    errors, scores = [], []
    units = np.ones(len(target), np.float32) if each.target_scale is None else each.target_scale.scale[target]
    for first in range(0, len(target), _ROWS):
        rows = slice(first, first + _ROWS)
        part, error, score = _of_rows(
            each.head, seen, rows, target[rows], steps, units=units[rows], against_others=against_others
        )
        for stream, array in part.items():
            values.setdefault(stream, []).append(array)
        errors.append(error)
        scores.append(score)
    return Contributions(
        {stream: np.concatenate(arrays) for stream, arrays in values.items()}, max(errors), np.concatenate(scores)
    )


def _of_rows(
    head: nn.Module,
    seen: HeadInputs,
    rows: slice,
    target: Ints,
    steps: int,
    *,
    units: npt.NDArray[np.float32],
    against_others: bool,
) -> tuple[dict[str, npt.NDArray[np.float32]], float, Floats]:
    head.eval()
    device = next(iter(head.state_dict().values())).device
    features = {name: torch.from_numpy(array[rows]).unsqueeze(0).to(device) for name, array in seen.features.items()}
    valid = {name: torch.from_numpy(array[rows]).unsqueeze(0).to(device) for name, array in seen.valid.items()}
    at = {name: torch.from_numpy(array[rows]).unsqueeze(0).to(device) for name, array in seen.steps.items()}
    labels, scale = torch.from_numpy(target).to(device), torch.from_numpy(units).to(device)

    def score(values: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = head(HeadBatch(dict(values), valid, at))[0]
        of_class: Tensor = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        scored: Tensor = of_class - logits.mean(dim=1) if against_others else of_class * scale
        return scored

    total = {name: torch.zeros_like(tensor) for name, tensor in features.items()}
    for step in range(steps):
        share = (step + 0.5) / steps
        scaled = {name: (share * tensor).requires_grad_() for name, tensor in features.items()}
        summed = score(scaled).sum()
        if not summed.requires_grad:
            raise ResultsError(f"heads of class {type(head).__name__} give no gradient of their features")
        gradients = torch.autograd.grad(summed, list(scaled.values()), allow_unused=True)
        for name, gradient in zip(scaled, gradients, strict=True):
            if gradient is not None:
                total[name] += torch.nan_to_num(gradient)
    found = {name: (features[name] * total[name] / steps)[0] for name in features}
    with torch.no_grad():
        at_rows, at_baseline = score(features), score({name: torch.zeros_like(each) for name, each in features.items()})
    summed_up = torch.stack([each.reshape(len(target), -1).sum(dim=1) for each in found.values()]).sum(dim=0)
    error = float((summed_up - (at_rows - at_baseline)).abs().max())
    return {name: each.cpu().numpy() for name, each in found.items()}, error, at_rows.double().cpu().numpy()
