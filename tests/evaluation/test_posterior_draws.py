"""Weighted draws of z against the exact posterior of a linear-Gaussian model."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.evaluation import posterior_draws


def test_weighted_draws_have_the_posteriors_moments_whatever_the_guide(linear):
    """Means of 2,000 draws within 5 standard errors, 8 data, 2 dimensions: fails once in 100,000."""
    x, model = linear.sample(8), linear.to_model()
    far = linear.gaussian_guide(0.2 * linear.gain, 4 * linear.covariance)
    before = torch.random.get_rng_state()
    draws = posterior_draws(model, far, x, num_samples=2000)
    assert torch.equal(before, torch.random.get_rng_state())
    assert draws.reliable.all()
    truth, weights = linear.posterior(x), draws.weights.unsqueeze(-1)
    mean = (weights * draws.z).sum(1)
    error = linear.covariance.diagonal().sqrt() / math.sqrt(2000)
    torch.testing.assert_close((mean - truth.mean) / error, torch.zeros(8, 2).double(), atol=5 * 1.3, rtol=0)
    spread = draws.z - mean.unsqueeze(1)
    covariance = (weights * spread).mT @ spread
    torch.testing.assert_close(covariance, linear.covariance.expand(8, 2, 2), rtol=0.25, atol=0.02)


def test_the_weights_mean_is_log_p(linear):
    x = linear.sample(8)
    draws = posterior_draws(linear.to_model(), linear.to_guide("diagonal"), x, num_samples=2000)
    found = draws.log_weights.logsumexp(1) - math.log(2000)
    torch.testing.assert_close(found, linear.log_prob(x), atol=0.1, rtol=0)


def test_too_few_draws_are_refused(linear):
    with pytest.raises(pv.InputError, match="num_samples must be an integer of at least 25"):
        posterior_draws(linear.to_model(), linear.to_guide(), linear.sample(2), num_samples=5)
