"""The linear-Gaussian state-space model against Pyro's GaussianHMM, dense algebra and THEORY's numbers."""

import math

import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.exact import LinearGaussianStateSpace
from pyrovae.posteriors import POSTERIORS
from pyrovae.testing import dense_kl

GAPS = {  # φ, σ: diagonal and isotropic at T = 24, 100, 1,000, worked out by dense algebra
    (0.5, 1.0): ((0.8051, 0.8130), (3.4399, 3.4483), (34.641, 34.650)),
    (0.9, 0.3): ((0.6740, 0.6970), (2.8557, 2.8801), (28.691, 28.716)),
    (0.9, 1.0): ((4.0380, 4.1452), (16.6298, 16.7423), (165.743, 165.857)),
    (0.99, 1.0): ((7.3210, 7.4941), (28.6456, 28.8265), (281.178, 281.361)),
}


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def two_channels():
    """Two latent and three observed channels; a turning transition."""
    f = torch.tensor([[0.8, 0.3], [-0.4, 0.6]]).double()
    q = torch.tensor([[0.5, 0.1], [0.1, 0.3]]).double()
    return LinearGaussianStateSpace(5, f, double(3, 2), 0.7, innovation_covariance=q, offset=double(15))


def dense_marginal(chain):
    """p(x) from the prior's covariance, by powers of F and the stationary covariance as a series."""
    f, q, steps = chain.transition, chain.innovation_covariance, chain.num_steps
    power = [torch.linalg.matrix_power(f, lag) for lag in range(400)]
    stationary = sum(p @ q @ p.T for p in power)
    rows = [
        [power[i - j] @ stationary if i >= j else (power[j - i] @ stationary).T for j in range(steps)]
        for i in range(steps)
    ]
    z = torch.cat([torch.cat(row, 1) for row in rows])
    loadings = torch.block_diag(*chain.loadings)
    noise = chain.noise_scale**2 * torch.eye(chain.n).double()
    return z, loadings, dist.MultivariateNormal(chain.offset, loadings @ z @ loadings.T + noise)


def test_against_pyros_hidden_markov_model(two_channels):
    chain, zeros = two_channels, torch.zeros(2).double()
    x = chain.sample(4)
    before = torch.linalg.inv(chain.transition)  # theirs moves before the first observation
    start = before @ (chain.initial_covariance - chain.innovation_covariance) @ before.T
    theirs = dist.GaussianHMM(
        dist.MultivariateNormal(zeros, start),
        chain.transition.T,
        dist.MultivariateNormal(zeros, chain.innovation_covariance),
        chain.loadings[0].T,
        dist.Normal(torch.zeros(3).double(), 0.7).to_event(1),
        duration=5,
    )
    torch.testing.assert_close(
        chain.log_prob(x), theirs.log_prob((x - chain.offset).reshape(4, 5, 3)), rtol=1e-8, atol=1e-8
    )


def test_against_dense_algebra(two_channels):
    covariance, loadings, marginal = dense_marginal(two_channels)
    torch.testing.assert_close(two_channels.prior.covariance_matrix, covariance)
    x = two_channels.sample(4)
    torch.testing.assert_close(two_channels.log_prob(x), marginal.log_prob(x))
    gain = covariance @ loadings.T @ torch.linalg.inv(marginal.covariance_matrix)
    posterior = two_channels.posterior(x)
    torch.testing.assert_close(posterior.mean, (x - two_channels.offset) @ gain.T)
    torch.testing.assert_close(
        posterior.covariance_matrix, (covariance - gain @ loadings @ covariance).expand(4, -1, -1)
    )
    torch.testing.assert_close(two_channels.gain, gain)
    torch.testing.assert_close(two_channels.precision, torch.linalg.inv(covariance - gain @ loadings @ covariance))


def test_values_that_were_not_observed(two_channels):
    covariance, loadings, marginal = dense_marginal(two_channels)
    x = two_channels.sample(3)
    x[0, 4] = x[1, 6:9] = x[2] = math.nan
    found, posterior = two_channels.log_prob(x), two_channels.posterior(x)
    for datum, log_prob, mean, spread in zip(x, found, posterior.mean, posterior.covariance_matrix, strict=True):
        seen = ~datum.isnan()
        part = marginal.covariance_matrix[seen][:, seen]
        residual = datum[seen] - two_channels.offset[seen]
        expected = (
            dist.MultivariateNormal(torch.zeros(len(part)).double(), part).log_prob(residual) if len(part) else 0.0
        )
        assert log_prob.item() == pytest.approx(float(expected), abs=1e-9)
        gain = covariance @ loadings.T[:, seen] @ torch.linalg.inv(part)
        torch.testing.assert_close(mean, gain @ residual)
        torch.testing.assert_close(spread, covariance - gain @ loadings[seen] @ covariance)


def test_sample_has_the_models_moments(two_channels):
    """Each of 120 entries within 5 standard errors: a right draw fails with probability below 1e-4."""
    marginal = dense_marginal(two_channels)[2]
    x = two_channels.sample(50_000) - two_channels.offset
    products = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(1)
    error = products.std(0) / 50_000**0.5
    assert ((products.mean(0) - marginal.covariance_matrix.flatten()).abs() < 5 * error).all()


@pytest.mark.parametrize(("setting", "t"), [(s, t) for s in GAPS for t in range(3)])
def test_the_gaps_of_the_families(setting, t):
    chain = LinearGaussianStateSpace((24, 100, 1000)[t], setting[0], 1.0, setting[1])
    for family, expected in zip(("diagonal", "isotropic"), GAPS[setting][t], strict=True):
        assert chain.gap(family) == pytest.approx(expected, abs=0.6 * 10.0 ** -(4 if t < 2 else 3))
    assert chain.gap("ar1-per-step") == pytest.approx(0, abs=1e-9)


def test_no_family_is_better_than_one_that_holds_it():
    chain = LinearGaussianStateSpace(12, 0.9, torch.linspace(0.5, 2, 12).reshape(12, 1, 1), 1.0)
    gaps = {family: chain.gap(family) for family in POSTERIORS if family != "flow"}
    assert gaps["full-covariance"] == pytest.approx(0, abs=1e-9)
    assert gaps["ar1-per-step"] == pytest.approx(0, abs=1e-9)
    assert 0 < gaps["ar1-per-dimension"] < gaps["ar1"] < gaps["isotropic"]
    assert gaps["ar1-per-dimension"] < gaps["diagonal"] < gaps["isotropic"]
    assert gaps["low-rank"] < gaps["diagonal"]


@pytest.mark.parametrize("family", ["diagonal", "ar1", "ar1-per-step", "full-covariance"])
def test_programs_reach_the_predicted_elbo(family):
    chain = LinearGaussianStateSpace(6, 0.9, torch.tensor([[1.0], [0.5]]), 0.8)
    x, model, guide = chain.sample(3), chain.to_model(), chain.to_guide(family)
    with torch.no_grad():
        kl = dense_kl(guide.posterior(x), chain.posterior(x))
    torch.testing.assert_close(kl, torch.full_like(kl, chain.gap(family)), rtol=0, atol=1e-8)
    estimate = pv.elbo_estimate(model, guide, x, num_samples=20_000)
    assert ((estimate.per_datum - chain.best_elbo(family, x)).abs() < 5 * estimate.stderr_per_datum + 1e-8).all()
    exact = pv.AnalyticELBO().loss(model, guide, x)  # closed forms for every family
    assert math.isfinite(exact)


def test_bad_input():
    eye = torch.eye(2)
    for arguments, message in (
        ((3, torch.ones(2, 3), eye, 1.0), r"transition must have shape \(k, k\), not \(2, 3\)"),
        ((3, 0.5, eye, 1.0), r"loadings must have shape \(n, 1\) or \(3, n, 1\), not \(2, 2\)"),
        ((3, 1.0, 1.0, 1.0), "innovation_covariance must be a positive definite matrix"),
        ((0, 0.5, 1.0, 1.0), "num_steps must be a positive integer"),
        ((3, 0.5, 1.0, 0.0), "noise_scale must be a positive number"),
        ((3, math.nan, 1.0, 1.0), "transition holds NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            LinearGaussianStateSpace(*arguments)
    with pytest.raises(ValueError, match=r"is not stationary .* give initial_covariance"):
        LinearGaussianStateSpace(3, 1.0, 1.0, 1.0, innovation_covariance=1.0)
    walk = LinearGaussianStateSpace(3, 1.0, 1.0, 1.0, innovation_covariance=1.0, initial_covariance=2.0)
    torch.testing.assert_close(walk.prior.variance, torch.tensor([2.0, 3.0, 4.0]).double())
    with pytest.raises(ValueError, match=r"x must have shape \(\*batch, 3\), step by step, not \(2, 4\)"):
        walk.log_prob(torch.zeros(2, 4))
