"""Mean and covariance of data with missing values, by expectation maximisation."""

import numpy as np
import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.linear_gaussian._patterns import pattern_table

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
    first, index, sizes = pattern_table(observed)
    patterns, seen, data = observed[first].numpy().astype(float), observed.numpy(), x.numpy()
    weight = ((1 - patterns).T * np.sqrt(sizes / len(x)))[:, None]
    mean, n = np.nanmean(data, axis=0), x.shape[1]
    centred = np.where(seen, data - mean, 0.0)
    covariance = centred.T @ centred / np.maximum(seen.T.astype(float) @ seen, 1)
    values, axes = np.linalg.eigh(covariance)
    if not values[: n - d].max() > 0:  # covariances of pairs of channels need not be those of one distribution
        covariance = (axes * np.abs(values)) @ axes.T
    for _ in range(_ROUNDS):
        found, squared_scale = principal_components(torch.from_numpy(covariance), d)
        loadings, variance = found.numpy(), squared_scale.item()
        outer = (loadings[:, :, None] * loadings[:, None, :]).reshape(n, d * d)
        of_z = np.linalg.inv(np.eye(d) + (patterns @ outer).reshape(-1, d, d) / variance)
        along = np.where(seen, data - mean, 0.0) @ loadings / variance
        z = np.einsum("nde,ne->nd", of_z[index], along)
        filled = np.where(seen, data, mean + z @ loadings.T)
        factors = np.linalg.cholesky(of_z).transpose(1, 2, 0).reshape(d, -1)
        parts = (loadings @ factors).reshape(n, d, -1)
        parts *= weight
        spread = parts.reshape(n, -1)  # of z, where a channel is missing
        mean = filled.mean(0)
        centred = filled - mean
        covariance = centred.T @ centred / len(x) + spread @ spread.T + np.diag(variance * (1 - seen.mean(0)))
    return torch.from_numpy(mean), torch.from_numpy(covariance)


def principal_components(covariance: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """A (n, d) and σ² of probabilistic PCA of data with this covariance."""
    values, axes = torch.linalg.eigh(covariance)
    kept = len(values) - d
    variance = values[:kept].clamp_min(0).mean()
    if not variance > 1e-12 * values[-1]:
        raise InputError(f"the data span no more than {d} dimensions, so the noise would be 0")
    return axes[:, kept:] * (values[kept:] - variance).clamp_min(0).sqrt(), variance
