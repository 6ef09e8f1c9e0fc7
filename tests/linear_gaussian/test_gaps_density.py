"""The density that fits of data with missing values maximise: value and slopes against dense marginals."""

import pytest
import torch
from pyro.distributions import Normal

import pyrovae as pv
from pyrovae.distributions import covariance_of
from pyrovae.linear_gaussian._gaps_density import GapDensity

N, D = 6, 2


def draws(num=30, seed=0):
    """A third missing; three data share a pattern, one is complete, and one has a single value."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(num, N, generator=g, dtype=torch.float64)
    x[torch.rand(num, N, generator=g) < 0.35] = torch.nan
    x[0] = torch.arange(N)
    x[1, 1:], x[1, 0] = torch.nan, 2.0
    x[2:5] = torch.where(torch.arange(N) % 3 == 1, torch.nan, x[0] * torch.arange(3).unsqueeze(1))
    return x[~x.isnan().all(1)]


def independent(raw):
    return Normal(torch.zeros(N).double(), raw[:N].exp()).to_event(1)


def one_scale(raw):
    return Normal(torch.zeros(N).double(), raw[0].exp().expand(N)).to_event(1)


def ar1(raw):
    return pv.AR1Normal(torch.zeros(N).double(), raw[:N].exp(), raw[N:].tanh())


def stationary(raw):
    return pv.AR1Normal(torch.zeros(N).double(), raw[0].exp(), raw[N].tanh())


@pytest.mark.parametrize("dense", [0.0, 1.1])
@pytest.mark.parametrize("noise", [independent, one_scale, ar1, stationary])
def test_value_and_slopes_are_those_of_the_dense_marginals(noise, dense):
    g = torch.Generator().manual_seed(1)
    sizes = [(N, D), (N,), (2 * N - 1,)]
    values = [0.7 * torch.randn(size, generator=g, dtype=torch.float64) for size in sizes]
    leaves, same = ([value.clone().requires_grad_() for value in values] for _ in range(2))
    x = draws()
    data = GapDensity.of(x, is_independent=noise in (independent, one_scale), dense=dense)
    a, b, raw = leaves
    found = data.mean_log_prob(noise(raw), torch.cat([a, b.unsqueeze(-1)], dim=1))
    a, b, raw = same
    covariance = a @ a.T + covariance_of(noise(raw))
    terms = []
    for row in x:
        o = ~row.isnan()
        terms.append(torch.distributions.MultivariateNormal(b[o], covariance[o][:, o]).log_prob(row[o]))
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for slope, dense in zip(
        torch.autograd.grad(2 * found, leaves), torch.autograd.grad(2 * expected, same), strict=True
    ):
        torch.testing.assert_close(slope, dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dense", [0.0, 1.1])
@pytest.mark.parametrize("noise", [independent, one_scale, ar1, stationary])
def test_the_mean_of_precisions_is_that_of_the_dense_marginals(noise, dense):
    g = torch.Generator().manual_seed(2)
    a, raw = (torch.randn(size, generator=g, dtype=torch.float64) for size in [(N, D), (2 * N - 1,)])
    x, p = draws(), noise(0.7 * raw)
    covariance, expected = a @ a.T + covariance_of(p), torch.zeros(N, N).double()
    for row in x:
        o = (~row.isnan()).nonzero().squeeze(-1)
        expected[o[:, None], o] += torch.linalg.inv(covariance[o[:, None], o]) / len(x)
    data = GapDensity.of(x, is_independent=noise in (independent, one_scale), dense=dense)
    torch.testing.assert_close(data.mean_precision(p, a), expected, rtol=1e-10, atol=1e-12)
