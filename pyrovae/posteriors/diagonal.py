"""Diagonal posterior, the usual choice: one scale per latent dimension, no correlation."""

from pyro.distributions import Independent, Normal
from torch import Tensor, nn

from pyrovae.nn import LocHead, inverse_positive, positive
from pyrovae.posteriors.base import Posterior


class DiagonalPosterior(Posterior):
    """q(z|x) = N(μ(x), diag σ(x)²): d covariance parameters per datum (Kingma & Welling 2014).

    Example:
        >>> import torch
        >>> DiagonalPosterior(8, 2)(torch.zeros(5, 8)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__(in_features, latent_dim)
        self.loc_head = LocHead(in_features, latent_dim)
        self.covariance_head = nn.Linear(in_features, latent_dim)

    def forward(self, features: Tensor) -> Independent:
        """q(z|x) for features (*batch, in_features)."""
        return Normal(self.loc_head(features), positive(self.covariance_head(features))).to_event(1)

    def closest_covariance(self, precision: Tensor) -> Tensor:
        """Diag(1 / P_ii): the closed form of :meth:`Posterior.closest_covariance`."""
        return precision.diagonal().reciprocal().diag()

    def closest_values(self, precision: Tensor) -> Tensor:
        """The bias of ``covariance_head`` that gives it."""
        return inverse_positive(self.closest_covariance(precision).diagonal().sqrt())
