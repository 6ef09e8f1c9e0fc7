"""First two moments of any distribution on vectors."""

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily

from pyrovae.errors import InputTypeError


def mean_of(distribution: Distribution, num_draws: int | None = None) -> Tensor:
    """Mean, shape (*batch, d).

    Args:
        distribution: any distribution on vectors.
        num_draws: number of draws that estimate the mean where it has no formula, as for a flow.

    Raises:
        InputTypeError: the mean has no formula, and ``num_draws`` is None.
    """
    try:
        return distribution.mean
    except NotImplementedError:
        return _draws("mean", distribution, num_draws).mean(0)


def covariance_of(distribution: Distribution, num_draws: int | None = None) -> Tensor:
    """Dense covariance, shape (*batch, d, d), of a class with ``covariance_matrix``, independent entries or a mixture.

    Args:
        distribution: any distribution on vectors.
        num_draws: number of draws that estimate the covariance of any other, such as a flow.

    Raises:
        InputTypeError: the covariance has no formula, and ``num_draws`` is None.
    """
    if hasattr(type(distribution), "covariance_matrix"):  # not the instance's, which would hide errors
        covariance: Tensor = distribution.covariance_matrix  # type: ignore[attr-defined]
        return covariance
    base = distribution
    while isinstance(base, MaskedDistribution):
        base = base.base_dist
    if isinstance(
        base, MixtureSameFamily
    ):  # the mean of the components' covariances, and the covariance of their means
        parts, weights = base.component_distribution, base.mixture_distribution.probs.unsqueeze(-1)
        apart = parts.mean - base.mean.unsqueeze(-2)
        inside = covariance_of(parts, num_draws)
        return (weights.unsqueeze(-1) * (inside + apart.unsqueeze(-1) * apart.unsqueeze(-2))).sum(-3)
    try:
        if isinstance(base, Independent):
            return base.variance.diag_embed()
    except NotImplementedError:
        pass
    centred = _draws("covariance", distribution, num_draws)
    centred = (centred - centred.mean(0)).movedim(0, -1)
    return centred @ centred.mT / (centred.shape[-1] - 1)


def trace_with(precision: Tensor, distribution: Distribution) -> Tensor:
    """Tr PΣ for a matrix P (d, d), shape (*batch); in O(d) where P is tridiagonal and Σ's first off-diagonal is known.

    Raises:
        InputTypeError: the covariance has no formula.
    """
    if hasattr(type(distribution), "first_off_diagonal") and is_tridiagonal(precision):
        neighbours: Tensor = distribution.first_off_diagonal  # type: ignore[attr-defined]
        beside = precision.diagonal(1) * neighbours
        return (precision.diagonal() * distribution.variance).sum(-1) + 2 * beside.sum(-1)
    return (precision * covariance_of(distribution)).sum((-2, -1))


def is_tridiagonal(matrix: Tensor) -> bool:
    """Whether all entries more than one off the diagonal are 0."""
    return not (matrix.triu(2).any() or matrix.tril(-2).any())


def _draws(moment: str, distribution: Distribution, num_draws: int | None) -> Tensor:
    if num_draws is None:
        name = type(distribution).__name__
        raise InputTypeError(f"a {name} does not know its {moment}; give num_draws to estimate it from draws")
    return distribution.sample(torch.Size([num_draws]))
