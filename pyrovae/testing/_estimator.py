"""The contract of an estimator."""

import math
from collections.abc import Callable

import pyro
import torch
from pyro.distributions import MultivariateNormal
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae.distributions import covariance_of
from pyrovae.elbo import NoClosedFormError
from pyrovae.likelihoods import GaussianLikelihood
from pyrovae.posteriors import DiagonalPosterior, FullCovariancePosterior, Posterior
from pyrovae.testing._heads import dense_kl
from pyrovae.vae import AmortizedGuide, GenerativeModel

_PARTICLES, _REPEATS = 125, 80


def check_elbo(make: Callable[..., ELBO], *, bound: bool = False) -> None:
    """Check an estimator on a linear-Gaussian model, where the ELBO is known exactly, for β in {0, 0.3, 1}.

    Args:
        make: the class, or another callable that takes ``beta``, ``num_particles`` and
            ``vectorize_particles``.
        bound: whether the value is a tighter bound on log p(x) than the ELBO for each datum, equal to the ELBO at one
            particle.

    Raises:
        AssertionError: says which value is wrong, or which parameter receives no gradient.
    """
    for family in (DiagonalPosterior, FullCovariancePosterior):
        with torch.random.fork_rng(), pyro.validation_enabled(True):
            torch.manual_seed(0)
            model, guide, x, reconstruction, kl, log_p = _linear_gaussian(family)
            for beta in (0.0, 0.3, 1.0):
                elbo = make(beta=beta, num_particles=_PARTICLES, vectorize_particles=True)
                mean, stderr = _mean_loss(elbo, model, guide, x)
                exact = -(reconstruction - beta * kl).sum().item()
                if bound:
                    assert mean < exact - 5 * stderr, (
                        f"with {_PARTICLES} particles the bound {-mean} ± {stderr} is not above the ELBO {-exact}"
                    )
                    most = log_p.sum().item() if beta == 1 else math.inf
                    assert -mean <= most + 5 * stderr, f"the bound {-mean} ± {stderr} is above log p(x), {most}"
                    alone = [_mean_loss(elbo, model, guide, datum) for datum in x.split(1)]
                    apart, noise = sum(m for m, _ in alone), math.hypot(stderr, *(s for _, s in alone))
                    assert abs(mean - apart) <= 5 * noise, (
                        f"the bound of a batch is {-mean}, that of its data one by one {-apart}"
                    )
                    mean, stderr = _mean_loss(make(beta=beta, num_particles=1), model, guide, x, repeats=200)
                assert abs(mean - exact) <= 5 * stderr + 1e-9, (
                    f"at β = {beta} the loss is {mean} ± {stderr}, exactly {exact}"
                )
            one_by_one = make(num_particles=3)
            assert one_by_one.differentiable_loss(model, guide, x).dim() == 0, "the loss is not a scalar"
            model.zero_grad()
            guide.zero_grad()
            make().loss_and_grads(model, guide, x)
            for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
                assert parameter.grad is not None, f"loss_and_grads gives {name} no gradient"


def _linear_gaussian(
    family: Callable[[int, int], Posterior],
) -> tuple[GenerativeModel, AmortizedGuide, Tensor, Tensor, Tensor, Tensor]:
    """A model x = Az + b + N(0, σ²I), a guide, data, and E_q[log p(x|z)], KL and log p(x) per datum, exactly."""
    d, n, sigma = 2, 3, 0.7
    model = GenerativeModel(nn.Identity(), GaussianLikelihood(d, n, scale=sigma), d).double()
    guide = AmortizedGuide(nn.Identity(), family(n, d)).double()
    x = torch.randn(4, n, dtype=torch.float64)
    with torch.no_grad():
        q = guide.posterior(x)
        loadings = model.likelihood.get_parameter("loc_head.weight")
        error = (x - model.conditional(q.mean).mean).square().sum(-1)
        spread = (loadings @ covariance_of(q) @ loadings.T).diagonal(dim1=-2, dim2=-1).sum(-1)
        reconstruction = -0.5 * ((error + spread) / sigma**2 + n * math.log(2 * math.pi * sigma**2))
        covariance = loadings @ loadings.T + sigma**2 * torch.eye(n, dtype=x.dtype)
        log_p = MultivariateNormal(model.conditional(x.new_zeros(d)).mean, covariance).log_prob(x)
        return model, guide, x, reconstruction, dense_kl(q, model.prior_distribution()), log_p


@torch.no_grad()
def _mean_loss(
    elbo: ELBO, model: GenerativeModel, guide: AmortizedGuide, x: Tensor, repeats: int = _REPEATS
) -> tuple[float, float]:
    try:
        losses = torch.stack([elbo.differentiable_loss(model, guide, x) for _ in range(repeats)])
    except NoClosedFormError as error:
        raise AssertionError(str(error)) from None
    return losses.mean().item(), (losses.std() / math.sqrt(len(losses))).item()
