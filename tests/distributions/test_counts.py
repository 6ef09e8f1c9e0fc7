"""Distributions of counts against scipy, and against 50 digits where scipy's own cancel."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from pyrovae.distributions import NegativeBinomial, Poisson
from pyrovae.distributions.counts import stirling_error


def exact(x, log_mean, log_r=None):
    """Log-probability to 50 digits, rounded to a float."""
    with mpmath.workdps(50):
        x, log_mean = mpmath.mpf(x), mpmath.mpf(log_mean)
        mean = mpmath.exp(log_mean)
        if log_r is None:
            return float(x * log_mean - mean - mpmath.loggamma(x + 1))
        r = mpmath.exp(mpmath.mpf(log_r))
        ways = mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
        return float(ways + r * mpmath.log(r / (r + mean)) + x * mpmath.log(mean / (r + mean)))


def cases(dtype, num=1000):
    """Means from 3e-4 to 1e7, dispersions from none to 3000, and counts near the mean and far from it."""
    rng = np.random.default_rng(0)
    log_mean = torch.as_tensor(rng.uniform(-8, 16, num)).to(dtype)
    log_r = torch.as_tensor(rng.uniform(-8, 30, num)).to(dtype)
    mean, r = log_mean.double().exp().numpy(), log_r.double().exp().numpy()
    near = np.rint(mean + 2 * rng.normal(size=num) * np.sqrt(mean + mean**2 / r)).clip(0)
    x = torch.as_tensor(np.where(rng.random(num) < 0.7, near, rng.integers(0, 40, num))).to(dtype)
    return x, log_mean, log_r


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_log_prob_is_right_for_every_mean_and_dispersion(dtype, tolerance):
    x, log_mean, log_r = cases(dtype)
    for ours, parts in (
        (NegativeBinomial(log_mean, log_r).log_prob(x), (x, log_mean, log_r)),
        (Poisson(log_mean).log_prob(x), (x, log_mean)),
    ):
        expected = [exact(*(part.item() for part in row)) for row in zip(*parts, strict=True)]
        np.testing.assert_allclose(ours.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_log_prob_is_that_of_scipy():
    x = torch.arange(60.0, dtype=torch.float64)
    for mean in (0.2, 3.0, 40.0):
        log_mean = torch.tensor(mean, dtype=torch.float64).log()
        np.testing.assert_allclose(Poisson(log_mean).log_prob(x), stats.poisson(mean).logpmf(x), rtol=1e-10)
        for r in (0.1, 1.0, 2.5, 100.0):
            ours = NegativeBinomial(log_mean, torch.tensor(r, dtype=torch.float64).log())
            np.testing.assert_allclose(ours.log_prob(x), stats.nbinom(r, r / (r + mean)).logpmf(x), rtol=1e-9)
            np.testing.assert_allclose(ours.variance, stats.nbinom(r, r / (r + mean)).var())
            np.testing.assert_allclose(ours.mean, mean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_dispersion_it_is_the_poisson(dtype):
    """log p differs by O(((x − μ)² − x)/2r), and by nothing once that is below rounding."""
    for mean in (0.01, 1.0, 100.0, 1e4, 1e6):
        log_mean = torch.tensor(mean, dtype=dtype).log()
        x = (mean + torch.linspace(-3, 3, 41, dtype=dtype) * mean**0.5).round().clamp_min(0)
        poisson = Poisson(log_mean).log_prob(x)
        for r in (1e8, 1e10, 1e14, 1e20):
            other = NegativeBinomial(log_mean, torch.tensor(r, dtype=dtype).log()).log_prob(x)
            order = ((x - mean).square() + x).double() / r
            rounding = 50 * torch.finfo(dtype).eps * (1 + poisson.abs() + math.log(1 + mean) * mean**0.5)
            assert ((other - poisson).abs() <= order + rounding).all(), (mean, r)


def test_probabilities_sum_to_one():
    x = torch.arange(4000.0, dtype=torch.float64)
    log_mean = torch.tensor([-3.0, 0.0, 3.0, 5.0], dtype=torch.float64)
    for log_r in (-1.0, 1.0, 25.0):
        total = NegativeBinomial(log_mean, torch.tensor(log_r).double()).log_prob(x.unsqueeze(-1)).logsumexp(0)
        np.testing.assert_allclose(total, 0, atol=2e-3 if log_r < 0 else 1e-9)  # the tail beyond 4000
    np.testing.assert_allclose(Poisson(log_mean).log_prob(x.unsqueeze(-1)).logsumexp(0), 0, atol=1e-10)


def test_gradients():
    x = torch.tensor([0.0, 1.0, 7.0, 15.0, 16.0, 5000.0], dtype=torch.float64)
    log_mean = torch.tensor([-1.0, 0.5, 2.0, 2.0, 3.0, 8.0], dtype=torch.float64, requires_grad=True)
    for log_r in (-3.0, 0.0, 3.0, 15.0):
        at = torch.full((6,), log_r, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda a, b: NegativeBinomial(a, b).log_prob(x), (log_mean, at))
    assert torch.autograd.gradcheck(lambda a: Poisson(a).log_prob(x), log_mean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_nan_far_out(dtype):
    """Parameters as a bad step of an optimiser may leave them: the loss and its gradient are numbers."""
    grid = torch.cartesian_prod(*[torch.linspace(-30, 30, 13, dtype=dtype)] * 2)
    for x in (0.0, 1.0, 1000.0):
        log_mean, log_r = (part.clone().requires_grad_() for part in grid.unbind(-1))
        log_p = NegativeBinomial(log_mean, log_r).log_prob(torch.tensor(x, dtype=dtype))
        assert (log_p <= 0).all()
        for gradient in torch.autograd.grad(log_p.sum(), (log_mean, log_r)):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_have_the_moments(dtype):
    """Means and variances of 100,000 draws; false alarms below 1e-6 a number, the seed fixed."""
    torch.manual_seed(0)
    log_mean, log_r = torch.tensor([0.0, 3.0, 6.0], dtype=dtype), torch.tensor([0.0, 20.0, 1.0], dtype=dtype)
    for p in (Poisson(log_mean), NegativeBinomial(log_mean, log_r)):
        x = p.sample(torch.Size([100_000]))
        assert x.dtype == dtype
        assert (x % 1 == 0).all()
        x = x.double()
        for values, expected in ((x, p.mean), ((x - p.mean).square(), p.variance)):
            assert ((values.mean(0) - expected).abs() <= 5 * values.std(0) / len(x) ** 0.5).all()


def test_stirlings_error_to_50_digits():
    a = torch.tensor([1e-6, 0.5, 1.0, 14.99, 15.0, 15.01, 100.0, 1e8], dtype=torch.float64)
    with mpmath.workdps(50):
        expected = [
            float(mpmath.loggamma(v + 1) - (v + 0.5) * mpmath.log(v) + v - mpmath.log(2 * mpmath.pi) / 2)
            for v in map(mpmath.mpf, a.tolist())
        ]
    np.testing.assert_allclose(stirling_error(a), expected, rtol=1e-11, atol=1e-14)


def test_shapes_and_support():
    p = NegativeBinomial(torch.zeros(4, 1), torch.zeros(3), validate_args=True)
    assert p.batch_shape == (4, 3)
    assert p.expand(torch.Size([2, 4, 3])).log_prob(torch.zeros(3)).shape == (2, 4, 3)
    assert p.sample(torch.Size([5])).shape == (5, 4, 3)
    for wrong in (-1.0, 0.5):
        for q in (p, Poisson(torch.zeros(3), validate_args=True)):
            with pytest.raises(ValueError, match="support"):
                q.log_prob(torch.full((3,), wrong))
