"""AR(1) posteriors: neighbouring latent dimensions are correlated. One scale and one ρ give the ρ-VAE's."""

import torch
from torch import Tensor, nn

from pyrovae.distributions import AR1Normal, MarkovNormal, bounded_fisher_z, is_tridiagonal
from pyrovae.distributions.ar1 import FISHER_Z_BOUND
from pyrovae.errors import InputError
from pyrovae.nn import LocHead, inverse_positive, positive
from pyrovae.posteriors.base import Posterior


class AR1Posterior(Posterior):
    """q(z|x) = N(μ(x), Σ(x)) with Σ_ij = σ_i σ_j ∏_{k=i}^{j−1} ρ_k: 2 to 2d−1 covariance parameters per datum.

    The default, one scale and one correlation, is the ρ-VAE of Ferdowsi et al. with its eq. (7) corrected (√s, not
    1/√s). The head returns Fisher's z = arctanh ρ, limited to (−8, 8) by a scaled tanh. The order of the latent
    dimensions matters for d ≥ 3. At d = 2, with a scale per dimension, the family contains every Gaussian.

    Args:
        in_features: width of the encoder's features.
        latent_dim: dimension d of z.
        scale: ``"shared"`` for one σ, ``"per-dimension"`` for d of them.
        correlation: ``"shared"`` for one ρ, ``"per-step"`` for d−1 of them.

    Example:
        >>> import torch
        >>> AR1Posterior(8, 3)(torch.zeros(5, 8)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """

    def __init__(
        self, in_features: int, latent_dim: int, *, scale: str = "shared", correlation: str = "shared"
    ) -> None:
        super().__init__(in_features, latent_dim)
        for name, value, other in (("scale", scale, "per-dimension"), ("correlation", correlation, "per-step")):
            if value not in ("shared", other):
                raise InputError(f"{name} must be 'shared' or {other!r}, not {value!r}")
        self.scale = scale
        self.correlation = correlation
        num_steps = max(latent_dim - 1, 1) if correlation == "per-step" else 1
        self._sizes = [latent_dim if scale == "per-dimension" else 1, num_steps]
        self.loc_head = LocHead(in_features, latent_dim)
        self.covariance_head = nn.Linear(in_features, sum(self._sizes))

    def forward(self, features: Tensor) -> AR1Normal:
        """q(z|x) for features (*batch, in_features)."""
        raw_scale, raw_fisher_z = self.covariance_head(features).split(self._sizes, dim=-1)
        return AR1Normal(self.loc_head(features), positive(raw_scale), fisher_z=bounded_fisher_z(raw_fisher_z))

    def closest_values(self, precision: Tensor) -> Tensor:
        """The bias of ``covariance_head`` that gives :meth:`Posterior.closest_covariance`.

        In closed form and exact where every step has its own numbers and P is tridiagonal: P⁻¹ is then in the family.
        """
        has_own_numbers = (self.scale, self.correlation) == ("per-dimension", "per-step")
        if not has_own_numbers or self.latent_dim == 1 or not is_tridiagonal(precision):
            return super().closest_values(precision)
        blocks = (precision.diagonal(offset).reshape(-1, 1, 1) for offset in (0, -1))
        exact = MarkovNormal.from_precision(precision.new_zeros(self.latent_dim), *blocks)
        fisher_z = exact.coupling.flatten().asinh()
        raw = FISHER_Z_BOUND * (fisher_z / FISHER_Z_BOUND).atanh()
        return torch.cat([inverse_positive(exact.marginal_scale_tril.flatten()), raw])
