"""Gaussian likelihood whose noise is correlated along the channels."""

import torch.nn.functional as F
from torch import Tensor

from pyrovae.distributions import AR1Normal, bounded_fisher_z
from pyrovae.distributions.ar1 import FISHER_Z_BOUND, log_sech
from pyrovae.errors import InputError
from pyrovae.likelihoods._noise import CovarianceLikelihood


class AR1GaussianLikelihood(CovarianceLikelihood):
    """p(x|z) = N(x̂(z), Σ) with Σ_ij = σ_i σ_j ρ^|i−j|: noise that drifts along the channels, in O(n) a datum.

    Two numbers, σ and ρ, or n + 1. Every channel's marginal standard deviation is its σ. Fisher's z = arctanh ρ is
    limited to (−8, 8).

    Args:
        in_features: width of the decoder's features.
        n: number of channels, in their order along the axis.
        covariance: ``"shared"`` for one Σ, ``"per-datum"`` for σ(z) and ρ(z) from the decoder.
        scale: ``"shared"`` for one σ, ``"per-dimension"`` for one per channel.
        initial_scale: initial value of σ, in units of x; ρ starts at 0.
        floor: the smallest σ, as a share of ``initial_scale``; see :meth:`on_floor`.

    Example:
        >>> import torch
        >>> likelihood = AR1GaussianLikelihood(8, 100, initial_scale=0.5)
        >>> likelihood(torch.zeros(5, 8)).log_prob(torch.zeros(5, 100)).shape
        torch.Size([5])
    """

    has_tridiagonal_precision = True

    def __init__(
        self,
        in_features: int,
        n: int,
        *,
        covariance: str = "shared",
        scale: str = "shared",
        initial_scale: float = 1.0,
        floor: float = 1e-4,
    ) -> None:
        if scale not in ("shared", "per-dimension"):
            raise InputError(f"scale must be 'shared' or 'per-dimension', not {scale!r}")
        num_scales = n if scale == "per-dimension" else 1
        super().__init__(in_features, n, num_scales, num_scales + 1, covariance, initial_scale, floor)
        self.scale = scale

    @property
    def noise_scale(self) -> Tensor:
        """Shared σ, shape (1,) or (n,)."""
        return self._floored_scale(self._features(None))

    @property
    def noise_correlation(self) -> Tensor:
        """Shared ρ between neighbouring channels, a scalar."""
        return self._scale_and_fisher_z(self._features(None))[1].tanh().squeeze(-1)

    def _scale_and_fisher_z(self, features: Tensor) -> tuple[Tensor, Tensor]:
        raw_scale, raw_fisher_z = self._raw_noise(features).split([self._num_scales, 1], dim=-1)
        return self._scale(raw_scale + self._raw_initial_scale), bounded_fisher_z(raw_fisher_z)

    def _log_factors(self, coordinates: Tensor) -> Tensor:
        """The first moves all scales; the others move neighbours apart, whose ratio is known better by 1 − ρ²."""
        apart = F.pad(coordinates[1:].cumsum(0), (1, 0))
        return coordinates[:1] + apart - apart.mean()

    def _precision_gram(self, columns: Tensor, features: Tensor) -> Tensor:
        scale, fisher_z = self._scale_and_fisher_z(features)
        u = columns / scale.unsqueeze(-1)
        new = (u[..., 1:, :] - fisher_z.tanh().unsqueeze(-1) * u[..., :-1, :]) / log_sech(fisher_z).exp().unsqueeze(-1)
        return u[..., :1, :].mT @ u[..., :1, :] + new.mT @ new

    def _noise_fisher(self, features: Tensor, jacobian: Tensor) -> Tensor:
        """Fisher information of log σ_i and of Fisher's z, from R⁻¹, which is tridiagonal.

        I(log σ_i, log σ_j) = δ_ij + R_ij (R⁻¹)_ij, I(log σ_i, z) = −ρ for each of i's neighbours, I(z, z) =
        (n − 1)(1 + ρ²). The first is 2 Σ_i s_i² + ρ²/(1 − ρ²) Σ_i (s_i − s_{i+1})² for a change s of log σ.
        """
        raw = self._raw_noise(features)
        raw_scale, raw_fisher_z = raw.split([self._num_scales, 1], dim=-1)
        raw_scale = raw_scale + self._raw_initial_scale
        change = self.covariance_head.weight @ jacobian
        s, z = change.split([self._num_scales, 1], dim=-2)
        s = ((raw_scale.sigmoid() / self._scale(raw_scale)).unsqueeze(-1) * s).expand(*s.shape[:-2], self.n, -1)
        z = (1 - (raw_fisher_z / FISHER_Z_BOUND).tanh().square()).unsqueeze(-1) * z
        rho = bounded_fisher_z(raw_fisher_z).tanh().unsqueeze(-1)
        steps = rho / (1 - rho.square()).sqrt() * (s[..., 1:, :] - s[..., :-1, :])
        neighbours = 2 * s.sum(-2, keepdim=True) - s[..., :1, :] - s[..., -1:, :]
        both = z.mT @ (rho * neighbours)
        return 2 * s.mT @ s + steps.mT @ steps - both - both.mT + (self.n - 1) * (1 + rho.square()) * (z.mT @ z)

    def forward(self, features: Tensor) -> AR1Normal:
        """p(x|z) for features (*batch, in_features)."""
        scale, fisher_z = self._scale_and_fisher_z(features)
        return AR1Normal(self.loc_head(features), scale, fisher_z=fisher_z)
