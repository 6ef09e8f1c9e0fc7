"""Base class of the priors: a module that returns p(z)."""

from abc import ABC, abstractmethod

from pyro.distributions import TorchDistribution

from pyrovae.errors import check_integer
from pyrovae.nn import ConfigurableModule


class Prior(ConfigurableModule, ABC):
    """Module that returns p(z), with batch shape () and event shape (latent_dim,).

    To add a prior, write a subclass: ``__init__`` calls ``super().__init__(latent_dim)`` and stores each further
    argument under its own name (:meth:`config` reads them to save the prior). Parameters need a method
    ``reset_parameters(self)`` that sets them to their initial values. :meth:`forward` returns the distribution, with
    ``log_prob``, ``sample`` and, where they are known, ``mean`` and a covariance. Where
    :func:`torch.distributions.kl.register_kl` has no closed form for it, use an estimator that samples, such as
    :class:`~pyrovae.MonteCarloELBO`; :class:`~pyrovae.AnalyticELBO` refuses the pair.
    :func:`pyrovae.testing.check_prior` checks a prior.

    Args:
        latent_dim: dimension d of z.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        check_integer("latent_dim", latent_dim)
        self.latent_dim = latent_dim

    @abstractmethod
    def forward(self) -> TorchDistribution:
        """p(z)."""
