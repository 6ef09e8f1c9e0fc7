"""Grids: the lecture notes' toy integrals, and log p(x) where it is known."""

import math

import pyro
import pytest
import torch

import pyrovae as pv
from pyrovae.evaluation.quadrature import gauss_hermite_rule, midpoint_rule
from pyrovae.linear_gaussian.exact import LinearGaussianVAE


def integral(function, low, high, num_points):
    nodes, log_weights = midpoint_rule(torch.tensor(low).double(), torch.tensor(high).double(), num_points)
    return (log_weights.exp() * function(nodes)).sum().item()


def test_the_notes_toy_integrals():
    assert integral(lambda z: (z[:, 0] + 1) ** 2, [0.0], [1.0], 5) == pytest.approx(2.33, abs=1e-12)
    assert integral(lambda z: (z[:, 0] + 1) ** 2, [0.0], [1.0], 2000) == pytest.approx(7 / 3, abs=1e-6)
    truth = (1 - math.exp(-1)) ** 2
    assert truth == pytest.approx(0.3996, abs=5e-5)
    assert integral(lambda z: torch.exp(-z.sum(-1)), [0.0, 0.0], [1.0, 1.0], 200) == pytest.approx(truth, abs=1e-5)


def test_gauss_hermite_is_exact_for_polynomials():
    nodes, log_weights = gauss_hermite_rule(2, 4)
    weights = log_weights.exp()
    assert weights.sum().item() == pytest.approx(1, abs=1e-12)
    moments = {(2, 0): 1, (4, 2): 3, (6, 4): 45, (1, 2): 0}
    for (i, j), expected in moments.items():
        assert (weights * nodes[:, 0] ** i * nodes[:, 1] ** j).sum().item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("center", ["prior", "guide"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_log_p_within_the_stated_error(d, center):
    truth = LinearGaussianVAE(torch.randn(4, d), 0.8, torch.randn(4))
    x = truth.sample(50)
    num_points = {1: 200, 2: 80, 3: 40}[d] if center == "prior" else 12
    found = pv.log_marginal(
        truth.to_model(), truth.to_guide("isotropic"), x, "quadrature", num_points=num_points, center=center
    )
    error = (found.per_datum - truth.log_prob(x)).abs()
    assert (error <= found.quadrature_error + 1e-7).all()
    assert error.max() < 0.02
    assert found.stderr_monte_carlo == 0
    assert found.mean == pytest.approx(truth.log_prob(x).mean().item(), abs=0.02)


def test_a_posterior_of_two_modes_around_the_prior_and_a_float32_model():
    """A decoder that folds z has a posterior with two modes; the guide covers one."""

    class Fold(torch.nn.Module):
        def forward(self, z):
            return z.abs()

    model = pv.GenerativeModel(Fold(), pv.GaussianLikelihood(1, 1, scale=0.1), 1)
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.DiagonalPosterior(1, 1))
    with torch.no_grad():
        for layer, weight in ((model.likelihood.loc_head, 1.0), (guide.posterior_head.loc_head, 1.0)):
            layer.weight.fill_(weight)
            layer.bias.zero_()
        guide.posterior_head.covariance_head.weight.zero_()
        guide.posterior_head.covariance_head.bias.fill_(math.log(math.expm1(0.1)))
    x = torch.tensor([[0.8], [1.5]])
    every = [pv.log_marginal(model, guide, x, "quadrature", num_points=400, seed=seed) for seed in range(20)]
    both = pv.log_marginal(model, guide, x, "quadrature", num_points=2000)
    one = pv.log_marginal(model, guide, x, "quadrature", num_points=30, center="guide")
    spread = (1 + 0.01) ** 0.5
    truth = math.log(2) + torch.distributions.Normal(0.0, spread).log_prob(x).squeeze(-1).double()
    torch.testing.assert_close(both.per_datum, truth, atol=1e-4, rtol=0)
    for found in every:  # no seed misses the other mode
        torch.testing.assert_close(found.per_datum, truth, atol=0.01, rtol=0)
    torch.testing.assert_close(one.per_datum, truth - math.log(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_points": 1}, "num_points must be an integer of at least 2, not 1"),
        ({"center": "data"}, "unknown center 'data'; choose one of prior, guide, mode"),
        ({"x": torch.zeros(4, 3)}, r"cannot run on data of shape \(4, 3\)"),
        ({"guide": lambda x: None}, "latent site 'z' of the model is missing in the guide"),
    ],
)
def test_bad_input(arguments, message):
    truth = LinearGaussianVAE(torch.randn(4, 2), 0.8)
    settings = {"model": truth.to_model(), "guide": truth.to_guide(), "x": truth.sample(3), "method": "quadrature"}
    with pytest.raises(ValueError, match=message):
        pv.log_marginal(**settings | arguments)


def test_too_many_dimensions():
    truth = LinearGaussianVAE(torch.randn(12, 10), 0.8)
    with pytest.raises(ValueError, match="at most 3 latent dimensions, not 10; use method='importance'"):
        pv.log_marginal(truth.to_model(), truth.to_guide(), truth.sample(3), "quadrature")


@pytest.mark.parametrize("scale", [1e-3, 0.1, 3.0])
def test_the_grid_is_as_wide_as_the_posterior_wherever_it_lies(scale):
    """Far out and narrow, or near and wide: a reach that is not 6 standard deviations loses digits or mass."""
    truth = LinearGaussianVAE(torch.tensor([[1.0]]), scale, torch.zeros(1))
    x = torch.tensor([[8.0], [-0.5]], dtype=torch.float64)
    found = pv.log_marginal(truth.to_model(), truth.to_guide("isotropic"), x, "quadrature", num_points=24)
    torch.testing.assert_close(found.per_datum, truth.log_prob(x), rtol=0, atol=1e-6)
    assert found.quadrature_error.max() < 1e-5


def test_a_heavy_tail_is_warned_of():
    """A Cauchy prior under a likelihood that saturates: the grid cannot reach all of the mass, and says so."""

    class Saturated(torch.nn.Module):
        def forward(self, z):
            return z.tanh()

    prior = pyro.distributions.Cauchy(torch.zeros(1), 1.0).to_event(1)
    model = pv.GenerativeModel(Saturated(), pv.GaussianLikelihood(1, 1, scale=0.5), 1, prior=prior)
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.DiagonalPosterior(1, 1))
    with pytest.warns(pv.UnreliableEstimateWarning, match="quadrature: the grid's error is above 0.1 nats"):
        pv.log_marginal(model, guide, torch.tensor([[0.9]]), "quadrature")


def test_the_reach_is_in_standard_deviations():
    """A posterior of standard deviation 28.7: a reach of 6 variances would be coarser than it is wide."""
    prior = pyro.distributions.Normal(torch.zeros(1), 30.0).to_event(1)
    model = pv.GenerativeModel(torch.nn.Identity(), pv.GaussianLikelihood(1, 1, scale=100.0), 1, prior=prior)
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.DiagonalPosterior(1, 1))
    with torch.no_grad():
        model.likelihood.loc_head.weight.fill_(1.0)
        model.likelihood.loc_head.bias.zero_()
    found = pv.log_marginal(model, guide, torch.tensor([[50.0]]), "quadrature", num_points=24)
    right = pyro.distributions.Normal(0.0, (30.0**2 + 100.0**2) ** 0.5).log_prob(torch.tensor(50.0)).item()
    assert found.mean == pytest.approx(right, abs=1e-4)


def test_modes_of_unlike_width_are_each_reached_in_their_own_deviations():
    """A narrow mode and one ten times as wide: a reach of 6 · 10² deviations would step over the first."""
    normal = torch.distributions.Normal

    def log_joint(x, z):
        narrow, wide = normal(0.0, 0.1).log_prob(z) + math.log(0.6), normal(8.0, 1.0).log_prob(z) + math.log(0.4)
        return torch.stack([narrow, wide]).logsumexp(0).sum(-1)

    guide = normal(4.0, 6.0)
    pair = pv.evaluation.Callables(
        log_joint, lambda x: guide.sample(x.shape), lambda x, z: guide.log_prob(z).sum(-1).expand(len(x))
    )
    found = pv.log_marginal(*pair, torch.zeros(2, 1), "quadrature", num_points=200)
    torch.testing.assert_close(found.per_datum, torch.zeros(2).double(), rtol=0, atol=1e-4)
