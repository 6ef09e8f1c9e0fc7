"""The linear-Gaussian model with any Gaussian noise: probabilistic PCA, factor analysis, correlated noise."""

import copy
import warnings

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.func import functional_call

from pyrovae.distributions import covariance_of
from pyrovae.errors import InputError, InputTypeError, check_finite
from pyrovae.likelihoods import GaussianNoiseLikelihood
from pyrovae.linear_gaussian._shrinkage import best_shrinkage, shrunk
from pyrovae.linear_gaussian.exact import LinearGaussianVAE, LinearModel, most_latent_dims
from pyrovae.posteriors.lbfgs import minimise

PRIOR_SCALE = 0.01
"""Scale of the prior that keeps noise off 0, as a share of probabilistic PCA's σ."""
_STEEP = 0.1
"""Slope of the objective, in nats a datum and unit of log σ, where a fit has not ended."""


class FactorModel(LinearModel):
    """x = Az + b + ε, z ~ N(0, I), ε ~ N(0, Σ): p(x) = N(b, AAᵀ + Σ), where Σ is what a likelihood's noise can be.

    With one σ it is probabilistic PCA, with one a channel factor analysis, with AR(1) noise a model of smooth
    residuals. Everything is in float64.

    Args:
        loadings: A, shape (n, d).
        offset: b, shape (n,).
        likelihood: Gaussian noise whose Σ at features 0 is the model's.

    Example:
        >>> import pyrovae as pv
        >>> x = torch.randn(300, 2) @ torch.randn(2, 5) + torch.randn(300, 5).cumsum(-1)
        >>> model = FactorModel.fit(x, pv.AR1GaussianLikelihood(1, 5), latent_dim=2)
        >>> model.log_prob(x).shape
        torch.Size([300])
    """

    def __init__(self, loadings: Tensor, offset: Tensor, likelihood: GaussianNoiseLikelihood) -> None:
        self.loadings = torch.as_tensor(loadings, dtype=torch.float64)
        self.offset = torch.as_tensor(offset, dtype=torch.float64)
        self.likelihood = copy.deepcopy(likelihood).double().requires_grad_(False)
        n = self.likelihood.n
        if self.loadings.dim() != 2 or len(self.loadings) != n or self.offset.shape != (n,):
            raise InputError(
                f"loadings must have shape ({n}, d) and offset ({n},) as the likelihood has, not "
                f"{tuple(self.loadings.shape)} and {tuple(self.offset.shape)}"
            )
        zero = torch.zeros(self.likelihood.in_features, dtype=torch.float64)
        self.noise_covariance = self.likelihood.noise_covariance(zero)
        """Σ, shape (n, n)."""
        self.noise_scale_tril = torch.linalg.cholesky(self.noise_covariance)
        """L with LLᵀ = Σ, shape (n, n)."""
        self.whitened = LinearGaussianVAE(self._whiten(self.loadings.T).T, 1.0, self._whiten(self.offset))
        """The model of L⁻¹x, whose noise is N(0, I): the same posterior of z, and the families' best covariances."""
        self.gain = self._whiten(self.whitened.gain, transpose=True)
        """G = (I + AᵀΣ⁻¹A)⁻¹AᵀΣ⁻¹, shape (d, n): the posterior mean is G(x − b)."""

    def __repr__(self) -> str:
        noise = type(self.likelihood).__name__
        return f"FactorModel(n={self.n}, latent_dim={self.latent_dim}, noise of a {noise})"

    @property
    def conditional_scale(self) -> Tensor:
        """Standard deviation of each channel's noise given that of all others, (Σ⁻¹)_ii^−½, shape (n,)."""
        return torch.cholesky_inverse(self.noise_scale_tril).diagonal().rsqrt()

    @classmethod
    def fit(
        cls,
        x: Tensor,
        likelihood: GaussianNoiseLikelihood,
        latent_dim: int,
        validation: Tensor | None = None,
        max_steps: int = 2000,
    ) -> "FactorModel":
        """The likeliest model of data x (num, n): L-BFGS over Σ alone, since the best A of each Σ has a closed form.

        With λ_1 ≥ … ≥ λ_n the eigenvalues of L⁻¹SL⁻ᵀ, S the data's covariance (Jöreskog 1967), the largest mean log p
        is −½[n log 2π + log det Σ + Σ_{i ≤ d} (log max(λ_i, 1) + min(λ_i, 1)) + Σ_{i > d} λ_i]. O(n³) a step.

        Low-rank noise of rank r is fitted as factor analysis with d + r factors, which has the same p(x) but for the
        floor: z gets the d directions along which the data vary most relative to the noise, W the others. The likeliest
        full covariance is the data's, S, which leaves nothing to z. It is set to (1 − a)(S − AAᵀ) + aΣ, with A and Σ of
        the model with AR(1) noise of one σ a channel: p(x) is N(b, S) shrunk to that model. Validation data choose a;
        without them a = 1.

        Factor analysis may give a channel σ = 0 and the data an infinite density (a Heywood case). Σ therefore has the
        prior ∝ exp(−½ tr Σ⁻¹ (σ/100)²) with probabilistic PCA's σ, which is weak compared with the data. This σ and the
        likelihood's floor are the same for all channels, whose units should be alike.

        Args:
            x: shape (num, n).
            likelihood: its noise's form; it is not changed. Noise that depends on z is here the same for all.
            latent_dim: dimension d, smaller than the number of dimensions that the data fill.
            validation: shape (any, n); only a full covariance needs them.
            max_steps: of L-BFGS.

        Raises:
            InputTypeError: a likelihood that is not Gaussian.
            InputError: as :meth:`~pyrovae.exact.LinearGaussianVAE.fit`, or validation data of another shape or not
                finite.

        Warns:
            UserWarning: it ended before a maximum.
        """
        if not isinstance(likelihood, GaussianNoiseLikelihood):
            raise InputTypeError(f"a factor model needs a Gaussian likelihood, not {type(likelihood).__name__}")
        x = torch.as_tensor(x, dtype=torch.float64)
        start = LinearGaussianVAE.fit(x, latent_dim)
        if start.n != likelihood.n:
            raise InputError(f"the likelihood has n = {likelihood.n}, the data {start.n}")
        form, more = simpler_form(likelihood, x, latent_dim)
        if form is not likelihood:
            simpler = cls.fit(x, form, latent_dim + more, None, max_steps)
            return simpler.with_noise_of(likelihood, latent_dim, x, validation)
        noise = copy.deepcopy(likelihood).double()
        noise.start_at(start.noise_scale)
        root = _square_root(x)
        if noise.noise_names:
            _fit_noise(noise, root, PRIOR_SCALE * start.noise_scale / len(x) ** 0.5, latent_dim, max_steps)
        return cls(_best_loadings(noise, root, latent_dim), start.offset, noise)

    def with_noise_of(
        self, likelihood: GaussianNoiseLikelihood, latent_dim: int, x: Tensor, validation: Tensor | None = None
    ) -> "FactorModel":
        """The model with ``likelihood``'s noise of data x, from this one of :func:`simpler_form`: see :meth:`fit`."""
        if likelihood.simpler_form() is None:
            return self
        noise, start = copy.deepcopy(likelihood).double(), self.likelihood.initial_scale
        x, factors = torch.as_tensor(x, dtype=torch.float64), self.loadings[:, latent_dim:]
        noise.set_fitted_noise(self.noise_covariance, factors, start)
        if not noise.is_unrestricted:
            return FactorModel(_best_loadings(noise, _square_root(x), latent_dim), self.offset, noise)
        simple = FactorModel(self.loadings, self.offset, noise)
        if validation is None:
            return simple
        validation = torch.as_tensor(validation, dtype=torch.float64)
        check_finite("validation", validation, self.n)
        covariance = torch.cov(x.T, correction=0)
        share, _ = best_shrinkage(covariance, self.marginal.covariance_matrix, validation - self.offset)
        explained = self.loadings @ self.loadings.T
        noise.set_fitted_noise(shrunk(covariance - explained, self.noise_covariance, share), factors, start)
        found = FactorModel(self.loadings, self.offset, noise)
        # where the data leave a direction empty, the likelihood's floor may make the shrunk one worse
        return max(found, simple, key=lambda model: model.log_prob(validation).mean().item())

    def _whiten(self, rows: Tensor, transpose: bool = False) -> Tensor:
        """Each row times L⁻ᵀ (so that x becomes L⁻¹x), or times L⁻¹."""
        factor, shaped = self.noise_scale_tril, rows.reshape(-1, self.n)
        matrix = factor if transpose else factor.T
        solved: Tensor = torch.linalg.solve_triangular(matrix, shaped, upper=not transpose, left=False)
        return solved.reshape(rows.shape)


def simpler_form(
    likelihood: GaussianNoiseLikelihood, x: Tensor, latent_dim: int
) -> tuple[GaussianNoiseLikelihood, int]:
    """Noise with which the model of data x is fitted more easily, and how many more latent dimensions that takes."""
    form, more = likelihood.simpler_form() or (likelihood, 0)
    if more:
        more = min(more, most_latent_dims(torch.cov(x.double().T, correction=0)) - latent_dim)
    return form, max(0, more)


def _fit_noise(noise: GaussianNoiseLikelihood, root: Tensor, prior_scale: float, d: int, max_steps: int) -> None:
    """Give noise the parameters at which :meth:`FactorModel.fit`'s objective is largest."""
    n = root.shape[1]
    noise.loc_head.weight.detach().zero_()
    noise.loc_head.bias.detach().zero_()
    prior = prior_scale * torch.eye(n).to(root)
    zero, features = root.new_zeros(n), root.new_zeros(noise.in_features)

    def objective(coordinates: Tensor) -> Tensor:
        p = functional_call(noise, noise.noise_parameters(coordinates), features)
        normaliser = p.log_prob(zero)
        axes = _principal(p, root, d)
        kept = axes.T @ root
        rows = torch.cat([kept, root - axes @ kept, prior])
        squares = 2 * (normaliser - p.log_prob(rows))  # vᵀΣ⁻¹v: eigenvalues, and their slopes at fixed axes
        largest, rest = squares.split([d, len(rows) - d])
        explained = torch.where(largest > 1, 1 + largest.clamp_min(1).log(), largest)
        value: Tensor = 0.5 * (explained.sum() + rest.sum()) - normaliser
        return value

    start = torch.zeros(noise.num_noise_parameters, dtype=torch.float64)
    found = minimise(objective, [start], max_steps, maxcor=100, ftol=1e-12, gtol=1e-6)
    slope = np.abs(found.jac).max()
    if found.status == 1 or (found.status == 2 and slope > _STEEP):
        warnings.warn(
            f"the linear model with the noise of a {type(noise).__name__} is not yet the likeliest after {found.nit} "
            f"steps of its fit, where the slope is {slope:.2g}"
            + ("; give more max_steps" if found.status == 1 else ": the data leave some direction nearly empty"),
            stacklevel=3,
        )
    for name, value in noise.noise_parameters(torch.from_numpy(found.x)).items():
        noise.get_parameter(name).detach().copy_(value)


@torch.no_grad()
def _best_loadings(noise: GaussianNoiseLikelihood, root: Tensor, d: int) -> Tensor:
    """The likeliest A, shape (n, d), of data with covariance rootᵀ root, its columns by falling share."""
    factor = torch.linalg.cholesky(noise.noise_covariance(root.new_zeros(noise.in_features)))
    axes, values, _ = torch.linalg.svd(torch.linalg.solve_triangular(factor, root.T, upper=False), full_matrices=False)
    loadings: Tensor = factor @ axes[:, :d] * (values[:d].square() - 1).clamp_min(0).sqrt()
    return loadings


def _square_root(x: Tensor) -> Tensor:
    """Rows whose sum of squares vvᵀ is the covariance of data (num, n), as few as it has directions: (m, n)."""
    values, axes = torch.linalg.eigh(torch.cov(x.T, correction=0))
    found = values > torch.finfo(values.dtype).eps * len(values) * values[-1]
    root: Tensor = (axes[:, found] * values[found].sqrt()).T
    return root


@torch.no_grad()
def _principal(p: TorchDistribution, root: Tensor, d: int) -> Tensor:
    """Eigenvectors of the d largest eigenvalues of root Σ⁻¹ rootᵀ, which are those of L⁻¹SL⁻ᵀ: (len(root), d)."""
    from scipy.linalg import eigh

    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance_of(p)), root.T, upper=False)
    last = len(root) - 1
    _, axes = eigh((white.T @ white).numpy(), subset_by_index=[last - d + 1, last])
    return torch.from_numpy(axes)
