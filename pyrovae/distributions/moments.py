"""First two moments of any distribution on vectors."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor


def mean_of(distribution: TorchDistribution, num_draws: int = 256) -> Tensor:
    """Mean, shape (*batch, d): exact where the distribution knows it, else of draws."""
    try:
        return distribution.mean
    except (NotImplementedError, AttributeError):
        return distribution.sample(torch.Size([num_draws])).mean(0)


def covariance_of(distribution: TorchDistribution, num_draws: int = 256) -> Tensor:
    """Dense covariance, shape (*batch, d, d): exact where the distribution knows it, else of draws."""
    try:
        return distribution.covariance_matrix
    except AttributeError:
        pass
    try:
        return distribution.variance.diag_embed()
    except (NotImplementedError, AttributeError):
        centred = distribution.sample(torch.Size([num_draws]))
        centred = (centred - centred.mean(0)).movedim(0, -1)
        return centred @ centred.mT / (num_draws - 1)
