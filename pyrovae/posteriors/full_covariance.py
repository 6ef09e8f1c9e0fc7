"""Full-covariance posterior: any Gaussian, by its Cholesky factor."""

import torch
from torch import Tensor, nn

from pyrovae.distributions import CholeskyNormal
from pyrovae.nn import positive
from pyrovae.posteriors.base import Posterior


class FullCovariancePosterior(Posterior):
    """q(z|x) = N(μ(x), LLᵀ) with L = mask ⊙ L'(x) + diag σ(x): d(d+1)/2 covariance parameters per datum.

    The factor of the full-covariance slides (Shekhar 2023): L' free below the diagonal, σ > 0 on it.

    Example:
        >>> import torch
        >>> FullCovariancePosterior(8, 3)(torch.zeros(5, 8)).scale_tril.shape
        torch.Size([5, 3, 3])
    """

    position: Tensor

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__(in_features, latent_dim)
        below = torch.tril_indices(latent_dim, latent_dim, offset=-1)
        self.loc_head = nn.Linear(in_features, latent_dim)
        self.covariance_head = nn.Linear(in_features, latent_dim + below.shape[1])
        rows, columns = torch.cat([torch.arange(latent_dim).expand(2, -1), below], dim=1)
        # Where in the flattened L the entries [σ, L' below the diagonal by rows] belong.
        self.register_buffer("position", rows * latent_dim + columns, persistent=False)

    def forward(self, features: Tensor) -> CholeskyNormal:
        """q(z|x) for features (*batch, in_features)."""
        d = self.latent_dim
        raw_scale, below = self.covariance_head(features).split([d, len(self.position) - d], dim=-1)
        scale = positive(raw_scale)
        entries = torch.cat([scale, below], dim=-1)
        # One scatter, whose derivative is a gather: a gather's derivative would be a slower scatter_add.
        zeros = entries.new_zeros(d * d).expand(*entries.shape[:-1], d * d)
        scale_tril = zeros.scatter(-1, self.position.expand(entries.shape), entries).unflatten(-1, (d, d))
        return CholeskyNormal(self.loc_head(features), scale_tril=scale_tril, diagonal=scale)
