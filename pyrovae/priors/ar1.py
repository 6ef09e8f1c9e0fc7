"""The prior for ordered latents: a stationary AR(1) process for each channel."""

import math

import torch
from pyro.distributions import TorchDistribution
from torch import nn

from pyrovae.distributions import AR1Normal, MarkovNormal, bounded_fisher_z
from pyrovae.errors import InputError, check_integer
from pyrovae.priors.base import Prior

LEARNED = "learned"
_START = math.atanh(0.5)


class AR1Prior(Prior):
    """p(z): z_t = ρ z_{t−1} + √(1 − ρ²) ε_t, a chain for each channel, every z_t N(0, 1).

    This orders the latents, and a decoder cannot rotate the order away: neighbours are correlated, Σ_ij = ρ^|i−j|. The
    posterior of a Markov model is an AR(1) Normal with a scale and a correlation per step. KL in closed form, in O(d),
    against every Gaussian family.

    Args:
        latent_dim: dimension d = T·k of z, ordered by step.
        correlation: ρ between neighbours, in (−1, 1), or ``"learned"``: one per channel, starting at ½.
        channels: number k of chains.

    Raises:
        InputError: ``channels`` does not divide ``latent_dim``, or ρ is not inside (−1, 1).

    Example:
        >>> AR1Prior(3, 0.9)().covariance_matrix[0]
        tensor([1.0000, 0.9000, 0.8100])
    """

    def __init__(self, latent_dim: int, correlation: float | str = LEARNED, channels: int = 1) -> None:
        super().__init__(latent_dim)
        check_integer("channels", channels)
        if latent_dim % channels:
            raise InputError(f"latent_dim must be a multiple of channels={channels}, not {latent_dim}")
        self.correlation, self.channels = correlation, channels
        self.raw_fisher_z: nn.Parameter | None = None
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("eye", torch.eye(channels), persistent=False)
        if correlation == LEARNED:
            self.raw_fisher_z = nn.Parameter(torch.empty(channels))
            self.reset_parameters()
            return
        if not isinstance(correlation, float | int) or not -1 < correlation < 1:
            raise InputError(f"correlation must be a number between −1 and 1, or 'learned', not {correlation!r}")
        self.register_buffer("fixed_fisher_z", torch.full((channels,), math.atanh(correlation)), persistent=False)

    def reset_parameters(self) -> None:
        """Reset a learned ρ to its initial value."""
        if self.raw_fisher_z is not None:
            nn.init.constant_(self.raw_fisher_z, _START)

    def forward(self) -> TorchDistribution:
        """p(z)."""
        raw = self.raw_fisher_z
        fisher_z = self.get_buffer("fixed_fisher_z") if raw is None else bounded_fisher_z(raw)
        loc, eye = self.get_buffer("loc"), self.get_buffer("eye")
        if self.channels == 1:
            return AR1Normal(loc, eye[0], fisher_z=fisher_z)
        num_steps = self.latent_dim // self.channels
        coupling = fisher_z.sinh().diag_embed().expand(num_steps - 1, -1, -1)
        return MarkovNormal(loc, eye.expand(num_steps, -1, -1), coupling)
