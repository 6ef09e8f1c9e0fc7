"""The continuous Bernoulli against quadrature, its distribution function and finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pyrovae.distributions import ContinuousBernoulli

LOGITS = np.multiply.outer([1, -1], [0, 1e-9, 1e-4, 0.0039, 0.0041, 0.3, 0.999, 1.001, 3, 9, 17, 40, 100, 700]).ravel()


def log_normalizer(l):  # noqa: E741
    """Log ∫₀¹ exp(l x) dx and its first two derivatives, by Gauss–Legendre sums of positive terms."""
    x, w = np.polynomial.legendre.leggauss(100)
    # in pieces that follow the exponential's decay away from its larger end
    edges = np.minimum(1, np.concatenate([[0], np.geomspace(min(1, 1 / (1 + abs(l))), 1, 12)]))
    s, w = (
        (edges[:-1, None] + np.diff(edges)[:, None] * (x + 1) / 2).ravel(),
        (np.diff(edges)[:, None] * w / 2).ravel(),
    )
    w = w * np.exp(-abs(l) * s)
    mean = (w * s).sum() / w.sum()
    variance = (w * (s - mean) ** 2).sum() / w.sum()
    return max(l, 0) + math.log(w.sum()), 1 - mean if l > 0 else mean, variance


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-14), (torch.float32, 3e-7)])
def test_the_continuous_bernoulli_is_right_to_rounding(dtype, error):
    x = torch.tensor([0.0, 0.25, 1.0], dtype=dtype)
    for given in LOGITS:
        logits = torch.tensor(given, dtype=dtype, requires_grad=True)
        l = logits.item()  # noqa: E741
        log_z, mean, variance = log_normalizer(l)
        p = ContinuousBernoulli(logits)
        expected = [l * v - log_z for v in x.tolist()]
        assert p.log_prob(x).tolist() == pytest.approx(expected, abs=error * (1 + abs(l)))
        for value in x:
            (slope,) = torch.autograd.grad(p.log_prob(value), logits)
            assert slope.item() == pytest.approx(value.item() - mean, abs=error)
        assert p.mean.item() == pytest.approx(mean, abs=error)
        assert p.variance.item() == pytest.approx(variance, rel=30 * error)
        assert p.entropy().item() == pytest.approx(log_z - l * mean, abs=error * (1 + abs(l)))


def test_pytorchs_own_continuous_bernoulli_is_not():
    # the reason why there is one here; should this fail, PyTorch's may do
    logits = torch.tensor([0.0041, 20.0], requires_grad=True)
    p = torch.distributions.ContinuousBernoulli(logits=logits)
    log_prob = p.log_prob(torch.full((2,), 0.3))
    (slope,) = torch.autograd.grad(log_prob[0], logits, retain_graph=True)
    assert abs(slope[0].item() - (0.3 - log_normalizer(0.0041)[1])) > 1e-4
    assert abs(log_prob[1].item() - (20 * 0.3 - log_normalizer(20.0)[0])) > 0.1


@pytest.mark.parametrize("logit", [-300.0, -5.0, -1e-3, 0.0, 0.02, 2.0, 50.0])
def test_draws_of_the_continuous_bernoulli(logit):
    p = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    x = p.rsample(torch.Size([20_000])).numpy()

    def cdf(value):
        return np.expm1(logit * value) / math.expm1(logit) if logit else value

    # a right sampler fails once in a million; the seed is fixed
    assert stats.kstest(x, cdf if abs(logit) < 100 else lambda value: 1 - np.exp(logit * value)).pvalue > 1e-6
    assert ((x >= 0) & (x <= 1)).all()


def test_draws_have_the_gradient_of_the_quantile():
    logits = torch.tensor([-3.0, 0.4, 2.0], dtype=torch.float64, requires_grad=True)

    def draw(logits):
        torch.manual_seed(0)
        return ContinuousBernoulli(logits).rsample()

    assert torch.autograd.gradcheck(draw, logits)
