"""Maximum-likelihood fit of a linear-Gaussian model to data with missing values, by L-BFGS."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.func import functional_call

from pyrovae.distributions import AR1Normal, IsotropicNormal
from pyrovae.errors import InputTypeError
from pyrovae.likelihoods import GaussianNoiseLikelihood
from pyrovae.linear_gaussian._gaps_density import GapDensity, whitening
from pyrovae.linear_gaussian._moments import rows_with
from pyrovae.linear_gaussian._noise_fit import PRIOR_SCALE, check_ended, fit_noise
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.posteriors.lbfgs import minimise

_FIRST_STEPS = 5
"""Steps of the fit of the noise to the expected moments."""
_LEAST_GAIN = 1e-5
"""Nats a datum: the fit ends with the first step that gains less."""
_LEAST_GAIN_OF_ONE = 1e-5
"""Nats in all, where a channel is observed once: it gains nats, but slowly at first."""


@torch.no_grad()
def fit_gaps(
    noise: GaussianNoiseLikelihood,
    x: Tensor,
    first: LinearGaussianVAE,
    moments: tuple[Tensor, Tensor],
    max_steps: int,
) -> tuple[Tensor, Tensor]:
    """Fit the parameters of ``noise`` by maximum likelihood, and return A (n, d) and b (n,).

    It starts at the likeliest model for the data's expected moments. Then A = A₀ + CU and b = b₀ + Ce, with CCᵀ the
    inverse of the mean of the data's (A_O A_Oᵀ + Σ_OO)⁻¹, and Σ's coordinates are optimised together. That mean is the
    Fisher information of b, and nearly that of each column of A, where the observed values tell z: in these
    coordinates a step has a similar effect in every direction.

    Args:
        noise: in float64, its Σ⁻¹ tridiagonal, where it starts; it is changed.
        x: data, shape (num, n), NaN where a value was not observed.
        first: probabilistic PCA of the expected moments; σ is where the noise starts.
        moments: mean and covariance that the data are expected to have, see
            :func:`~pyrovae.linear_gaussian._gaps_moments.moments_of_gaps`.
        max_steps: most steps of L-BFGS.

    Raises:
        InputTypeError: noise of another form.
    """
    if not noise.has_tridiagonal_precision:
        raise InputTypeError(
            f"a linear model with the noise of a {type(noise).__name__} cannot be fitted to data with missing values"
        )
    x, (mean, covariance), (n, d) = x[~x.isnan().all(1)], moments, first.loadings.shape
    prior = PRIOR_SCALE * first.noise_scale / len(x) ** 0.5
    features, loadings = x.new_zeros(noise.in_features), first.loadings
    if not (noise.noise_names and isinstance(noise(features), IsotropicNormal)):
        loadings = fit_noise(noise, rows_with(covariance), first.noise_scale, d, _FIRST_STEPS, warn=False)
    whole = noise(features)
    gaps = GapDensity.of(x, is_independent=not isinstance(whole, AR1Normal))
    values, axes = torch.linalg.eigh(gaps.mean_precision(whole, loadings))
    root = axes * values.clamp_min(torch.finfo(values.dtype).eps * values[-1]).rsqrt()
    start, num_noise = torch.cat([loadings, mean.unsqueeze(-1)], dim=1), noise.num_noise_parameters
    unit = min(1.0, num_noise / n) ** 0.5  # a number that many channels share is known better
    channel = torch.arange(n)
    before = (channel - 1).clamp_min(0)

    def moved(vector: Tensor) -> tuple[Tensor, Tensor]:
        added, coordinates = vector.split([start.numel(), num_noise])
        return start + root @ added.reshape(n, d + 1), unit * coordinates

    def objective(vector: Tensor) -> Tensor:
        affine, coordinates = moved(vector)
        if not num_noise:
            return -gaps.mean_log_prob(whole, affine)
        p = functional_call(noise, noise.noise_parameters(coordinates), features)
        trace = sum(part.square().sum() for part in whitening(p, before, channel))  # of Σ⁻¹
        value: Tensor = 0.5 * prior**2 * trace - gaps.mean_log_prob(p, affine)
        return value

    zero = x.new_zeros(start.numel() + num_noise)
    seen_once = ((~x.isnan()).sum(0) == 1).any()
    gain = min(_LEAST_GAIN, _LEAST_GAIN_OF_ONE / len(x)) if seen_once else _LEAST_GAIN
    ftol = gain / max(1.0, abs(objective(zero).item()))
    found = minimise(objective, [zero], max_steps, maxcor=50, ftol=ftol, gtol=1e-5)
    check_ended(found, noise)
    affine, coordinates = (part.detach() for part in moved(torch.from_numpy(found.x)))
    for name, value in noise.noise_parameters(coordinates).items() if num_noise else ():
        noise.get_parameter(name).copy_(value)
    return _by_share(noise(features), affine[:, :d]), affine[:, d]


def _by_share(p: TorchDistribution, loadings: Tensor) -> Tensor:
    """The same AAᵀ with z turned such that its posterior is diagonal, the best known first."""
    factor = torch.linalg.cholesky(p.covariance_matrix) if isinstance(p, AR1Normal) else p.stddev.diag()
    white = torch.linalg.solve_triangular(factor, loadings, upper=False)
    turned: Tensor = loadings @ torch.linalg.svd(white, full_matrices=False).Vh.T
    return turned
