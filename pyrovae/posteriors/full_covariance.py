"""Full-covariance posterior: any Gaussian, given by its Cholesky factor."""

import torch
from torch import Tensor, nn

from pyrovae.distributions import CholeskyNormal, fill_scale_tril, tril_position
from pyrovae.errors import InputError
from pyrovae.nn import LocHead, inverse_positive, positive
from pyrovae.posteriors.base import Posterior

_RELATIVE_FLOOR = 1e-3
"""Smallest diagonal entry of L relative to the size of the rest of its row."""


class FullCovariancePosterior(Posterior):
    """q(z|x) = N(μ(x), LLᵀ) with L = mask ⊙ L'(x) + diag σ(x): d(d+1)/2 covariance parameters per datum.

    The factor of the full-covariance slides (Shekhar 2023): L' free below the diagonal, σ > 0 on it.

    Example:
        >>> import torch
        >>> FullCovariancePosterior(8, 3)(torch.zeros(5, 8)).scale_tril.shape
        torch.Size([5, 3, 3])
    """

    position: Tensor
    row: Tensor

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__(in_features, latent_dim)
        position = tril_position(latent_dim)
        self.loc_head = LocHead(in_features, latent_dim)
        self.covariance_head = nn.Linear(in_features, len(position))
        self.register_buffer("position", position, persistent=False)
        self.register_buffer("row", torch.tril_indices(latent_dim, latent_dim, -1)[0], persistent=False)

    def forward(self, features: Tensor) -> CholeskyNormal:
        """q(z|x) for features (*batch, in_features)."""
        d = self.latent_dim
        raw_scale, below = self.covariance_head(features).split([d, len(self.position) - d], dim=-1)
        scale = self._bounded(positive(raw_scale), below)
        scale_tril = fill_scale_tril(scale, below, self.position)
        return CholeskyNormal(self.loc_head(features), scale_tril=scale_tril, diagonal=scale)

    def _bounded(self, scale: Tensor, below: Tensor) -> Tensor:
        """σ_i, at least a thousandth of Σ_j |L_ij| / √(d − 1) over the other entries of its row.

        L⁻¹ then stays within float32.
        """
        share = _RELATIVE_FLOOR / max(self.latent_dim - 1, 1) ** 0.5
        lacking = (-scale).index_add(-1, self.row, below.abs(), alpha=share)
        # exactly the scale itself wherever the factor is well conditioned; its derivative is cheaper than a maximum's
        return scale + lacking.relu()

    def closest_covariance(self, precision: Tensor) -> Tensor:
        """P⁻¹: the closed form of :meth:`Posterior.closest_covariance`."""
        return torch.linalg.inv(precision)

    def closest_values(self, precision: Tensor) -> Tensor:
        """The bias of ``covariance_head`` that gives it."""
        return self.values_of(self.closest_covariance(precision))

    def values_of(self, covariance: Tensor) -> Tensor:
        """The bias of ``covariance_head`` that gives this covariance, shape (d, d).

        Raises:
            InputError: it is not symmetric and positive definite.
        """
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed or not torch.allclose(covariance, covariance.T):
            raise InputError("covariance must be symmetric and positive definite")
        below = factor[torch.tril_indices(self.latent_dim, self.latent_dim, -1).unbind()]
        return torch.cat([inverse_positive(factor.diagonal()), below])

    @staticmethod
    def explained_variances(eigenvalues: Tensor) -> Tensor:
        """λ itself: the closed form of :meth:`Posterior.explained_variances`."""
        return eigenvalues
