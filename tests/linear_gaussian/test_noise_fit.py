"""Fits of noise without dense matrices, against the dense ones."""

import numpy as np
import pytest
import torch

from pyrovae.datasets import simulated
from pyrovae.distributions import AR1Normal
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian._noise_fit import _Banded, _Dense, _rows_of_band, fit_noise
from pyrovae.nn import class_of

BANDED = [name for name, make in LIKELIHOODS.items() if getattr(class_of(make), "has_tridiagonal_precision", False)]


def test_the_precision_of_noise_that_says_so_is_tridiagonal():
    assert {"gaussian", "gaussian-per-dimension", "ar1", "ar1-per-dimension", "ar1-per-datum"} <= set(BANDED)
    for name in BANDED:
        likelihood = LIKELIHOODS[name](3, 7).double()
        for parameter in likelihood.parameters():
            torch.nn.init.normal_(parameter)
        precision = torch.linalg.inv(likelihood.noise_covariance(torch.zeros(3, dtype=torch.float64)))
        beyond = precision - precision.tril(1).triu(-1)
        assert beyond.abs().max() < 1e-9 * precision.abs().max()


@pytest.mark.parametrize("n", [2, 3, 8])
def test_few_rows_stand_for_a_band(n):
    rng = np.random.default_rng(0)
    diagonal, beside = rng.exponential(size=n), rng.normal(size=n - 1)
    rows, signs = _rows_of_band(diagonal, beside)
    q = np.diag(rng.normal(size=n)) + np.diag(other := rng.normal(size=n - 1), 1) + np.diag(other, -1)
    expected = (np.diag(q) * diagonal).sum() + 2 * (other * beside).sum()
    assert (signs * np.einsum("ij,jk,ik->i", rows, q, rows)).sum() == pytest.approx(expected)


@pytest.mark.parametrize("noise", ["gaussian", "gaussian-per-dimension", "ar1", "ar1-per-dimension"])
@pytest.mark.parametrize("num", [300, 25])  # more data than channels, and fewer
def test_the_fit_of_many_channels_is_the_dense_fit(noise, num):
    x, d = simulated(num, 40, seed=1).x.double(), 3
    found = []
    for many in (0, 10**6):
        likelihood = LIKELIHOODS[noise](1, 40).double()
        likelihood.start_at(0.1)
        loadings = fit_noise(likelihood, x, 0.1, d, 300 if num < 40 else 2000, many)
        covariance = likelihood.noise_covariance() + loadings @ loadings.T
        p = torch.distributions.MultivariateNormal(x.mean(0), covariance)
        found.append(p.log_prob(x).mean().item())
    # of fewer data than channels the maximum with a σ a channel is flat, and neither fit has reached it
    assert found[0] == pytest.approx(found[1], abs=1e-5 if num > 40 or noise != "ar1-per-dimension" else 0.5)


@pytest.mark.parametrize("num", [200, 20])
def test_eigenvalues_and_the_sum_of_the_others_are_those_of_the_dense_matrix(num):
    x = simulated(num, 30, seed=2).x.double()
    likelihood = LIKELIHOODS["ar1-per-dimension"](1, 30).double()
    torch.nn.init.normal_(likelihood.raw_noise, std=0.3)
    torch.nn.init.zeros_(likelihood.loc_head.weight)
    torch.nn.init.zeros_(likelihood.loc_head.bias)
    p = likelihood(torch.zeros(1, dtype=torch.float64))
    normaliser = p.log_prob(torch.zeros(30, dtype=torch.float64))
    largest, rest = _Banded(x, 4).split(p, normaliser, prior=0.1)
    whole = torch.linalg.solve(likelihood.noise_covariance(), torch.cov(x.T, correction=0))
    values = torch.linalg.eigvals(whole).real.sort(descending=True).values
    torch.testing.assert_close(largest, values[:4], rtol=1e-9, atol=0)
    prior = 0.01 * torch.linalg.inv(likelihood.noise_covariance()).trace()
    torch.testing.assert_close(rest, values[4:].sum() + prior, rtol=1e-8, atol=0)


def test_noise_whose_covariance_has_no_factor_left_is_still_compared():
    """AR(1) at ρ = 1 − 4e-22, where a line search may go: the eigenvalues add up to tr Σ⁻¹S, here of a random walk."""
    walk = torch.randn(60, 30, dtype=torch.float64).cumsum(1)
    noise = AR1Normal(torch.zeros(30, dtype=torch.float64), 1.0, fisher_z=torch.tensor(25.0, dtype=torch.float64))
    normaliser = noise.log_prob(torch.zeros(30, dtype=torch.float64))
    largest, rest = _Dense(walk, 3).split(noise, normaliser, 0.0)
    truth = 2 * (normaliser - noise.log_prob(walk - walk.mean(0))).mean()
    torch.testing.assert_close(largest.sum() + rest, truth, rtol=1e-9, atol=0)
    assert (largest > rest / 27).all()
