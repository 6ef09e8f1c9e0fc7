"""Gaussian likelihood with low-rank-plus-diagonal noise."""

import torch
from torch import Tensor, nn

from pyrovae.distributions import LowRankNormal
from pyrovae.distributions.low_rank import RELATIVE_FLOOR
from pyrovae.errors import InputError, check_integer
from pyrovae.likelihoods._noise import CovarianceLikelihood, GaussianNoiseLikelihood
from pyrovae.likelihoods.gaussian import GaussianLikelihood
from pyrovae.randomness import seeded


class LowRankGaussianLikelihood(CovarianceLikelihood):
    """p(x|z) = N(x̂(z), diag δ² + WWᵀ), W of shape (n, r): r patterns of noise across channels, in O(n r²) per datum.

    n(r + 1) numbers. A shared W is equivalent to r more latent dimensions with a linear decoder: it explains the linear
    part of the variation and leaves the rest to z.

    Args:
        in_features: width of the decoder's features.
        n: number of channels.
        rank: number r of columns of W.
        covariance: ``"shared"`` for one Σ, ``"per-datum"`` for δ(z) and W(z) from the decoder.
        initial_scale: initial value of δ, in units of x; W starts much smaller.
        floor: the smallest δ, as a share of ``initial_scale``; see :meth:`on_floor`.

    Example:
        >>> import torch
        >>> LowRankGaussianLikelihood(8, 100, rank=3)(torch.zeros(5, 8)).cov_factor.shape
        torch.Size([5, 100, 3])
    """

    def __init__(
        self,
        in_features: int,
        n: int,
        rank: int = 2,
        *,
        covariance: str = "shared",
        initial_scale: float = 1.0,
        floor: float = 1e-4,
    ) -> None:
        check_integer("rank", rank)
        super().__init__(in_features, n, n, n * (rank + 1), covariance, initial_scale, floor)
        self.rank = rank

    def reset_parameters(self) -> None:
        """Reset a shared covariance; at W = 0 all columns would stay equal."""
        super().reset_parameters()
        if self.covariance == "shared":
            nn.init.normal_(self.raw_noise[self.n :].detach(), std=0.1)

    def _precision_gram(self, columns: Tensor, features: Tensor) -> Tensor:
        p = self(features)
        white = columns / p._unbroadcasted_cov_diag.sqrt().unsqueeze(-1)
        factor = p._unbroadcasted_cov_factor / p._unbroadcasted_cov_diag.sqrt().unsqueeze(-1)
        explained = torch.linalg.solve_triangular(p._capacitance_tril, factor.mT @ white, upper=False)
        return white.mT @ white - explained.mT @ explained

    @torch.random.fork_rng(devices=[])
    def simpler_form(self) -> tuple[GaussianNoiseLikelihood, int]:
        """One σ per channel and ``rank`` more factors: the same p(x), except for the floor."""
        return GaussianLikelihood(1, self.n, scale="per-dimension", floor=self.floor), self.rank

    def set_fitted_noise(self, covariance: Tensor, factors: Tensor, initial_scale: float) -> None:
        """δ² from the covariance's diagonal, W from the factors."""
        with seeded(0):  # columns of W without a factor stay random
            self.set_noise(covariance.diagonal().sqrt(), factors, initial_scale)

    @torch.no_grad()
    def set_noise(self, scale: Tensor, cov_factor: Tensor, initial_scale: float | None = None) -> None:
        """Make δ, shape (n,), and W, (n, at most r), the noise of all data, with another initial scale.

        Columns of W beyond those given stay small; δ stays above :data:`RELATIVE_FLOOR` of WWᵀ.

        Raises:
            InputError: shapes do not fit, or scales are not positive numbers.
        """
        given = cov_factor.shape[-1] if cov_factor.dim() == 2 else -1
        if scale.shape != (self.n,) or cov_factor.shape[:-1] != (self.n,) or not 0 <= given <= self.rank:
            raise InputError(
                f"scale must have shape ({self.n},) and cov_factor ({self.n}, at most {self.rank}), not "
                f"{tuple(scale.shape)} and {tuple(cov_factor.shape)}"
            )
        if not ((scale > 0) & scale.isfinite()).all() or not cov_factor.isfinite().all():
            raise InputError("scale must hold positive numbers, and cov_factor finite ones")
        self.start_at(self.initial_scale if initial_scale is None else initial_scale)
        raw = self.get_parameter(*self.noise_names)
        factor = raw[self.n :].view(self.n, self.rank)
        factor[:, given:] *= 1e-2
        factor[:, :given] = cov_factor / self.initial_scale
        floor = RELATIVE_FLOOR * cov_factor.square().sum(-1)
        raw[: self.n] = self._raw((scale.square() - floor).clamp_min(0).sqrt()) - self._raw_initial_scale

    def forward(self, features: Tensor) -> LowRankNormal:
        """p(x|z) for features (*batch, in_features)."""
        factor = self.initial_scale * self._raw_noise(features)[..., self.n :].unflatten(-1, (self.n, self.rank))
        cov_diag = self._floored_scale(features).square() + RELATIVE_FLOOR * factor.square().sum(-1)
        return LowRankNormal(self.loc_head(features), cov_factor=factor, cov_diag=cov_diag)
