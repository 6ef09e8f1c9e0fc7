"""Densities of some entries against dense marginals."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import pyrovae as pv
from pyrovae.distributions import PartiallyObserved


def test_missing_channels_of_independent_noise_are_pyros_mask():
    loc, scale = torch.randn(6, 5), torch.rand(6, 5) + 0.5
    x, observed = torch.randn(6, 5), torch.rand(6, 5) < 0.6
    ours = PartiallyObserved(dist.Normal(loc, scale).to_event(1)).log_prob(x.masked_fill(~observed, math.nan))
    torch.testing.assert_close(ours, dist.Normal(loc, scale).mask(observed).to_event(1).log_prob(x))


@pytest.mark.parametrize("correlation", [0.9, -0.7, 0.0, 1 - 1e-12])
def test_gaps_in_ar1_are_the_dense_marginal(correlation):
    n = 40
    scale = torch.linspace(0.5, 2, n).double()
    p = pv.AR1Normal(torch.randn(n).double(), scale, torch.tensor([correlation], dtype=torch.float64))
    observed = np.arange(n) % 7 > 3
    observed[[0, 1, 17, n - 1]] = False
    x = p.sample()
    steps = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    covariance = (np.outer(scale, scale) * correlation**steps)[observed][:, observed]
    ours = PartiallyObserved(p).log_prob(x.masked_fill(~torch.as_tensor(observed), math.nan)).item()
    if abs(correlation) < 0.99:
        expected = stats.multivariate_normal(p.loc[observed], covariance).logpdf(x[observed])
    else:  # the dense covariance is singular in float64: the product of the closed-form transitions
        at, u = np.flatnonzero(observed), ((x - p.loc) / scale).numpy()[observed]
        log_rho = np.diff(at) * math.log1p(-1e-12)
        expected = stats.norm.logpdf(u[0]) - np.log(scale.numpy()[observed]).sum()
        expected += stats.norm.logpdf(u[1:], u[:-1] * np.exp(log_rho), np.sqrt(-np.expm1(2 * log_rho))).sum()
    assert ours == pytest.approx(expected, rel=1e-4 if abs(correlation) > 0.99 else 1e-9)


def test_the_density_of_a_part_that_is_not_known():
    class Laplacian(pv.Likelihood):
        def forward(self, features):
            return dist.MultivariateStudentT(torch.tensor(3.0), features[..., :2], torch.eye(2))

    model = pv.GenerativeModel(torch.nn.Identity(), Laplacian(2, 2), 2, missing=True)
    with pytest.raises(TypeError, match="the density of some entries of a MultivariateStudentT is not known"):
        model(torch.zeros(3, 2))
