"""The linear-Gaussian model with any noise: probabilistic PCA, factor analysis, and those of correlated noise."""

import copy

import numpy as np
import torch
from pyro.distributions import MultivariateNormal
from scipy.optimize import minimize
from torch import Tensor
from torch.func import functional_call

from pyrovae.distributions import covariance_of
from pyrovae.exact import LinearGaussianVAE
from pyrovae.likelihoods import AR1GaussianLikelihood, FullCovarianceGaussianLikelihood, GaussianNoiseLikelihood

PRIOR_SCALE = 0.01
"""Scale of the prior that keeps noise off 0, as a share of probabilistic PCA's σ."""


class FactorModel:
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
            raise ValueError(
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

    def __repr__(self) -> str:
        noise = type(self.likelihood).__name__
        return f"FactorModel(n={self.n}, latent_dim={self.latent_dim}, noise of a {noise})"

    @property
    def n(self) -> int:
        """Dimension of x."""
        return self.loadings.shape[0]

    @property
    def latent_dim(self) -> int:
        """Dimension d of z."""
        return self.loadings.shape[1]

    @property
    def gain(self) -> Tensor:
        """G = (I + AᵀΣ⁻¹A)⁻¹AᵀΣ⁻¹, shape (d, n): the posterior mean is G(x − b)."""
        return self._whiten(self.whitened.gain, transpose=True)

    @property
    def conditional_scale(self) -> Tensor:
        """Standard deviation of each channel's noise given that of all others, (Σ⁻¹)_ii^−½, shape (n,)."""
        return torch.cholesky_inverse(self.noise_scale_tril).diagonal().rsqrt()

    @property
    def marginal(self) -> MultivariateNormal:
        """p(x)."""
        return MultivariateNormal(self.offset, self.loadings @ self.loadings.T + self.noise_covariance)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log p(x) in nats, shape (*batch)."""
        return self.marginal.log_prob(x.double())

    def reconstruct(self, x: Tensor) -> Tensor:
        """x̂ at the posterior's mean, shape (*batch, n)."""
        return self.offset + (x.double() - self.offset) @ self.gain.T @ self.loadings.T

    @classmethod
    def fit(
        cls, x: Tensor, likelihood: GaussianNoiseLikelihood, latent_dim: int, max_steps: int = 200
    ) -> "FactorModel":
        """The likeliest model of data x (num, n): L-BFGS over Σ alone, since the best A of each Σ has a closed form.

        With λ_1 ≥ … ≥ λ_n the eigenvalues of L⁻¹SL⁻ᵀ, S the data's covariance (Jöreskog 1967), the largest mean log p
        is −½[n log 2π + log det Σ + Σ_{i ≤ d} (log max(λ_i, 1) + min(λ_i, 1)) + Σ_{i > d} λ_i]. O(n³) a step.

        Nothing keeps factor analysis from giving a channel σ = 0 and the data an infinite density (a Heywood case),
        so that Σ has a prior, ∝ exp(−½ tr Σ⁻¹ (σ/100)²) with probabilistic PCA's σ, weak beside the data. A full
        covariance would take the data's own and leave z nothing: it gets what AR(1) noise of one σ a channel has.

        Args:
            x: shape (num, n).
            likelihood: its noise's form; it is not changed. Noise that depends on z is here the same for all.
            latent_dim: dimension d < n.
            max_steps: of L-BFGS: enough for some hundred channels; with one σ for each of 650 it ends before the
                maximum.

        Raises:
            TypeError: a likelihood that is not Gaussian.
            ValueError: as :meth:`~pyrovae.exact.LinearGaussianVAE.fit`.
        """
        if not isinstance(likelihood, GaussianNoiseLikelihood):
            raise TypeError(f"a factor model needs a Gaussian likelihood, not {type(likelihood).__name__}")
        if isinstance(likelihood, FullCovarianceGaussianLikelihood):
            form = AR1GaussianLikelihood(1, likelihood.n, scale="per-dimension", floor=likelihood.floor)
            simpler = cls.fit(x, form, latent_dim, max_steps)
            full = copy.deepcopy(likelihood).double()
            full.set_noise_covariance(simpler.noise_covariance, initial_scale=simpler.likelihood.initial_scale)
            return cls(simpler.loadings, simpler.offset, full)
        x = torch.as_tensor(x, dtype=torch.float64)
        start = LinearGaussianVAE.fit(x, latent_dim)
        if start.n != likelihood.n:
            raise ValueError(f"the likelihood has n = {likelihood.n}, the data {start.n}")
        covariance = torch.cov(x.T, correction=0)
        noise = copy.deepcopy(likelihood).double()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the columns of low-rank noise start at random
            noise.start_at(start.noise_scale)
        learned = {k: p.detach().clone() for k, p in noise.named_parameters() if is_of_shared_noise(k)}
        sizes = [p.numel() for p in learned.values()]
        zero = torch.zeros(noise.in_features, dtype=torch.float64)

        def parameters(flat: Tensor) -> dict[str, Tensor]:
            parts = flat.split(sizes)
            return {k: part.reshape(p.shape) for (k, p), part in zip(learned.items(), parts, strict=True)}

        def whiten(flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            factor = torch.linalg.cholesky(covariance_of(functional_call(noise, parameters(flat), zero)))
            inverse = torch.linalg.solve_triangular(factor, torch.eye(start.n, dtype=torch.float64), upper=False)
            return factor, inverse, inverse @ covariance @ inverse.T

        def loss(flat: Tensor) -> Tensor:
            factor, inverse, white = whiten(flat)
            half_log_det = factor.diagonal().log().sum()
            rest, kept = torch.linalg.eigvalsh(white).split([start.n - latent_dim, latent_dim])
            explained = kept.clamp_min(1)
            prior = (PRIOR_SCALE * start.noise_scale * inverse).square().sum() / len(x)
            return half_log_det + 0.5 * (rest.sum() + (explained.log() + kept / explained).sum() + prior)

        def value_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
            at = torch.from_numpy(values).requires_grad_()
            value = loss(at)
            (slope,) = torch.autograd.grad(value, at)
            return value.item(), slope.numpy()

        if learned:
            first = torch.cat([p.flatten() for p in learned.values()]).numpy()
            options = {"maxiter": max_steps, "maxfun": 2 * max_steps}
            found = torch.from_numpy(minimize(value_and_slope, first, jac=True, method="L-BFGS-B", options=options).x)
            with torch.no_grad():
                for name, value in parameters(found).items():
                    noise.get_parameter(name).copy_(value)
        else:
            found = torch.zeros(0)
        with torch.no_grad():
            factor, _, white = whiten(found)
            values, axes = torch.linalg.eigh(white)
            kept = (values[start.n - latent_dim :] - 1).clamp_min(0).sqrt()
            return cls(factor @ axes[:, start.n - latent_dim :] * kept, start.offset, noise)

    def _whiten(self, rows: Tensor, transpose: bool = False) -> Tensor:
        """Each row times L⁻ᵀ (so that x becomes L⁻¹x), or times L⁻¹."""
        factor = self.noise_scale_tril
        if transpose:
            return torch.linalg.solve_triangular(factor, rows, upper=False, left=False)
        shaped = rows.reshape(-1, len(factor))
        return torch.linalg.solve_triangular(factor.T, shaped, upper=True, left=False).reshape(rows.shape)


def is_of_shared_noise(name: str) -> bool:
    """Whether a likelihood's parameter is of its noise at features 0."""
    return not name.startswith("loc_head.") and not name.endswith("_head.weight")
