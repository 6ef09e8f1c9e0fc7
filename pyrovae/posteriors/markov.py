"""Posteriors of series: a Markov chain of vectors, or an AR(1) chain for each channel."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrovae.distributions import AR1Normal, MarkovNormal, bounded_fisher_z
from pyrovae.errors import InputError, check_integer
from pyrovae.nn import StepwiseLocHead, by_step, positive
from pyrovae.posteriors.base import Posterior

BLOCKS = ("full", "diagonal")
"""Kinds of blocks of a step: one chain of vectors, or one chain per channel."""


class MarkovPosterior(Posterior):
    """q(z|x) for T steps of k channels: a Gaussian with a block-tridiagonal precision, in O(T k³).

    The heads see the features of one step at a time and are the same at every step. So the encoder must see the whole
    series: :class:`~pyrovae.nn.RecurrentEncoder` or :class:`~pyrovae.nn.DilatedConvolutionEncoder`. The posterior of
    every linear-Gaussian state space is in the family with ``blocks="full"``.

    Args:
        in_features: width T·h of the encoder's features, ordered by step.
        latent_dim: dimension T·k of z, ordered by step.
        channels: k, numbers per step.
        blocks: ``"full"`` for a :class:`~pyrovae.distributions.MarkovNormal` with k × k blocks, ``"diagonal"`` for
            channels that are independent of each other, each an AR(1) chain with a scale and a correlation per step.

    Raises:
        InputError: k does not divide ``latent_dim``, or T does not divide ``in_features``.

    Example:
        >>> MarkovPosterior(12, 6, channels=2)(torch.zeros(5, 12)).num_steps
        3
    """

    def __init__(self, in_features: int, latent_dim: int, channels: int = 1, blocks: str = "full") -> None:
        super().__init__(in_features, latent_dim)
        check_integer("channels", channels)
        if latent_dim % channels:
            raise InputError(f"latent_dim must be a multiple of channels={channels}, not {latent_dim}")
        if blocks not in BLOCKS:
            raise InputError(f"blocks must be one of {', '.join(map(repr, BLOCKS))}, not {blocks!r}")
        self.channels, self.blocks, self.num_steps = channels, blocks, latent_dim // channels
        self.loc_head = StepwiseLocHead(in_features, latent_dim, self.num_steps)
        width = channels if blocks == "diagonal" else channels * channels
        self._sizes = [channels, channels * (channels - 1) // 2 if blocks == "full" else 0, width]
        self.covariance_head = nn.Linear(in_features // self.num_steps, sum(self._sizes))

    @property
    def can_start_as_linear(self) -> bool:
        """False: its heads are the same at every step."""
        return False

    def forward(self, features: Tensor) -> TorchDistribution:
        """q(z|x) for features (*batch, T·h)."""
        raw = self.covariance_head(by_step(features, self.num_steps))
        raw_scale, below, coupling = raw.split(self._sizes, dim=-1)
        loc, scale, fisher_z = self.loc_head(features), positive(raw_scale), bounded_fisher_z(coupling[..., 1:, :])
        if self.channels == 1:
            if self.num_steps == 1:
                fisher_z = torch.zeros_like(scale)
            return AR1Normal(loc, scale.squeeze(-1), fisher_z=fisher_z.squeeze(-1))
        marginal, steps = scale.diag_embed(), fisher_z.sinh()
        if self.blocks == "diagonal":
            return MarkovNormal(loc, marginal, steps.diag_embed())
        rows, columns = torch.tril_indices(self.channels, self.channels, -1, device=raw.device)
        placed = torch.zeros_like(marginal)
        placed[..., rows, columns] = below
        return MarkovNormal(loc, marginal + placed, steps.unflatten(-1, (self.channels, self.channels)))
