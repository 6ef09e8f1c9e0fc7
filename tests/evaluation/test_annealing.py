"""Annealed importance sampling, where log p(x) is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evaluation import UnreliableEstimateWarning
from pyrovae.evaluation._density import density_of
from pyrovae.evaluation.annealing import _transition, path_from


def test_weights_are_unbiased_both_ways(vae):
    """E[w] = p(x) forward and E[1/w] = 1/p(x) back, at so few temperatures that a wrong one would show."""
    model, guide = vae.to_model(), vae.to_guide("isotropic")
    with torch.random.fork_rng():
        _, x = model.simulate(1)
    z, x = vae.posterior(x).sample(torch.Size([20_000]))[:, 0], x.expand(20_000, -1)
    settings = {"method": "annealed", "num_samples": 1, "num_temperatures": 3}
    truth = vae.log_prob(x)
    for found, sign in (
        (pv.log_marginal(model, guide, x, **settings), 1),
        (pv.log_marginal(model, guide, x, reverse=True, latents=z, **settings), -1),
    ):
        ratio = (sign * (found.per_datum - truth)).exp()
        assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(len(ratio))
        assert ratio.std() / math.sqrt(len(ratio)) < 0.05


def test_transitions_leave_the_posterior_as_it_is(vae):
    """At steps so long that a third of them is refused: without the refusals the spread would be wrong."""
    z, x = vae.to_model().simulate(1)
    posterior = vae.posterior(x)
    density = density_of(vae.to_model(), vae.to_guide("isotropic"), x, slice(0, 1), 2**15)
    path = path_from(density, None, x, 10)
    z = posterior.sample(torch.Size([20_000]))
    start, moves = z, []
    for _ in range(5):
        z, moved = _transition(path, z, torch.tensor(1.0).double(), torch.full((1, 1), 1.1).double(), 3)
        moves.append(moved.mean().item())
    assert 0.3 < sum(moves) / 5 < 0.9
    assert (z != start).any(-1).double().mean() > 0.9
    z = z[:, 0]
    error = z.std(0) / math.sqrt(len(z))
    assert ((z.mean(0) - posterior.mean[0]).abs() < 4.5 * error).all()
    torch.testing.assert_close(torch.cov(z.T), vae.covariance, rtol=0.06, atol=0.02 * vae.covariance.max().item())


@pytest.mark.parametrize("scale", [1e-4, 1e-3, 0.03, 300.0, 1e4])
def test_chains_that_start_much_too_narrow_or_wide_are_unreliable(scale):
    """Their standard error was 0.4 where they were 10 nats too low."""
    model = pv.GenerativeModel(torch.nn.Identity(), pv.GaussianLikelihood(2, 2, scale=1.0), 2)
    with torch.no_grad():
        model.likelihood.loc_head.weight.copy_(torch.eye(2))
        model.likelihood.loc_head.bias.zero_()
    x = model.sample(4)

    def annealed(spread):
        def program(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.5 * x, 0.7 * spread).to_event(1))

        return pv.log_marginal(model, program, x, "annealed", num_temperatures=100)

    with pytest.warns(UnreliableEstimateWarning, match="the annealed chains of 100 % of the data differ too much"):
        found = annealed(scale)
    assert found.unreliable.all()
    exact = dist.Normal(0.0, math.sqrt(2)).log_prob(x).sum(-1)
    assert (exact - found.per_datum > 0.5).any()
    good = annealed(1.0)
    assert not good.unreliable.any()
    torch.testing.assert_close(good.per_datum, exact.double(), rtol=0, atol=0.02)


@pytest.mark.slow
def test_chains_that_start_near_are_seldom_called_unreliable_and_those_far_off_mostly(vae):
    """How often the rule of the chains' effective number is a false alarm, and how often it misses, over 100 data."""
    x = vae.sample(100)
    posterior, exact = vae.posterior(x), vae.log_prob(x)

    def annealed(spread):
        def program(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(posterior.mean, scale_tril=spread * posterior.scale_tril))

        found = pv.log_marginal(vae.to_model(), program, x, "annealed", num_temperatures=100)
        return found.unreliable, (found.per_datum - exact).abs() > 0.5

    for spread in (0.5, 2.0):
        alarms, far_off = annealed(spread)
        assert (alarms & ~far_off).sum() <= 3
        assert far_off.sum() <= 2
    with pytest.warns(UnreliableEstimateWarning):
        alarms, far_off = annealed(0.1)
    assert far_off.sum() > 20
    assert alarms[far_off].double().mean() > 0.8


def test_annealing_finds_the_mode_that_the_guide_overlooks():
    """A decoder that folds z: importance sampling from a guide on one side loses log 2, the prior's chains do not."""

    class Fold(torch.nn.Module):
        def forward(self, z):
            return z.abs()

    model = pv.GenerativeModel(Fold(), pv.GaussianLikelihood(1, 1, scale=0.3), 1)
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.DiagonalPosterior(1, 1))
    with torch.no_grad():
        for layer in (model.likelihood.loc_head, guide.posterior_head.loc_head):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
        guide.posterior_head.covariance_head.weight.zero_()
        guide.posterior_head.covariance_head.bias.fill_(math.log(math.expm1(0.45)))
    x = torch.tensor([[0.9], [1.2], [1.4]])
    grid = pv.log_marginal(model, guide, x, "quadrature", num_points=1000)
    settings = {"num_samples": 400, "num_temperatures": 60, "center": "prior"}
    chains = pv.log_marginal(model, guide, x, "annealed", **settings)
    assert ((chains.per_datum - grid.per_datum).abs() < 5 * chains.stderr_per_datum).all()
    assert chains.stderr_per_datum.max() < 0.05
    one_side = pv.log_marginal(model, guide, x, "importance", num_samples=1000)
    torch.testing.assert_close(one_side.per_datum[1:], grid.per_datum[1:] - math.log(2), atol=0.05, rtol=0)
    both = pv.log_marginal(model, guide, x, num_samples=1000)
    torch.testing.assert_close(both.per_datum, grid.per_datum, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be a positive integer, not 0"),
        ({"num_temperatures": 0}, "num_temperatures must be a positive integer"),
        ({"num_leapfrog": 1.5}, "num_leapfrog must be a positive integer"),
        ({"center": "data"}, "unknown center 'data'; choose one of prior, guide"),
        ({"reverse": True}, "reverse=True and latents="),
        ({"latents": torch.zeros(4, 2)}, r"latents must have shape \(4, 3\), not \(4, 2\)"),
        ({"latents": torch.full((4, 3), math.nan)}, "latents hold NaN or infinite values"),
        ({"latents": [[0.0]]}, "latents must be a tensor, not list"),
        ({"method": "importance", "reverse": True}, "reverse and latents are options of method='annealed'"),
        (
            {"method": "quadrature", "latents": torch.zeros(4, 3)},
            "reverse and latents are options of method='annealed'",
        ),
        ({"x": torch.zeros(4, 2)}, r"cannot run on data of shape \(4, 2\)"),
        ({"guide": lambda x: None}, "latent site 'z' of the model is missing in the guide"),
    ],
)
def test_bad_input(vae, arguments, message):
    settings = {"model": vae.to_model(), "guide": vae.to_guide(), "x": vae.sample(4), "method": "annealed"}
    with pytest.raises(ValueError, match=message):
        pv.log_marginal(**settings | arguments)


def test_latents_imply_that_the_chains_go_back(vae):
    z, x = vae.to_model().simulate(3)
    settings = {"num_samples": 2, "num_temperatures": 3, "latents": z}
    implied, said = (
        pv.log_marginal(vae.to_model(), vae.to_guide("diagonal"), x, "annealed", reverse=reverse, **settings)
        for reverse in (False, True)
    )
    assert implied.bound == "upper"
    assert (implied.per_datum == said.per_datum).all()
