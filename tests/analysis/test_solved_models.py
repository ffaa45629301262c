"""Models of subsets that are solved: kernel fusion, or the product of the streams."""

from __future__ import annotations

import numpy as np
import torch

from emofuse.analysis.solved_models import SubsetModels
from emofuse.probe import KernelFit


class Scores:
    """Stands for the kernels of a fold: subset -> the scores of left-out rows and of rows to be answered."""

    def __init__(self, targets, fits):
        self.targets, self._fits = targets, fits

    def fit(self, streams):
        left_out, scores = self._fits[tuple(streams)]
        return KernelFit(left_out, scores, 0.0)

    def outputs(self, scores):
        return torch.softmax(scores, dim=1).numpy()


def two_cues(rows=600):
    """Streams a and b tell one bit of four classes each."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, rows)
    places = np.arange(4)

    def told(bit):
        signal = 1.5 * np.where(label[:, None] >> bit & 1 == places >> bit & 1, 1, -1)
        return torch.from_numpy(signal + rng.normal(size=(rows, 4)))

    return label, torch.nn.functional.one_hot(torch.from_numpy(label), 4).double(), told(0), told(1)


def split(scores, rows=300):
    return scores[:rows], scores[rows:]


def test_the_product_answers_where_the_fused_kernel_has_learned_nothing():
    label, targets, a, b = two_cues()
    nothing = torch.zeros_like(a)
    fits = {("a",): split(a), ("b",): split(b), ("a", "b"): split(nothing)}
    probs = SubsetModels(Scores(targets[:300], fits), has_classes=True).solve(["a", "b"])
    assert (probs.argmax(axis=1) == label[300:]).mean() > 0.85
    assert np.allclose(probs.sum(axis=1), 1)


def test_the_fused_kernel_answers_where_it_predicts_left_out_rows_better():
    label, targets, a, b = two_cues()
    fits = {("a",): split(torch.zeros_like(a)), ("b",): split(torch.zeros_like(b)), ("a", "b"): split(a + b)}
    probs = SubsetModels(Scores(targets[:300], fits), has_classes=True).solve(["a", "b"])
    assert (probs.argmax(axis=1) == label[300:]).mean() > 0.85


def test_two_streams_that_are_one_do_not_count_twice():
    _, targets, a, _ = two_cues()
    fits = {("a",): split(a), ("copy",): split(a), ("a", "copy"): split(torch.zeros_like(a))}
    models = SubsetModels(Scores(targets[:300], fits), has_classes=True)
    alone, twice = models.solve(["a"]), models.solve(["a", "copy"])
    assert np.abs(alone - twice).mean() < 0.04
