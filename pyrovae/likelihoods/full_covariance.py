"""Gaussian likelihood with any noise covariance, given by its Cholesky factor."""

import math

import torch
from torch import Tensor

from pyrovae.distributions import CholeskyNormal, fill_scale_tril, tril_position
from pyrovae.errors import InputError
from pyrovae.likelihoods._noise import CovarianceLikelihood, GaussianNoiseLikelihood
from pyrovae.likelihoods.ar1 import AR1GaussianLikelihood


class FullCovarianceGaussianLikelihood(CovarianceLikelihood):
    """p(x|z) = N(x̂(z), LLᵀ) with L = diag(σ)(I + L'), L' free below the diagonal: n(n + 1)/2 numbers.

    σ_i is the standard deviation of channel i given the channels before it. A shared factor is used once for the whole
    batch, in a triangular solve with the data as columns: O(n²) per datum and no factorisation. With a factor per
    datum, memory is O(n²) per datum, and the decoder's head has in_features × n(n + 1)/2 weights (3.5 million at n =
    235 and 128 features).

    Args:
        in_features: width of the decoder's features.
        n: number of channels.
        covariance: ``"shared"`` for one Σ, ``"per-datum"`` for Σ(z) from the decoder.
        initial_scale: initial value of σ, in units of x; a shared L' starts at 0.
        floor: the smallest σ, as a share of ``initial_scale``; see :meth:`on_floor`.

    Example:
        >>> FullCovarianceGaussianLikelihood(8, 3, initial_scale=0.5).noise_covariance().diagonal()
        tensor([0.2500, 0.2500, 0.2500])
    """

    is_unrestricted = True
    position: Tensor

    def __init__(
        self, in_features: int, n: int, *, covariance: str = "shared", initial_scale: float = 1.0, floor: float = 1e-4
    ) -> None:
        super().__init__(in_features, n, n, n * (n + 1) // 2, covariance, initial_scale, floor)
        self.register_buffer("position", tril_position(n), persistent=False)

    def forward(self, features: Tensor) -> CholeskyNormal:
        """p(x|z) for features (*batch, in_features)."""
        raw = self._raw_noise(features)
        scale, below = self._scale(raw[..., : self.n] + self._raw_initial_scale), raw[..., self.n :]
        if self.covariance == "per-datum":
            below = below / math.sqrt(self.n)  # a random L' of entries O(1) is exponentially ill-conditioned in n
        unit = fill_scale_tril(torch.ones_like(scale), below, self.position)
        return CholeskyNormal(self.loc_head(features), scale_tril=scale.unsqueeze(-1) * unit, diagonal=scale)

    def _precision_gram(self, columns: Tensor, features: Tensor) -> Tensor:
        white = torch.linalg.solve_triangular(self(features).scale_tril, columns, upper=False)
        return white.mT @ white

    @torch.random.fork_rng(devices=[])
    def simpler_form(self) -> tuple[GaussianNoiseLikelihood, int]:
        """AR(1) noise with one σ per channel: the maximum-likelihood Σ would leave no covariance for z to explain."""
        return AR1GaussianLikelihood(1, self.n, scale="per-dimension", floor=self.floor), 0

    def set_fitted_noise(self, covariance: Tensor, factors: Tensor, initial_scale: float) -> None:
        """Σ itself."""
        self.set_noise_covariance(covariance, initial_scale)

    @torch.no_grad()
    def set_noise_covariance(self, covariance: Tensor, initial_scale: float | None = None) -> None:
        """Make Σ, shape (n, n), the noise of all data, with another initial scale for learned scales.

        If Σ depends on z, it becomes constant until it is trained again.

        Raises:
            InputError: a matrix of another shape, or not symmetric and positive definite.
        """
        shape = (self.n, self.n)
        symmetric = covariance.shape == shape and torch.allclose(
            covariance, covariance.mT, atol=1e-8 * covariance.max().item()
        )
        factor, failed = torch.linalg.cholesky_ex(covariance.double()) if symmetric else (None, 1)
        if factor is None or failed:
            raise InputError(f"covariance must be symmetric and positive definite, of shape {shape}")
        self.start_at(self.initial_scale if initial_scale is None else initial_scale)
        raw_scale = self._raw(factor.diagonal())
        scale = self._scale(raw_scale)  # not below the floor: a channel's own noise grows, its covariances stay
        below = (factor / scale.unsqueeze(-1))[torch.tril_indices(self.n, self.n, -1).unbind()]
        if self.covariance == "per-datum":
            below = below * math.sqrt(self.n)
        raw = self.get_parameter(*self.noise_names)
        raw.copy_(torch.cat([raw_scale - self._raw_initial_scale, below]))
