"""The linear-Gaussian model with any Gaussian noise: probabilistic PCA, factor analysis, correlated noise."""

import copy
from functools import cached_property
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrovae.blocks import has_gaps
from pyrovae.errors import InputError, InputTypeError, check_observed
from pyrovae.frames import Data, tensor_of
from pyrovae.likelihoods import GaussianLikelihood, GaussianNoiseLikelihood
from pyrovae.linear_gaussian._directions import DENSE
from pyrovae.linear_gaussian._gaps_fit import fit_gaps
from pyrovae.linear_gaussian._gaps_moments import moments_of_gaps
from pyrovae.linear_gaussian._intervals import RefittedModel
from pyrovae.linear_gaussian._moments import few_rows, rows_with
from pyrovae.linear_gaussian._noise_fit import best_loadings, fit_noise
from pyrovae.linear_gaussian._shrinkage import shrinkage, shrunk
from pyrovae.linear_gaussian.exact import LinearGaussianVAE, check_latent_dim, data_covariance, most_latent_dims
from pyrovae.nn import ConfigurableModule, softplus_inverse
from pyrovae.vae import GenerativeModel


class FactorModel(RefittedModel, ConfigurableModule):
    """x = Az + b + ε, z ~ N(0, I), ε ~ N(0, Σ): p(x) = N(b, AAᵀ + Σ), where Σ is the noise of a Gaussian likelihood.

    With one σ it is probabilistic PCA, with one σ per channel factor analysis, and with AR(1) noise a model with smooth
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
        super().__init__()
        self.register_buffer("loadings", torch.as_tensor(loadings, dtype=torch.float64))
        self.register_buffer("offset", torch.as_tensor(offset, dtype=torch.float64))
        self.likelihood = copy.deepcopy(likelihood).double().requires_grad_(False)
        self.likelihood.loc_head.set_affine(torch.zeros_like(likelihood.loc_head.weight), torch.zeros(likelihood.n))
        n = self.likelihood.n
        if self.loadings.dim() != 2 or len(self.loadings) != n or self.offset.shape != (n,):
            raise InputError(
                f"loadings must have shape ({n}, d) and offset ({n},) as the likelihood has, not "
                f"{tuple(self.loadings.shape)} and {tuple(self.offset.shape)}"
            )

    @classmethod
    def of(cls, vae: LinearGaussianVAE) -> Self:
        """The same model, with σ as its fixed noise."""
        return cls(vae.loadings, vae.offset, GaussianLikelihood(1, vae.n, scale=vae.noise_scale))

    @classmethod
    def fit_in_units(cls, x: Data, latent_dim: int) -> Self:
        """Factor analysis of data x (num, n) in the channels' units: fitted to standardised channels."""
        x = tensor_of("x", x)
        num, x = len(x), few_rows(x)
        mean, units = mean_and_scale(x)
        likelihood = GaussianLikelihood(1, x.shape[1], "per-dimension")
        found = cls._fit((x - mean) / units, likelihood, latent_dim, None, 2000, num)
        offset = mean + units * found.offset if has_gaps(x) else mean
        return cls(found.loadings * units.unsqueeze(-1), offset, independent_noise(found.noise.stddev * units))

    @classmethod
    def from_config(cls, latent_dim: int, likelihood: GaussianNoiseLikelihood) -> Self:
        """A model of these sizes, whose parameters will be loaded."""
        zeros = torch.zeros(likelihood.n, latent_dim, dtype=torch.float64)
        return cls(zeros, torch.zeros(likelihood.n, dtype=torch.float64), likelihood)

    def config(self) -> dict[str, Any]:
        """The arguments of :meth:`from_config`."""
        return {"latent_dim": self.latent_dim, "likelihood": self.likelihood}

    def __repr__(self) -> str:
        noise = type(self.likelihood).__name__
        return f"FactorModel(n={self.n}, latent_dim={self.latent_dim}, noise of a {noise})"

    @property
    def num_parameters(self) -> int:
        """Number of parameters of p(x): A without its rotations, b and Σ."""
        d = self.latent_dim
        return self.n * (d + 1) - d * (d - 1) // 2 + max(1, self.likelihood.num_noise_parameters)

    @property
    def noise(self) -> TorchDistribution:
        """N(0, Σ): the likelihood at features 0."""
        p: TorchDistribution = self.likelihood(torch.zeros(self.likelihood.in_features, dtype=torch.float64))
        return p

    @cached_property
    def noise_scale_tril(self) -> Tensor:
        """L with LLᵀ = Σ, shape (n, n)."""
        factor: Tensor = torch.linalg.cholesky(self.noise_covariance)
        return factor

    @cached_property
    def whitened(self) -> LinearGaussianVAE:
        """The model of L⁻¹x, whose noise is N(0, I): the same posterior of z, and the families' best covariances."""
        columns = torch.cat([self.loadings, self.offset.unsqueeze(-1)], dim=1)
        white = torch.linalg.solve_triangular(self.noise_scale_tril, columns, upper=False)
        return LinearGaussianVAE(white[:, :-1], 1.0, white[:, -1])

    def to_model(self) -> GenerativeModel:
        """The generative model as a Pyro program, in float64."""
        settings = self.likelihood.config() | {"in_features": self.latent_dim}
        likelihood = type(self.likelihood)(**settings).double()
        model = GenerativeModel(nn.Identity(), likelihood, self.latent_dim).double()
        with torch.no_grad():
            likelihood.start_at(self.likelihood.initial_scale)
            for name in likelihood.noise_names:
                likelihood.get_parameter(name).copy_(self.likelihood.get_parameter(name))
            likelihood.loc_head.set_affine(self.loadings, self.offset)
        return model

    @classmethod
    def fit(
        cls,
        x: Data,
        likelihood: GaussianNoiseLikelihood,
        latent_dim: int,
        validation: Data | None = None,
        max_steps: int = 2000,
    ) -> "FactorModel":
        """The maximum-likelihood model of data x (num, n): L-BFGS over Σ, whose best A has a closed form.

        With λ_1 ≥ … ≥ λ_n the eigenvalues of L⁻¹SL⁻ᵀ, S the data's covariance (Jöreskog 1967), the largest mean log p
        is −½[n log 2π + log det Σ + Σ_{i ≤ d} (log max(λ_i, 1) + min(λ_i, 1)) + Σ_{i > d} λ_i]. A step costs O(n³);
        with many channels and independent or AR(1) noise, whose Σ⁻¹ is tridiagonal, the λ_i with i ≤ d come from
        Lanczos in O(n²).

        Low-rank noise of rank r is fitted as factor analysis with d + r factors, which has the same p(x) except for the
        floor: z gets the d directions along which the data vary most relative to the noise, W the others. The
        maximum-likelihood full covariance is the data's, S, which leaves nothing for z. So the noise is set to (1 −
        a)(S − AAᵀ) + aΣ, with A and Σ of the model with AR(1) noise and one σ per channel: p(x) is N(b, S) shrunk to
        that model. Validation data choose a; without them a = 1.

        With missing values, NaN in x, the mean of log p(x_O) is maximised, where x_O are the observed values of a
        datum. The best A then has no closed form: L-BFGS optimises A, b and Σ together, starting from probabilistic PCA
        by expectation maximisation. A full covariance is then shrunk from the data's expected covariance, by
        expectation maximisation from the model with AR(1) noise.

        In factor analysis a channel may have σ = 0 and the data an infinite density (a Heywood case). Therefore Σ has
        the prior ∝ exp(−½ tr Σ⁻¹ (σ/100)²) with probabilistic PCA's σ, which is weak compared with the data. This σ and
        the likelihood's floor are the same for all channels, so their units should be similar.

        Args:
            x: shape (num, n).
            likelihood: the form of the noise; it does not change. Noise that depends on z is here the same for all
                data.
            latent_dim: dimension d, smaller than the number of dimensions that the data span.
            validation: shape (any, n); needed only for a full covariance.
            max_steps: most steps of L-BFGS.

        Raises:
            InputTypeError: a likelihood that is not Gaussian.
            InputError: as :meth:`~pyrovae.exact.LinearGaussianVAE.fit`, or validation data of another shape or not
                finite.

        Warns:
            UserWarning: the fit ended before a maximum.
        """
        if not isinstance(likelihood, GaussianNoiseLikelihood):
            raise InputTypeError(f"a factor model needs a Gaussian likelihood, not {type(likelihood).__name__}")
        x = tensor_of("x", x)
        return cls._fit(few_rows(x), likelihood, latent_dim, validation, max_steps, len(x))

    @classmethod
    def _fit(
        cls,
        x: Tensor,
        likelihood: GaussianNoiseLikelihood,
        latent_dim: int,
        validation: Data | None,
        max_steps: int,
        num: int,
    ) -> "FactorModel":
        """The model of ``num`` data, for which rows x in float64 stand."""
        start, moments = _probabilistic_pca(x, latent_dim)
        if start.n != likelihood.n:
            raise InputError(f"the likelihood has n = {likelihood.n}, the data {start.n}")
        form, more = simpler_form(likelihood, x, latent_dim)
        if form is not likelihood:
            simpler = cls._fit(x, form, latent_dim + more, None, max_steps, num)
            return simpler.with_noise_of(likelihood, latent_dim, x, validation)
        noise = copy.deepcopy(likelihood).double()
        noise.start_at(start.noise_scale)
        if moments is not None:
            loadings, offset = fit_gaps(noise, x, start, moments, max_steps)
            return cls(loadings, offset, noise)
        scale = start.noise_scale * (len(x) / num) ** 0.5  # of few rows that stand for many data
        return cls(fit_noise(noise, x, scale, latent_dim, max_steps), start.offset, noise)

    def refit(self, x: Data) -> "FactorModel":
        """The model of other data x (num, n), of the same form.

        Every fifth datum chooses the shrinkage of a full covariance.
        """
        x = tensor_of("x", x)
        if not self.latent_dim:
            return diagonal_model(x)
        if not self.likelihood.is_unrestricted:
            return type(self).fit(x, self.likelihood, self.latent_dim)
        chooses = torch.arange(len(x)) % 5 == 0
        return type(self).fit(x[~chooses], self.likelihood, self.latent_dim, validation=x[chooses])

    def with_noise_of(
        self, likelihood: GaussianNoiseLikelihood, latent_dim: int, x: Data, validation: Data | None = None
    ) -> "FactorModel":
        """The model with ``likelihood``'s noise of data x, from this one of :func:`simpler_form`: see :meth:`fit`."""
        if likelihood.simpler_form() is None:
            return self
        noise, start = copy.deepcopy(likelihood).double(), self.likelihood.initial_scale
        x, factors = few_rows(tensor_of("x", x)), self.loadings[:, latent_dim:]
        noise.set_fitted_noise(self.noise_covariance, factors, start)
        if not noise.is_unrestricted:
            if self.n > DENSE or has_gaps(x):
                return FactorModel(self.loadings[:, :latent_dim], self.offset, noise)
            return FactorModel(best_loadings(noise, x, latent_dim), self.offset, noise)
        simple = FactorModel(self.loadings, self.offset, noise)
        if validation is None:
            return simple
        validation = few_rows(tensor_of("validation", validation))
        check_observed("validation", validation, self.n)
        best, loadings, covariance = shrinkage(x, self, validation), self.loadings, torch.cov(x.T, correction=0)
        if best.covariance is not None:  # with the likeliest A for it, S − AAᵀ is a covariance
            covariance = best.covariance
            loadings = best_loadings(self.likelihood, rows_with(covariance), latent_dim)
        left = shrunk(covariance - loadings @ loadings.T, self.noise_covariance, best.share)
        left = 0.5 * (left + left.mT)  # what is left of large numbers has their rounding errors
        if torch.linalg.cholesky_ex(left).info:  # the data leave less than the loadings explain: no covariance
            return simple
        noise.set_fitted_noise(left, factors, start)
        found = FactorModel(loadings, self.offset, noise)
        # where the data leave a direction empty, the likelihood's floor may make the shrunk one worse
        return max(found, simple, key=lambda model: model.log_prob(validation).mean().item())


def _probabilistic_pca(x: Tensor, latent_dim: int) -> tuple[LinearGaussianVAE, tuple[Tensor, Tensor] | None]:
    """The likeliest model of data (num, n) with one σ; with missing values near it, and their expected moments."""
    if x.dim() != 2 or len(x) < 2 or x.isinf().any() or not has_gaps(x):
        return LinearGaussianVAE.fit(x, latent_dim), None
    check_observed("x", x, x.shape[1])
    check_latent_dim(latent_dim, min(x.shape))
    moments = moments_of_gaps(x, latent_dim)
    return LinearGaussianVAE.from_moments(*moments, latent_dim), moments


def simpler_form(
    likelihood: GaussianNoiseLikelihood, x: Tensor, latent_dim: int
) -> tuple[GaussianNoiseLikelihood, int]:
    """Noise with which the model of data x is fitted more easily, and how many more latent dimensions that takes."""
    form, more = likelihood.simpler_form() or (likelihood, 0)
    if more:
        most = min(x.shape) - 1
        if x.shape[1] <= DENSE and not has_gaps(x):
            most = most_latent_dims(data_covariance(x))
        more = min(more, most - latent_dim)
    return form, max(0, more)


def independent_noise(scale: Tensor) -> GaussianLikelihood:
    """Noise of these standard deviations σ > 0, shape (n,), in float64."""
    likelihood = GaussianLikelihood(1, len(scale), "per-dimension", scale.max().item(), floor=1e-12).double()
    likelihood.raw_scale.detach().copy_(softplus_inverse((scale - likelihood.smallest_scale).clamp_min(1e-300)))
    return likelihood


def diagonal_model(x: Tensor) -> FactorModel:
    """Independent channels of data x (num, n), each with its mean and variance: no latent dimension."""
    mean, scale = mean_and_scale(few_rows(x))
    return FactorModel(torch.zeros(x.shape[1], 0), mean, independent_noise(scale))


def mean_and_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the observed values of each channel of data (num, n)."""
    if not has_gaps(x):
        return x.mean(0), x.std(0, correction=0)
    mean = x.nanmean(0)
    return mean, (x - mean).square().nanmean(0).sqrt()
