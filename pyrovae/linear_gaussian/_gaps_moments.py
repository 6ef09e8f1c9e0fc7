"""Mean and covariance of data with missing values, by expectation maximisation."""

import torch
from torch import Tensor

from pyrovae.errors import InputError

_ROUNDS = 8


@torch.no_grad()
def moments_of_gaps(x: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Expected mean (n,) and covariance (n, n) of data, given their observed values.

    The expectations are those of probabilistic PCA with d components, after some rounds of expectation maximisation
    (Tipping and Bishop 1999) from the covariances of the data that have both channels observed.

    Args:
        x: data, shape (num, n), NaN where a value was not observed.
        d: latent dimension.

    Raises:
        InputError: a channel that is never observed, or data that span no more than d dimensions.
    """
    observed = ~x.isnan()
    empty = ~observed.any(0)
    if empty.any():
        raise InputError(
            f"channel {int(empty.nonzero()[0])} (counted from 0) is missing in all training data; leave it out"
        )
    x, observed = x[observed.any(1)], observed[observed.any(1)]
    patterns, index, counts = torch.unique(observed, dim=0, return_inverse=True, return_counts=True)
    seen, mean = observed.to(x), x.nanmean(0)
    weight = (~patterns * (counts / len(x)).sqrt().unsqueeze(-1)).unsqueeze(1)
    centred = torch.where(observed, x - mean, 0.0)
    covariance = centred.T @ centred / (seen.T @ seen).clamp_min(1)
    for _ in range(_ROUNDS):
        loadings, variance = principal_components(covariance, d)
        outer = (loadings.unsqueeze(-1) * loadings.unsqueeze(-2)).flatten(1)
        precision = torch.eye(d).to(x) + (patterns.to(x) @ outer).unflatten(-1, (d, d)) / variance
        factor = torch.linalg.cholesky(precision)
        along = torch.where(observed, x - mean, 0.0) @ loadings / variance
        z = torch.cholesky_solve(along.unsqueeze(-1), factor[index]).squeeze(-1)
        filled = torch.where(observed, x, mean + z @ loadings.T)
        spread = torch.linalg.solve_triangular(factor, loadings.T.expand(len(factor), -1, -1), upper=False)
        spread = (weight * spread).flatten(0, 1)  # (p d, n): of z, where a channel is missing
        mean = filled.mean(0)
        covariance = torch.cov(filled.T, correction=0) + spread.T @ spread + (variance * (1 - seen.mean(0))).diag()
    return mean, covariance


def principal_components(covariance: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """A (n, d) and σ² of probabilistic PCA of data with this covariance."""
    values, axes = torch.linalg.eigh(covariance)
    kept = len(values) - d
    variance = values[:kept].clamp_min(0).mean()
    if not variance > 1e-12 * values[-1]:
        raise InputError(f"the data span no more than {d} dimensions, so the noise would be 0")
    return axes[:, kept:] * (values[kept:] - variance).clamp_min(0).sqrt(), variance
