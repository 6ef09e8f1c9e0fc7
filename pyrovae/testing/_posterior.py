"""The contract of a posterior family."""

from collections.abc import Callable

import pyro
import torch
from pyro.distributions import MultivariateNormal, Normal, TorchDistribution
from torch.distributions import kl_divergence

from pyrovae.distributions import covariance_of
from pyrovae.posteriors import Posterior
from pyrovae.testing._heads import assert_close, check_density, check_module, check_score, dense_kl, random_head


def check_posterior(
    make: Callable[[int, int], Posterior], *, latent_dims: tuple[int, ...] = (2, 5), gaussian: bool = True
) -> None:
    """Check that a posterior family, a subclass of :class:`~pyrovae.posteriors.Posterior`, is correct in every use.

    It checks the shapes of q(z|x), its draws and their log-density; the independence of data from each other; the
    gradient of reparameterised draws against finite differences; that every parameter receives a gradient; and that the
    state can be saved, loaded and reset. For a Gaussian family it also checks the density, the entropy, the moments of
    draws and the KL against dense algebra; for another family, that the draws have the density of ``log_prob``.

    Args:
        make: the class, or another callable of (in_features, latent_dim).
        latent_dims: dimensions to check.
        gaussian: whether q(z|x) is Gaussian, with ``mean``, a covariance, ``entropy`` and a KL to N(0, I).

    Raises:
        AssertionError: names the first part that is wrong.
    """
    for d in latent_dims:
        with torch.random.fork_rng(), pyro.validation_enabled(True):
            torch.manual_seed(d)
            head = random_head(make, d)
            check_module(head, make, d, lambda q: q.rsample())
            assert make(4, d)(torch.randn(3, 4)).rsample().dtype == torch.float32, "float32 features give other draws"
            if gaussian:
                _check_gaussian(head(torch.randn(3, 4, dtype=torch.float64)))
            else:
                check_score(head)


def _check_gaussian(q: TorchDistribution) -> None:
    check_density(q)
    assert_close("entropy", q.entropy(), MultivariateNormal(q.mean, covariance_of(q)).entropy())
    d = q.event_shape[0]
    standard = Normal(torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64)).to_event(1)
    wide = Normal(torch.linspace(-1, 1, d, dtype=torch.float64), torch.linspace(0.5, 2, d, dtype=torch.float64))
    for p in (standard, wide.to_event(1)):
        assert_close("KL to an independent Normal", kl_divergence(q, p), dense_kl(q, p))
