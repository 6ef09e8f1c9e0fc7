"""What every linear-Gaussian model is: its density, its posterior, its draws, in O(n d) a datum."""

from abc import abstractmethod
from functools import cached_property

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from torch import Tensor

from pyrovae.distributions import covariance_of
from pyrovae.linear_gaussian._posterior import GaussianPosterior

_ROWS = 512


class LinearModel(GaussianPosterior):
    """x = Az + b + ε, z ~ N(0, I), ε ~ N(0, Σ), in float64: p(x) = N(b, AAᵀ + Σ), p(z|x) = N(G(x − b), P⁻¹).

    P = I + AᵀΣ⁻¹A and G = P⁻¹AᵀΣ⁻¹. Σ⁻¹ comes from the noise's own density, so that no n × n matrix is made unless one
    is asked for.

    Attributes:
        loadings: A, shape (n, d).
        offset: b, shape (n,).
    """

    loadings: Tensor
    offset: Tensor

    @property
    @abstractmethod
    def noise(self) -> TorchDistribution:
        """N(0, Σ), of batch shape ()."""

    @property
    def n(self) -> int:
        """Dimension of x."""
        return self.loadings.shape[0]

    @property
    def latent_dim(self) -> int:
        """Dimension d of z."""
        return self.loadings.shape[1]

    @cached_property
    def noise_covariance(self) -> Tensor:
        """Σ, shape (n, n)."""
        return covariance_of(self.noise).detach()

    @cached_property
    def _scaled_loadings(self) -> Tensor:
        """Σ⁻¹A, shape (n, d)."""
        return solve_noise(self.noise, self.loadings.T).T

    @cached_property
    def precision(self) -> Tensor:
        """P, shape (d, d), the same for every x."""
        return torch.eye(self.loadings.shape[1]).to(self.loadings) + self.loadings.T @ self._scaled_loadings

    @cached_property
    def covariance(self) -> Tensor:
        """C = P⁻¹, shape (d, d)."""
        covariance: Tensor = torch.linalg.inv(self.precision)
        return covariance

    @cached_property
    def gain(self) -> Tensor:
        """G = P⁻¹AᵀΣ⁻¹, shape (d, n): the posterior mean is G(x − b)."""
        gain: Tensor = torch.linalg.solve(self.precision, self._scaled_loadings.T)
        return gain

    @property
    def marginal(self) -> MultivariateNormal:
        """p(x), with its dense covariance."""
        return MultivariateNormal(self.offset, self.loadings @ self.loadings.T + self.noise_covariance)

    @property
    def conditional_scale(self) -> Tensor:
        """Standard deviation of each channel's noise given that of all others, (Σ⁻¹)_ii^−½, shape (n,)."""
        return self._noise_precisions.rsqrt()

    @cached_property
    def _noise_precisions(self) -> Tensor:
        """(Σ⁻¹)_ii, shape (n,)."""
        found = self.offset.new_empty(self.n)
        for rows in torch.arange(self.n).split(_ROWS):
            unit = self.offset.new_zeros(len(rows), self.n)
            unit[torch.arange(len(rows)), rows] = 1.0
            found[rows] = solve_noise(self.noise, unit)[torch.arange(len(rows)), rows]
        return found

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Log p(x) = log N(x; b + Aẑ, Σ) − ½‖ẑ‖² − ½ log det P at ẑ = G(x − b), in nats, shape (*batch)."""
        residual = x.double() - self.offset
        z = residual @ self.gain.T
        log_prob: Tensor = self.noise.log_prob(residual - z @ self.loadings.T)
        return log_prob - 0.5 * z.square().sum(-1) - 0.5 * torch.logdet(self.precision)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """p(z|x) for x (*batch, n)."""
        return MultivariateNormal((x.double() - self.offset) @ self.gain.T, self.covariance)

    def kl(self, x: Tensor) -> Tensor:
        """KL(p(z|x) ‖ p(z)) in nats, shape (*batch)."""
        z, trace = (x.double() - self.offset) @ self.gain.T, self.covariance.trace()
        return 0.5 * (z.square().sum(-1) + trace - self.latent_dim + torch.logdet(self.precision))

    def reconstruct(self, x: Tensor) -> Tensor:
        """x̂ at the posterior's mean, shape (*batch, n)."""
        return self.offset + (x.double() - self.offset) @ self.gain.T @ self.loadings.T

    def spread(self) -> Tensor:
        """Standard deviation of each channel of a draw of x given a draw of z from p(z|x), shape (n,)."""
        of_latents = ((self.loadings @ self.covariance) * self.loadings).sum(-1)
        spread: Tensor = (of_latents + self.noise.variance).sqrt()
        return spread

    def solve(self, rows: Tensor) -> Tensor:
        """Each row v, shape (num, n), times M⁻¹ = Σ⁻¹ − Σ⁻¹AG of p(x)'s covariance M = AAᵀ + Σ."""
        return solve_noise(self.noise, rows - rows @ self.gain.T @ self.loadings.T)

    @cached_property
    def _precisions(self) -> Tensor:
        """(M⁻¹)_jj, shape (n,)."""
        return self._noise_precisions - (self._scaled_loadings * self.gain.T).sum(-1)

    def conditional_means(self, x: Tensor) -> Tensor:
        """E[x_j | the other channels] = x_j − (M⁻¹(x − b))_j / (M⁻¹)_jj, shape (*batch, n)."""
        rows = (x.double() - self.offset).reshape(-1, self.n)
        return x.double() - (self.solve(rows) / self._precisions).reshape(x.shape)

    @torch.no_grad()
    def sample(self, num: int) -> Tensor:
        """Draw x, shape (num, n)."""
        z = torch.randn(num, self.loadings.shape[1], dtype=torch.float64)
        noise: Tensor = self.noise.sample(torch.Size([num]))
        return self.offset + z @ self.loadings.T + noise


def solve_noise(noise: TorchDistribution, rows: Tensor) -> Tensor:
    """Each row v, shape (num, n), times Σ⁻¹ of N(0, Σ): minus the slope of its log-density at v."""
    if not len(rows):
        return rows
    with torch.enable_grad():
        at = rows.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(noise.log_prob(at).sum(), at)
    found: Tensor = -slope
    return found
