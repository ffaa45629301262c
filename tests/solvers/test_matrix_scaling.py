"""Matrix scaling of the scores of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from emofuse.solvers.matrix_scaling import fit_matrix_scaling


def cued(rows, seed=0):
    """Rows of four classes that are two bits; scores tell the first bit, the rest of them is noise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, rows)
    signal = np.where(label[:, None] >> 1 == np.arange(4) >> 1, 1.0, -1.0)
    scores = torch.from_numpy(signal + rng.normal(size=(rows, 4)))
    return scores, torch.nn.functional.one_hot(torch.from_numpy(label), 4).double(), label


def test_directions_of_noise_shrink_and_those_of_the_cue_stay():
    scores, targets, label = cued(2000)
    scaled = fit_matrix_scaling(scores, targets)(scores).numpy()
    noise = [float(np.abs(each[:, 0] - each[:, 1]).mean()) for each in (scores.numpy(), scaled)]
    cue = [
        float(np.abs(each[:, :2].mean(axis=1) - each[:, 2:].mean(axis=1)).mean()) for each in (scores.numpy(), scaled)
    ]
    assert noise[1] / cue[1] < 0.25 * noise[0] / cue[0]
    found = scaled.argmax(axis=1) >> 1 == label >> 1
    assert found.mean() > (scores.numpy().argmax(axis=1) >> 1 == label >> 1).mean()


def test_a_wide_prior_gives_the_free_matrix_of_a_logistic_regression():
    scores, targets, label = cued(400)
    free = fit_matrix_scaling(scores, targets, spread=1e3)(scores)
    reference = LogisticRegression(C=1e8, max_iter=5000, tol=1e-10).fit(scores.numpy(), label)
    probs = torch.softmax(free, dim=1).numpy()
    assert np.abs(probs - reference.predict_proba(scores.numpy())).max() < 1e-3


def test_a_narrow_prior_leaves_the_scores_up_to_the_frequencies_of_the_classes():
    scores, targets, _ = cued(400)
    scaling = fit_matrix_scaling(scores, targets, spread=1e-4)
    assert (scaling.matrix - torch.eye(4)).abs().max() < 1e-3
    assert float(scaling.offsets.mean()) == pytest.approx(0, abs=1e-9)
    assert torch.softmax(scaling(scores), dim=1).mean(dim=0).numpy() == pytest.approx(
        targets.mean(dim=0).numpy(), abs=1e-4
    )
