"""Ridge regression and kernels: leave-one-out by refitting, scikit-learn's kernels, missing streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel

from emofuse.solvers.kernels import Kernel, StreamRows, stream_kernel, weighted_sum
from emofuse.solvers.ridge import Spectrum, nystroem_map, penalty_grid
from emofuse.solvers.temperature import fit_temperatures

N, D, C = 60, 12, 3


@pytest.fixture
def features() -> torch.Tensor:
    return torch.tensor(np.random.default_rng(0).normal(size=(N, D)))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.eye(C, dtype=torch.float64)[torch.tensor(np.random.default_rng(1).integers(0, C, N))]


def test_leave_one_out_equals_refitting_without_each_row(features, targets):
    kernel = Kernel.fit("rbf", features).between(features, features)
    spectrum = Spectrum.from_kernel(kernel.clone())
    penalties = penalty_grid(spectrum, 4)
    for penalty, found in zip(penalties, spectrum.leave_one_out(targets, penalties), strict=True):
        for row in range(N):
            kept = torch.arange(N)[torch.arange(N) != row]
            duals, bias = Spectrum.from_kernel(kernel[kept][:, kept].clone()).coefficients(targets[kept], penalty)
            assert torch.allclose(kernel[row, kept] @ duals + bias, found[row], atol=1e-8)


def test_leaving_groups_out_equals_refitting_without_each_group(features, targets):
    kernel = Kernel.fit("rbf", features).between(features, features)
    spectrum = Spectrum.from_kernel(kernel.clone())
    penalties = penalty_grid(spectrum, 4)
    groups = torch.arange(N) // 5
    groups[:10] = -1
    by_rows, by_groups = (spectrum.leave_one_out(targets, penalties, each) for each in (None, groups))
    assert torch.equal(by_groups[:, :10], by_rows[:, :10])
    for penalty, found in zip(penalties, by_groups, strict=True):
        for group in range(2, N // 5):
            kept, left = groups != group, groups == group
            duals, bias = Spectrum.from_kernel(kernel[kept][:, kept].clone()).coefficients(targets[kept], penalty)
            assert torch.allclose(kernel[left][:, kept] @ duals + bias, found[left], atol=1e-6)


def test_features_and_their_linear_kernel_are_the_same_problem_as_scikit_learns_ridge(features, targets):
    reference = Ridge(alpha=3.0).fit(features, targets).predict(features)
    weights, bias = Spectrum.from_features(features).coefficients(targets, 3.0)
    duals, of_kernel = Spectrum.from_kernel(features @ features.T).coefficients(targets, 3.0)
    assert np.allclose(features @ weights + bias, reference, atol=1e-10)
    assert np.allclose(features @ features.T @ duals + of_kernel, reference, atol=1e-10)


def test_kernel_ridge_is_scikit_learns_on_centred_kernel_and_targets(features, targets):
    kernel = Kernel.fit("rbf", features).between(features, features)
    duals, bias = Spectrum.from_kernel(kernel.clone()).coefficients(targets, 0.5)
    centring = np.eye(N) - 1 / N
    centred = centring @ kernel.numpy() @ centring
    reference = KernelRidge(alpha=0.5, kernel="precomputed").fit(centred, targets - targets.mean(0))
    wanted = reference.predict(centred) + targets.mean(0).numpy()
    assert np.allclose(kernel @ duals + bias, wanted, atol=1e-10)


def test_kernels_are_those_of_scikit_learn(features):
    rbf = Kernel.fit("rbf", features, factor=2.0)
    assert np.allclose(rbf.between(features, features), rbf_kernel(features, gamma=rbf.gamma), atol=1e-12)
    cosine = Kernel.fit("cosine", features)
    assert np.allclose(cosine.between(features, features), cosine_similarity(features), atol=1e-12)


def test_a_linear_kernel_has_mean_one_on_the_training_rows(features):
    kernel = Kernel.fit("linear", 7 * features)
    assert float(kernel.between(7 * features, 7 * features).diagonal().mean()) == pytest.approx(1)


def test_the_width_of_an_rbf_kernel_is_the_median_distance(features):
    distances = torch.pdist(features).square()
    assert Kernel.fit("rbf", features).gamma == pytest.approx(1 / (2 * float(distances.median())))


def test_a_row_without_the_stream_has_kernel_zero_with_every_row(features):
    valid = torch.ones(N, dtype=torch.bool)
    valid[[3, 5]] = False
    rows = StreamRows(features, valid)
    kernel = stream_kernel(Kernel.fit("rbf", features[valid]), rows, rows)
    assert not kernel[[3, 5]].any()
    assert not kernel[:, [3, 5]].any()
    assert (kernel[valid][:, valid] > 0).all()


def test_a_stream_of_no_training_row_has_kernel_zero(features):
    rows = StreamRows(features, torch.zeros(N, dtype=torch.bool))
    for kind in ("linear", "rbf", "cosine"):
        assert not stream_kernel(Kernel.fit(kind, features[:0]), rows, rows).any()


def test_streams_are_summed_in_one_order_whatever_order_they_are_named_in(features):
    parts = {
        name: Kernel.fit("rbf", features, factor=f).between(features, features)
        for name, f in (("a", 0.3), ("b", 1.0), ("c", 3.0))
    }
    assert torch.equal(weighted_sum(parts, ["a", "b", "c"]), weighted_sum(parts, ["c", "a", "b"]))


def test_all_rows_as_landmarks_give_the_kernel_itself(features):
    kernel = Kernel.fit("rbf", features).between(features, features)
    mapped = kernel @ nystroem_map(kernel)
    assert torch.allclose(mapped @ mapped.T, kernel, atol=1e-10)


def test_a_constant_kernel_answers_with_the_mean_of_the_targets(targets):
    spectrum = Spectrum.from_kernel(torch.ones(N, N, dtype=torch.float64))
    duals, bias = spectrum.coefficients(targets, penalty_grid(spectrum, 3)[0])
    assert torch.allclose(torch.ones(1, N, dtype=torch.float64) @ duals + bias, targets.mean(0))


def test_the_temperature_has_the_least_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    targets = torch.eye(4, dtype=torch.float64)[torch.randint(0, 4, (300,), generator=generator)]
    scores = 0.3 * targets + 0.2 * torch.randn(300, 4, generator=generator, dtype=torch.float64)
    factor = float(fit_temperatures(scores[None], targets))

    def loss(of: float) -> float:
        return float(-(targets * torch.log_softmax(of * scores, dim=1)).sum())

    assert loss(factor) < min(loss(factor * 0.99), loss(factor * 1.01))


def test_scores_that_say_nothing_are_made_flat():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2000, 4, generator=generator, dtype=torch.float64)
    targets = torch.eye(4, dtype=torch.float64)[torch.randint(0, 4, (2000,), generator=generator)]
    assert float(fit_temperatures(scores[None], targets)) < 0.1


def test_a_temperature_that_is_found_is_not_looked_for_again(targets, monkeypatch):
    """Rounding of the slope at a minimum once sent a set back to halving its interval, fifty times."""
    noise = torch.tensor(np.random.default_rng(5).normal(size=(6, N, C)))
    scores = (noise + targets) * torch.logspace(-2, 1, 6, dtype=torch.float64).view(6, 1, 1)
    softmax, sizes = torch.softmax, []
    monkeypatch.setattr(torch, "softmax", lambda values, dim: sizes.append(len(values)) or softmax(values, dim=dim))
    fit_temperatures(scores, targets)
    assert len(sizes) <= 12
    assert sizes[-1] <= 6
    assert sum(sizes) < 12 * 6


def test_temperatures_of_several_models_are_those_of_each_alone(targets):
    noise = torch.tensor(np.random.default_rng(5).normal(size=(4, N, C)))
    scores = (noise + targets) * torch.tensor([0.1, 1.0, 3.0, 50.0]).view(4, 1, 1)
    together = fit_temperatures(scores, targets)
    alone = torch.cat([fit_temperatures(each[None], targets) for each in scores])
    assert torch.allclose(together, alone, rtol=1e-9)
    assert len(set(together.tolist())) == 4


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("penalty", [1e-5, 1e-2, 1.0])
def test_a_smooth_kernel_of_few_features_is_solved_as_by_its_normal_equations(weighted, penalty):
    """The smallest eigenvalues are near rounding here; what their vectors lack in precision must not reach the fit."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(60, 2, generator=generator, dtype=torch.float64)
    kernel = torch.exp(-1.8 * torch.cdist(features, features).square())
    targets = torch.rand(60, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(60, generator=generator, dtype=torch.float64) + 0.5 if weighted else None
    coefficients, bias = Spectrum.from_kernel(kernel.clone(), weights).coefficients(targets, penalty)
    system = torch.zeros(61, 61, dtype=torch.float64)
    system[:60, :60] = kernel + penalty * torch.diag(torch.ones(60) if weights is None else 1 / weights)
    system[:60, 60] = system[60, :60] = 1
    solved = torch.linalg.solve(system, torch.cat([targets, torch.zeros(1, 2)]))
    expected = kernel @ solved[:60] + solved[60]
    torch.testing.assert_close(kernel @ coefficients + bias, expected, rtol=0, atol=1e-7)


def test_a_kernel_of_zeros_has_one_zero_feature_and_predicts_the_mean():
    """That of a stream whose values are all the same."""
    kernel = torch.zeros(5, 5, dtype=torch.float64)
    mapping = nystroem_map(kernel)
    assert mapping.shape == (5, 1)
    spectrum = Spectrum.from_features(kernel @ mapping)
    targets = torch.arange(10, dtype=torch.float64).view(5, 2)
    coefficients, bias = spectrum.coefficients(targets, 1.0)
    assert torch.allclose(kernel @ mapping @ coefficients + bias, targets.mean(dim=0).expand(5, 2))
