"""Isotropic posterior: one scale for all latent dimensions."""

import torch
from pyro.distributions import Independent, Normal
from torch import Tensor, nn

from pyrovae.nn import LocHead, inverse_positive, positive
from pyrovae.posteriors.base import Posterior


class IsotropicPosterior(Posterior):
    """q(z|x) = N(μ(x), σ(x)² I): one covariance parameter per datum.

    Example:
        >>> import torch
        >>> IsotropicPosterior(8, 2)(torch.zeros(5, 8)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__(in_features, latent_dim)
        self.loc_head = LocHead(in_features, latent_dim)
        self.covariance_head = nn.Linear(in_features, 1)

    def forward(self, features: Tensor) -> Independent:
        """q(z|x) for features (*batch, in_features)."""
        return Normal(self.loc_head(features), positive(self.covariance_head(features))).to_event(1)

    def closest_covariance(self, precision: Tensor) -> Tensor:
        """(d / tr P) I: the closed form of :meth:`Posterior.closest_covariance`."""
        return torch.eye(self.latent_dim, dtype=torch.float64).to(precision) * self.latent_dim / precision.trace()

    def closest_values(self, precision: Tensor) -> Tensor:
        """The bias of ``covariance_head`` that gives it."""
        return inverse_positive(self.closest_covariance(precision).diagonal().sqrt()[:1])

    @staticmethod
    def explained_variances(eigenvalues: Tensor) -> Tensor:
        """√λ_i · mean(√λ): the closed form of :meth:`Posterior.explained_variances`."""
        return eigenvalues.sqrt() * eigenvalues.sqrt().mean()
