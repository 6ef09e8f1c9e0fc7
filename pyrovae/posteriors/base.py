"""What every posterior family is: a head on the encoder's features that returns q(z|x)."""

from abc import ABC, abstractmethod

from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.nn import ConfigurableModule


class Posterior(ConfigurableModule, ABC):
    """Head that turns features (*batch, in_features) into q(z|x) with batch shape *batch, event_dim 1.

    All families take ``(in_features, latent_dim)`` first, so the encoder never learns which one it feeds.
    A new family is a subclass that makes its linear heads in ``__init__`` and returns its distribution
    from :meth:`forward`.

    Args:
        in_features: width of the encoder's features.
        latent_dim: dimension d of z.
    """

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("latent_dim", latent_dim)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a positive integer, not {value!r}")
        self.in_features = in_features
        self.latent_dim = latent_dim

    @abstractmethod
    def forward(self, features: Tensor) -> TorchDistribution:
        """q(z|x) for features (*batch, in_features)."""
