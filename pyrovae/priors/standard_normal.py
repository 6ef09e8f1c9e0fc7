"""The standard Normal prior."""

import torch
from pyro.distributions import Independent, Normal

from pyrovae.priors.base import Prior


class StandardNormalPrior(Prior):
    """p(z) = N(0, I), the prior that a :class:`~pyrovae.GenerativeModel` has by default.

    Args:
        latent_dim: dimension d of z.

    Example:
        >>> StandardNormalPrior(3)().variance
        tensor([1., 1., 1.])
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self) -> Independent:
        """p(z)."""
        return Normal(self.get_buffer("loc"), self.get_buffer("scale")).to_event(1)
