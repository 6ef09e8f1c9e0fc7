"""The contract of a prior."""

from collections.abc import Callable

import pyro
import torch
from pyro.distributions import MultivariateNormal
from torch import nn
from torch.distributions import kl_divergence

from pyrovae.distributions import covariance_of, mean_of
from pyrovae.likelihoods import GaussianLikelihood
from pyrovae.posteriors import DiagonalPosterior, FullCovariancePosterior
from pyrovae.priors import Prior
from pyrovae.testing._heads import assert_close, assert_mean, check_config, check_fresh_start, dense_kl, random_head
from pyrovae.vae import GenerativeModel


def check_prior(make: Callable[[int], Prior], *, latent_dims: tuple[int, ...] = (2, 6), gaussian: bool = False) -> None:
    """Check that a prior, a subclass of :class:`~pyrovae.priors.Prior`, is correct in every use.

    It checks the shapes of p(z), its draws and their log-density; that the density integrates to 1; that the draws have
    this density, by their mean, covariance and the score of every parameter, whose mean over draws is 0; that every
    parameter receives a gradient; that a model accepts the prior; and that the state can be saved, loaded and reset.

    Args:
        make: the class, or another callable of (latent_dim).
        latent_dims: dimensions to check.
        gaussian: whether p(z) is Gaussian: then density and divergences from it are compared with dense algebra.

    Raises:
        AssertionError: names the first part that is wrong.
    """
    for d in latent_dims:
        with torch.random.fork_rng(), pyro.validation_enabled(True):
            torch.manual_seed(d)
            prior = make(d).double()
            for parameter in prior.parameters():
                nn.init.normal_(parameter, std=0.5)
            _check_prior(prior, gaussian)
            assert make(d)().sample().dtype == torch.float32, "draws are not of the default type"
            again = make(d).double()
            again.load_state_dict(prior.state_dict())
            z = prior().sample(torch.Size([5]))
            torch.testing.assert_close(again().log_prob(z), prior().log_prob(z), rtol=0, atol=0)
            check_config(prior)
            check_fresh_start(make(d), make(d))
            GenerativeModel(nn.Identity(), GaussianLikelihood(d, 3), d, prior=make(d)).sample(2)


def _check_prior(prior: Prior, gaussian: bool) -> None:
    p, d = prior(), prior.latent_dim
    assert (p.batch_shape, p.event_shape) == ((), (d,)), f"shapes {tuple(p.batch_shape)} and {tuple(p.event_shape)}"
    z = p.sample(torch.Size([20_000]))
    assert z.shape == (20_000, d), f"draws of shape {tuple(z.shape)}"
    assert p.log_prob(z).shape == (20_000,), "log_prob has the wrong shape"
    torch.testing.assert_close(p.expand(torch.Size([5])).log_prob(z[:5]), p.log_prob(z[:5]))
    mean, covariance = (moment(p, num_draws=20_000).detach() for moment in (mean_of, covariance_of))
    centred = z - mean
    assert_mean(centred, torch.zeros_like(mean), "the mean of the draws is not the declared one")
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    assert_mean(products, covariance, "the covariance of the draws is not the declared one")
    wide = MultivariateNormal(mean, 2 * covariance)
    draws = wide.sample(torch.Size([20_000]))
    ratio = (p.log_prob(draws).detach() - wide.log_prob(draws)).exp().unsqueeze(-1)
    assert_mean(ratio, torch.ones(1).to(ratio), "the density does not integrate to 1")
    named = [(name, parameter) for name, parameter in prior.named_parameters() if parameter.requires_grad]
    for name, parameter in named:
        parts = [p.log_prob(part).mean() for part in z.split(200)]
        score = torch.stack([torch.autograd.grad(part, parameter, retain_graph=True)[0].flatten() for part in parts])
        assert score.abs().max() > 0, f"{name} receives a zero gradient"
        assert_mean(score, torch.zeros_like(score[0]), f"draws do not have the density of {name}")
    if gaussian:
        assert_close("log_prob", p.log_prob(z[:50]), MultivariateNormal(mean, covariance).log_prob(z[:50]))
        for family in (DiagonalPosterior, FullCovariancePosterior):
            q = random_head(family, d)(torch.randn(3, 4, dtype=torch.float64))
            assert_close(f"KL of a {family.__name__}", kl_divergence(q, p), dense_kl(q, p))
