"""Missing values given the observed ones of the same datum, for many patterns of missing values at once."""

import torch
from pyro.distributions import Independent, Normal, TorchDistribution
from torch import Tensor

from pyrovae.distributions import AR1Normal, IsotropicNormal
from pyrovae.linear_gaussian._gaps_density import GapDensity, whitening


def has_neighbours(noise: TorchDistribution) -> bool:
    """Whether a channel's noise, given that of its neighbours, is independent of all others."""
    independent = isinstance(noise, Independent) and isinstance(noise.base_dist, Normal)
    return independent or isinstance(noise, IsotropicNormal | AR1Normal)


def complete(noise: TorchDistribution, affine: Tensor, x: Tensor, numbers: int = 2**25) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each missing value given the observed ones x_O of its datum.

    Let i and k be the nearest observed channels on either side of j. Given z and x_O, the mean of x_j is b_j + a_jᵀz +
    u(x_i − b_i − a_iᵀz) + v(x_k − b_k − a_kᵀz), with the weights u and v of the noise. Its variance τ² is that of the
    noise given both neighbours. With ẑ and V of p(z|x_O) and w = a_j − u a_i − v a_k, the variance given x_O alone is
    τ² + wᵀVw.

    Args:
        noise: N(0, Σ) for which :func:`has_neighbours`.
        affine: A, and b as its last column, shape (n, d + 1).
        x: data, shape (num, n), NaN where a value is missing.
        numbers: most numbers of a table; more data are completed some at a time.

    Returns:
        x with its missing values filled in, and standard deviations, 0 where it was observed.
    """
    found, deviation, (n, width) = x.clone(), torch.zeros_like(x), affine.shape
    for rows in torch.arange(len(x)).split(max(1, numbers // (n * width**2))):
        missing = x[rows].isnan()
        row, channel = missing.nonzero(as_tuple=True)
        if len(row):
            mean, spread = _of_missing(noise, affine, x[rows], row, channel)
            found[rows[row], channel], deviation[rows[row], channel] = mean, spread
    return found, deviation


def _of_missing(noise: TorchDistribution, affine: Tensor, x: Tensor, row: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (m,) of missing values, given their rows and channels."""
    is_independent = not isinstance(noise, AR1Normal)
    z, covariance, pattern = GapDensity.of(x, is_independent=is_independent).latents(noise, affine)
    if is_independent:
        i = k = j
    else:
        i, k = (side[row, j] for side in _neighbours(~x.isnan()))
    here, of_i = whitening(noise, i, j)  # (here x_j − of_i x_i)² + (of_k x_k − of_j x_j)² in the exponent
    of_k, of_j = whitening(noise, j, k)
    precision = here.square() + of_j.square()
    u, v = (here * of_i / precision).unsqueeze(-1), (of_k * of_j / precision).unsqueeze(-1)
    left = affine[j] - u * affine[i] - v * affine[k]
    w = left[:, :-1]
    residuals = x.nan_to_num(0.0)
    mean = left[:, -1] + (w * z[row]).sum(-1) + u[:, 0] * residuals[row, i] + v[:, 0] * residuals[row, k]
    variance = precision.reciprocal() + torch.einsum("md,mde,me->m", w, covariance[pattern[row]], w)
    return mean, variance.sqrt()


def _neighbours(observed: Tensor) -> tuple[Tensor, Tensor]:
    """The last observed channel before each one of booleans (num, n), and the next after it; itself if none is."""
    n = observed.shape[1]
    channel = torch.arange(n)
    before = torch.where(observed, channel, -1).cummax(1).values
    after = torch.where(observed, channel, n).flip(1).cummin(1).values.flip(1)
    return torch.where(before < 0, channel, before), torch.where(after == n, channel, after)
