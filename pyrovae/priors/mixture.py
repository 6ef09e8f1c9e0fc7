"""A learned mixture of diagonal Gaussians as the prior."""

import torch
from pyro.distributions import Categorical, MixtureSameFamily, Normal
from torch import nn

from pyrovae.errors import check_integer
from pyrovae.nn import inverse_positive, positive
from pyrovae.priors.base import Prior


class MixturePrior(Prior):
    """p(z) = Σ_k w_k N(μ_k, diag σ_k²), all learned. No KL in closed form: use an estimator that samples.

    The means start as draws from N(0, I), the scales at 1, the weights equal.

    Args:
        latent_dim: dimension d of z.
        num_components: number K of components.

    Example:
        >>> MixturePrior(3, num_components=5)().sample().shape
        torch.Size([3])
    """

    def __init__(self, latent_dim: int, num_components: int = 10) -> None:
        super().__init__(latent_dim)
        check_integer("num_components", num_components)
        self.num_components = num_components
        self.loc = nn.Parameter(torch.empty(num_components, latent_dim))
        self.raw_scale = nn.Parameter(torch.empty(num_components, latent_dim))
        self.logits = nn.Parameter(torch.empty(num_components))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new means, and reset scales and weights to their initial values."""
        nn.init.normal_(self.loc)
        nn.init.constant_(self.raw_scale, inverse_positive(torch.ones(())).item())
        nn.init.zeros_(self.logits)

    def forward(self) -> MixtureSameFamily:
        """p(z)."""
        return MixtureSameFamily(
            Categorical(logits=self.logits), Normal(self.loc, positive(self.raw_scale)).to_event(1)
        )
