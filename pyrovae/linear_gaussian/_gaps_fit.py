"""Maximum-likelihood fit of a linear-Gaussian model to data with missing values, by L-BFGS."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.func import functional_call

from pyrovae.distributions import AR1Normal
from pyrovae.errors import InputTypeError
from pyrovae.likelihoods import GaussianNoiseLikelihood
from pyrovae.linear_gaussian._gaps_density import GapDensity
from pyrovae.linear_gaussian._noise_fit import PRIOR_SCALE, check_ended, fit_noise
from pyrovae.posteriors.lbfgs import minimise


@torch.no_grad()
def fit_gaps(
    noise: GaussianNoiseLikelihood, x: Tensor, d: int, moments: tuple[Tensor, Tensor], max_steps: int
) -> tuple[Tensor, Tensor]:
    """Fit the parameters of ``noise`` by maximum likelihood, and return A (n, d) and b (n,).

    It starts at the maximum-likelihood model for the data's expected moments. Then
    A = A₀(I + R) + L₀B and b = b₀ + A₀c + L₀e, with Σ₀ = L₀L₀ᵀ, and Σ's coordinates are optimised together. In these
    coordinates a step has a similar effect along the signal and along the noise.

    Args:
        noise: in float64, its Σ⁻¹ tridiagonal, where it starts; it is changed.
        x: data, shape (num, n), NaN where a value was not observed.
        d: latent dimension.
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
    x, (mean, covariance), n = x[~x.isnan().all(1)], moments, x.shape[1]
    prior = PRIOR_SCALE * noise.initial_scale / len(x) ** 0.5
    loadings = fit_noise(noise, _with_covariance(covariance), noise.initial_scale, d, min(max_steps, 50), warn=False)
    features = x.new_zeros(noise.in_features)
    whole = noise(features)
    gaps = GapDensity.of(x, is_independent=not isinstance(whole, AR1Normal))
    factor = torch.linalg.cholesky(whole.covariance_matrix) if isinstance(whole, AR1Normal) else whole.stddev.diag()
    sizes = [d * d, n * d, d, n, noise.num_noise_parameters]

    def moved(vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        turn, added, shift, beside, coordinates = vector.split(sizes)
        a = loadings + loadings @ turn.reshape(d, d) + factor @ added.reshape(n, d)
        return a, mean + loadings @ shift + factor @ beside, coordinates

    def objective(vector: Tensor) -> Tensor:
        a, b, coordinates = moved(vector)
        p = functional_call(noise, noise.noise_parameters(coordinates), features) if sizes[-1] else whole
        penalty = 0.0
        if sizes[-1]:
            rows = prior * torch.eye(n).to(b)
            penalty = (p.log_prob(torch.zeros_like(b)) - p.log_prob(rows)).sum()
        return penalty - gaps.mean_log_prob(p, a, b)

    found = minimise(objective, [x.new_zeros(sum(sizes))], max_steps, maxcor=50, ftol=1e-9, gtol=1e-5)
    check_ended(found, noise)
    a, b, coordinates = (part.detach() for part in moved(torch.from_numpy(found.x)))
    for name, value in noise.noise_parameters(coordinates).items() if sizes[-1] else ():
        noise.get_parameter(name).copy_(value)
    return _by_share(noise(features), a), b


def _with_covariance(covariance: Tensor) -> Tensor:
    """Data of mean 0 that have this covariance, shape (2n, n)."""
    values, axes = torch.linalg.eigh(covariance)
    root = (axes * (len(values) * values.clamp_min(0)).sqrt()).T
    return torch.cat([root, -root])


def _by_share(p: TorchDistribution, loadings: Tensor) -> Tensor:
    """The same AAᵀ with z turned such that its posterior is diagonal, the best known first."""
    factor = torch.linalg.cholesky(p.covariance_matrix) if isinstance(p, AR1Normal) else p.stddev.diag()
    white = torch.linalg.solve_triangular(factor, loadings, upper=False)
    turned: Tensor = loadings @ torch.linalg.svd(white, full_matrices=False).Vh.T
    return turned
