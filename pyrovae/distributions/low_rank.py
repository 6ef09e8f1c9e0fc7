"""The low-rank-plus-diagonal Gaussian, whose covariance may be shared by all data."""

import torch
from pyro.distributions import LowRankMultivariateNormal, TorchDistribution
from torch import Tensor

from pyrovae.errors import InputError

RELATIVE_FLOOR = 1e-4
"""Smallest D_i relative to Σ_j W_ij²: below it, I + Wᵀ D⁻¹ W cannot be factorised in float32."""


class LowRankNormal(LowRankMultivariateNormal):
    """Pyro's ``LowRankMultivariateNormal``, Σ = diag(D) + WWᵀ, which replicas can run with a W shared by all data.

    Draws and densities are the same. Torch adds the identity to WᵀD⁻¹W in place along a diagonal, for which
    ``torch.vmap`` has no rule where W has no batch axes.

    Args:
        loc: mean μ, shape (*batch, d).
        cov_factor: W, shape (*batch, d, r) or (d, r).
        cov_diag: D > 0, shape (*batch, d) or (d,).
        validate_args: whether to check the values.

    Example:
        >>> LowRankNormal(torch.zeros(5, 3), torch.ones(3, 1), torch.ones(3)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None) -> None:
        d, rank = loc.shape[-1], cov_factor.shape[-1]
        if cov_factor.shape[-2:] != (d, rank) or cov_diag.shape[-1:] != (d,):
            raise InputError(
                f"loc (…, d), cov_factor (…, d, r) and cov_diag (…, d) do not fit: "
                f"{tuple(loc.shape)}, {tuple(cov_factor.shape)}, {tuple(cov_diag.shape)}"
            )
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc = loc.expand((*batch_shape, d))
        self.cov_factor = cov_factor.expand((*batch_shape, d, rank))
        self.cov_diag = cov_diag.expand((*batch_shape, d))
        self._unbroadcasted_cov_factor = cov_factor
        self._unbroadcasted_cov_diag = cov_diag
        eye = torch.eye(rank, dtype=loc.dtype, device=loc.device)
        self._capacitance_tril = torch.linalg.cholesky(eye + cov_factor.mT @ (cov_factor / cov_diag.unsqueeze(-1)))
        TorchDistribution.__init__(self, batch_shape, torch.Size([d]), validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: "LowRankNormal | None" = None) -> "LowRankNormal":
        """The same distribution with its batch shape broadcast to ``batch_shape``."""
        return super().expand(batch_shape, _instance=self._get_checked_instance(LowRankNormal, _instance))
