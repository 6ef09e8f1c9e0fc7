"""AR(1) posterior, the ρ-VAE's: one scale and one correlation for all latent dimensions."""

from torch import Tensor, nn

from pyrovae.distributions import AR1Normal
from pyrovae.nn import positive
from pyrovae.posteriors.base import Posterior

FISHER_Z_BOUND = 8.0
"""Largest |arctanh ρ|: beyond it the density loses its digits in float32."""


class AR1Posterior(Posterior):
    """q(z|x) = N(μ(x), σ(x)² R(ρ(x))), R_ij = ρ^|i−j|: two covariance parameters per datum.

    This is the ρ-VAE of Ferdowsi et al. with its eq. (7) mended (√s, not 1/√s). Its head gives
    Fisher's z = arctanh ρ, kept inside (−8, 8) by a scaled tanh.

    Example:
        >>> import torch
        >>> AR1Posterior(8, 3)(torch.zeros(5, 8)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__(in_features, latent_dim)
        self.covariance_head = nn.Linear(in_features, 2)

    def forward(self, features: Tensor) -> AR1Normal:
        """q(z|x) for features (*batch, in_features)."""
        raw_scale, raw_fisher_z = self.covariance_head(features).split(1, dim=-1)
        fisher_z = FISHER_Z_BOUND * (raw_fisher_z / FISHER_Z_BOUND).tanh()
        return AR1Normal(self.loc_head(features), positive(raw_scale), fisher_z=fisher_z)
