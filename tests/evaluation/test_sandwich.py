"""Bounds of log p(x) from both sides, where it is known."""

import math

import pyro
import pyro.distributions as dist
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
    with pytest.raises(pv.InputError, match="like= is needed for a model written by hand"):
        pv.sandwich(lambda x: None, vae.to_guide())
    with pytest.raises(ValueError, match="to simulate from the model, must be a positive integer, not 0"):
        pv.sandwich(vae.to_model(), vae.to_guide(), 0)
    with pytest.raises(TypeError, match=r"sandwich\(\) has no setting 'num_temperature' \(did you mean 'num_temper"):
        pv.sandwich(vae.to_model(), vae.to_guide(), 2, num_temperature=20)


def log_normal(x):
    """s ~ LogNormal(0, 1), x ~ N(log s, 1), so x ~ N(0, 2)."""
    with pyro.plate("data", len(x)):
        s = pyro.sample("s", dist.LogNormal(torch.zeros(len(x)), 1.0))
        loc = pyro.deterministic("loc", s.log())  # no site of the data's
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, 0])


def guide_of_log_normal(x):
    with pyro.plate("data", len(x)):
        pyro.sample("s", dist.LogNormal(0.4 * x[:, 0], 0.8))


def test_the_sandwich_of_programs_by_hand_contains_the_truth():
    """The latents of the simulated data are taken into the guide's own coordinates, log s."""
    before = torch.get_rng_state()
    found = pv.sandwich(log_normal, guide_of_log_normal, 150, like=torch.zeros(7, 1), num_temperatures=40)
    assert torch.equal(before, torch.get_rng_state())
    assert found.x.shape == (150, 1)
    assert found.x.var().item() == pytest.approx(2.0, abs=5 * 2.0 * math.sqrt(2 / 150))
    truth = dist.Normal(0.0, math.sqrt(2.0)).log_prob(found.x).mean().item()
    low, high = found.interval
    assert low < truth < high
    assert high - low < 0.02


def test_data_that_cannot_be_drawn_in_the_place_of_others_are_refused():
    def covariate(x):
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.LogNormal(0.1 * x[:, 0], 1.0))
            pyro.sample("x", dist.Normal(s.log(), 1.0), obs=x[:, 0])

    def twice(x):
        log_normal(x)
        with pyro.plate("again", len(x)):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=x[:, 0])

    def factor(x):
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.LogNormal(torch.zeros(len(x)), 1.0))
            pyro.factor("f", -((s.log() - x[:, 0]) ** 2))

    like = torch.tensor([[0.0], [1.0]])
    for model, message in (
        (covariate, "the model uses its data otherwise than to observe them at site 'x'"),
        (twice, "the model observes 'x', 'y', so no data can be drawn from it"),
        (factor, "the model observes 'f', so no data can be drawn from it"),
    ):
        with pytest.raises(pv.InputError, match=message):
            pv.sandwich(model, guide_of_log_normal, 4, like=like, num_temperatures=5)
