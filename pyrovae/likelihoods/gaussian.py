"""Gaussian likelihood with independent noise."""

import math

import torch
from torch import Tensor, nn

from pyrovae.distributions import IsotropicNormal
from pyrovae.likelihoods.base import Likelihood
from pyrovae.nn import positive


class GaussianLikelihood(Likelihood):
    """p(x|z) = N(x̂(z), σ² I), with σ one learned number ("σ-VAE") or fixed.

    ½‖x − x̂‖² as a loss is σ = 1; a mean of squares over n dimensions beside an unscaled KL is
    σ² = n/2. The optimum of a learned σ is σ² = E_q‖x − x̂(z)‖²/n, at samples of z.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        scale: ``"shared"`` for one learned σ, or the number that σ is fixed at.
        initial_scale: where a learned σ starts. From far above the noise a latent space tends to
            collapse, from far below it training is slow: a quarter of the data's standard deviation is
            a fair guess.
    """

    raw_scale: Tensor

    def __init__(self, in_features: int, n: int, scale: str | float = "shared", initial_scale: float = 1.0) -> None:
        super().__init__(in_features, n)
        if scale != "shared" and not _is_positive(scale):
            raise ValueError(f"scale must be 'shared' or a positive number, not {scale!r}")
        if not _is_positive(initial_scale):
            raise ValueError(f"initial_scale must be a positive number, not {initial_scale!r}")
        self.scale = scale
        self.initial_scale = initial_scale
        self.loc_head = nn.Linear(in_features, n)
        if scale == "shared":
            self.raw_scale = nn.Parameter(torch.empty(()))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put a learned σ back to where it starts."""
        if self.scale == "shared":
            nn.init.constant_(self.raw_scale, math.log(math.expm1(self.initial_scale)))

    @property
    def noise_scale(self) -> Tensor:
        """σ, a scalar."""
        if self.scale == "shared":
            return positive(self.raw_scale)
        return self.loc_head.weight.new_tensor(self.scale)

    def forward(self, features: Tensor) -> IsotropicNormal:
        """p(x|z) for features (*batch, in_features)."""
        return IsotropicNormal(self.loc_head(features), self.noise_scale)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
