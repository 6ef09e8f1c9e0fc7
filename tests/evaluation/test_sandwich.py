"""Bounds of log p(x) from both sides, where it is known."""

import math

import pytest
import torch

import pyrovae as pv


def test_the_sandwich_contains_the_truth(vae):
    """100 repeats of 20 data each."""
    found = pv.sandwich(vae.to_model(), vae.to_guide("diagonal"), 2000, num_samples=2, num_temperatures=60)
    truth = vae.log_prob(found.x).reshape(100, 20).mean(1)

    low, high = (side.per_datum.reshape(100, 20) for side in (found.lower, found.upper))
    low_error = found.lower.stderr_per_datum.reshape(100, 20).norm(dim=1) / 20
    high_error = (high - low).std(1) / math.sqrt(20)
    low, high = low.mean(1), high.mean(1)
    inside = (low - 2 * low_error <= truth) & (truth <= high + 2 * high_error)
    assert inside.sum() >= 95
    assert 0 < found.width < 0.1
    assert found.lower.mean < truth.mean() < found.upper.mean
    low, high = found.interval
    assert low < found.lower.mean
    assert found.upper.mean < high
    assert high - low < 0.1
    assert found.lower.acceptance.mean() == pytest.approx(0.8, abs=0.1)
    assert "≤" in str(found)


def test_a_model_with_dropout_is_simulated_as_it_is_evaluated():
    decoder = torch.nn.Sequential(pv.nn.MLP(2, 8), torch.nn.Dropout(0.5))
    model = pv.GenerativeModel(decoder, pv.GaussianLikelihood(8, 3, scale=0.3), 2)
    with torch.no_grad():
        model.likelihood.loc_head.weight.mul_(5)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
    found = pv.sandwich(model, guide, 40, num_samples=4, num_temperatures=60, center="prior")
    assert model.training
    grid = pv.log_marginal(model, guide, found.x, "quadrature", num_points=100)
    low, high = found.interval
    assert low < grid.mean < high


def test_a_flows_bounds_and_a_nonlinear_model_on_a_grid():
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3, scale=0.4), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.FlowPosterior(8, 2))
    found = pv.sandwich(model, guide, 30, num_samples=4, num_temperatures=30)
    grid = pv.log_marginal(model, guide, found.x, "quadrature", num_points=100)
    low, high = found.interval
    assert low < grid.mean < high
    assert high - low < 0.5


def test_bad_input(vae):
    with pytest.raises(TypeError, match="sandwich needs a GenerativeModel"):
        pv.sandwich(lambda x: None, vae.to_guide())
    with pytest.raises(ValueError, match="to simulate from the model, must be a positive integer, not 0"):
        pv.sandwich(vae.to_model(), vae.to_guide(), 0)
    with pytest.raises(TypeError, match=r"sandwich\(\) has no setting 'num_temperature' \(did you mean 'num_temper"):
        pv.sandwich(vae.to_model(), vae.to_guide(), 2, num_temperature=20)
