"""Base of the linear-Gaussian models: density, posterior and draws, in O(n d) per datum."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from pyro.distributions import MultivariateNormal, Normal, TorchDistribution
from torch import Tensor

from pyrovae.distributions import covariance_of
from pyrovae.distributions.restricted import restricted
from pyrovae.errors import InputError
from pyrovae.frames import Data, each_datum, each_value, tensor_of
from pyrovae.linear_gaussian._completion import complete, has_neighbours
from pyrovae.linear_gaussian._patterns import patterns
from pyrovae.linear_gaussian._posterior import GaussianPosterior
from pyrovae.vae import GenerativeModel

_ROWS = 512


class LinearModel(GaussianPosterior):
    """x = Az + b + ε, z ~ N(0, I), ε ~ N(0, Σ), in float64: p(x) = N(b, AAᵀ + Σ), p(z|x) = N(G(x − b), P⁻¹).

    P = I + AᵀΣ⁻¹A and G = P⁻¹AᵀΣ⁻¹. Σ⁻¹ comes from the noise's density, so no n × n matrix is formed unless requested.

    Data x are a tensor, an array or a DataFrame. For a DataFrame, what has a number for each datum or each value is a
    Series or a DataFrame with its index and columns.

    NaN in x is a missing value. Then everything refers to the observed values x_O, exactly: p(x_O) = N(b_O, A_O A_Oᵀ +
    Σ_OO) and p(z|x_O). Data with the same missing channels share one factorisation.

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

    def observing(self, channels: Tensor) -> "LinearModel":
        """The model of some channels alone, with the same z.

        Args:
            channels: which, booleans of shape (n,).
        """
        return PartOfModel(self.loadings, self.offset, self.noise, channels)

    def _by_pattern(self, x: Tensor, function: Callable[["LinearModel", Tensor], Tensor], *shape: int) -> Tensor:
        """A function of a model and its data, (rows, *shape), applied to x's observed channels: (*batch, *shape)."""
        rows = x.double().reshape(-1, self.n)
        found = rows.new_zeros(len(rows), *shape)
        for channels, of_pattern in patterns(rows):
            part = self if channels.all() else self.observing(channels)
            found[of_pattern] = function(part, rows[of_pattern][:, channels])
        return found.reshape(*x.shape[:-1], *shape)

    @each_datum
    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Log p(x) = log N(x; b + Aẑ, Σ) − ½‖ẑ‖² − ½ log det P at ẑ = G(x − b), in nats, shape (*batch).

        With missing values it is log p(x_O), and 0 if nothing is observed.
        """
        if x.isnan().any():
            return self._by_pattern(x, lambda part, seen: part.log_prob(seen))
        residual = x.double() - self.offset
        z = residual @ self.gain.T
        log_prob: Tensor = self.noise.log_prob(residual - z @ self.loadings.T)
        return log_prob - 0.5 * z.square().sum(-1) - 0.5 * torch.logdet(self.precision)

    def _latents(self, x: Tensor) -> Tensor:
        """Mean of p(z|x), shape (*batch, d)."""
        if x.isnan().any():
            return self._by_pattern(x, lambda part, seen: part._latents(seen), self.loadings.shape[1])
        return (x.double() - self.offset) @ self.gain.T

    def _latent_covariances(self, x: Tensor) -> Tensor:
        """Covariance of p(z|x), shape (d, d), or (*batch, d, d) for data with missing values."""
        if x.isnan().any():
            d = self.loadings.shape[1]
            return self._by_pattern(x, lambda part, seen: part.covariance.expand(len(seen), d, d), d, d)
        return self.covariance

    def posterior(self, x: Data) -> MultivariateNormal:
        """p(z|x) for x (*batch, n)."""
        x = tensor_of("x", x)
        return MultivariateNormal(self._latents(x), self._latent_covariances(x))

    @each_datum
    def kl(self, x: Tensor) -> Tensor:
        """KL(p(z|x) ‖ p(z)) in nats, shape (*batch)."""
        z, covariance = self._latents(x), self._latent_covariances(x)
        trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
        return 0.5 * (z.square().sum(-1) + trace - self.latent_dim - torch.logdet(covariance))

    @each_value
    def reconstruct(self, x: Tensor) -> Tensor:
        """x̂ at the posterior's mean, shape (*batch, n)."""
        return self.offset + self._latents(x) @ self.loadings.T

    @each_value
    def spread(self, x: Tensor | None = None) -> Tensor:
        """Standard deviation of each channel of a draw of x, given a draw of z from p(z|x).

        Args:
            x: data with missing values, shape (*batch, n); None for complete data, which all have the same spread.

        Returns:
            Shape (n,), or (*batch, n) for data with missing values.
        """
        covariance = self.covariance if x is None else self._latent_covariances(x)
        of_latents = ((self.loadings @ covariance) * self.loadings).sum(-1)
        spread: Tensor = (of_latents + self.noise.variance).sqrt()
        return spread

    def given(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """W and K of p(x_M | x_O) = N(b_M + W(x_O − b_O), K), of the other channels M given these.

        Args:
            channels: O, booleans of shape (n,).

        Returns:
            Shapes (n − k, k) and (n − k, n − k) for k channels.
        """
        part, others = self.observing(channels), ~channels
        covariance = self.noise_covariance[others]
        along = solve_noise(part.noise, covariance[:, channels])
        left = self.loadings[others] - along @ part.loadings
        spread = covariance[:, others] - along @ covariance[:, channels].T + left @ part.covariance @ left.T
        return along + left @ part.gain, 0.5 * (spread + spread.T)

    @each_value
    @torch.no_grad()
    def complete(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Fill in missing values, NaN in x, from the observed values of the same datum.

        Args:
            x: shape (*batch, n).

        Returns:
            x with E[x_M | x_O] where it was NaN, and the standard deviation of each value, 0 where it was observed;
            both of shape (*batch, n), float64.
        """
        rows, noise = x.double().reshape(-1, self.n).clone(), self.noise
        if has_neighbours(noise) and rows.is_cpu:
            affine = torch.cat([self.loadings, self.offset.unsqueeze(-1)], dim=1)
            rows, deviation = complete(noise, affine, rows)
            return rows.reshape(x.shape), deviation.reshape(x.shape)
        deviation = torch.zeros_like(rows)
        for at, covariance in self._complete_by_pattern(rows):
            deviation[at] = covariance.diagonal().clamp_min(0).sqrt()
        return rows.reshape(x.shape), deviation.reshape(x.shape)

    @torch.no_grad()
    def expected_moments(self, x: Data) -> tuple[Tensor, Tensor]:
        """Expected mean (n,) and covariance (n, n) of data (num, n), given the observed values."""
        rows, more = tensor_of("x", x).double().clone(), self.offset.new_zeros(self.n, self.n)
        for (of_pattern, missing), covariance in self._complete_by_pattern(rows):
            more[missing.T, missing] += len(of_pattern) / len(rows) * covariance
        return rows.mean(0), torch.cov(rows.T, correction=0).reshape(self.n, self.n) + more

    def _complete_by_pattern(self, rows: Tensor) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Fill in rows (num, n): for each pattern where it was filled in, (k, 1) and (1, m), and their covariance."""
        for channels, of_pattern in patterns(rows):
            if not channels.all():
                weights, covariance = self.given(channels)
                at = of_pattern.unsqueeze(-1), (~channels).nonzero().T
                residual = rows[of_pattern][:, channels] - self.offset[channels]
                rows[at] = self.offset[~channels] + residual @ weights.T
                yield at, covariance

    @each_value
    def score(self, x: Tensor) -> Tensor:
        """∇ log p(x) = −M⁻¹(x − b), shape (*batch, n), 0 where x is missing."""
        return self._where_observed(x, lambda part, seen: part.solve(part.offset - seen))

    def _where_observed(self, x: Tensor, function: Callable[["LinearModel", Tensor], Tensor]) -> Tensor:
        """What a function of a model and its data gives for each value of x, (*batch, n), 0 where it is missing."""
        rows = x.double().reshape(-1, self.n)
        found = torch.zeros_like(rows)
        for channels, of_pattern in patterns(rows):
            if not channels.any():
                continue
            part = self if channels.all() else self.observing(channels)
            found[of_pattern.unsqueeze(-1), channels.nonzero().T] = function(part, rows[of_pattern][:, channels])
        return found.reshape(x.shape)

    def solve(self, rows: Tensor) -> Tensor:
        """Each row v, shape (num, n), times M⁻¹ = Σ⁻¹ − Σ⁻¹AG of p(x)'s covariance M = AAᵀ + Σ."""
        return solve_noise(self.noise, rows - rows @ self.gain.T @ self.loadings.T)

    @cached_property
    def _precisions(self) -> Tensor:
        """(M⁻¹)_jj, shape (n,)."""
        return self._noise_precisions - (self._scaled_loadings * self.gain.T).sum(-1)

    @each_value
    def conditional_means(self, x: Tensor) -> Tensor:
        """E[x_j | the other channels] = x_j − (M⁻¹(x − b))_j / (M⁻¹)_jj, shape (*batch, n)."""
        if x.isnan().any():
            completed, _ = self.complete(x)
            of_observed = self._where_observed(x, lambda part, seen: part.conditional_means(seen))
            return torch.where(x.isnan(), completed, of_observed)
        rows = (x.double() - self.offset).reshape(-1, self.n)
        return x.double() - (self.solve(rows) / self._precisions).reshape(x.shape)

    @torch.no_grad()
    def sample(self, num: int) -> Tensor:
        """Draw x, shape (num, n)."""
        z = torch.randn(num, self.loadings.shape[1], dtype=torch.float64)
        noise: Tensor = self.noise.sample(torch.Size([num]))
        return self.offset + z @ self.loadings.T + noise


class PartOfModel(LinearModel):
    """A linear model of some of another's channels.

    Args:
        loadings: A of all channels, shape (n, d).
        offset: b of all channels, shape (n,).
        noise: N(0, Σ) of all channels.
        channels: which, booleans of shape (n,); there may be none.
    """

    def __init__(self, loadings: Tensor, offset: Tensor, noise: TorchDistribution, channels: Tensor) -> None:
        self.loadings, self.offset = loadings[channels], offset[channels]
        none = Normal(self.offset, torch.ones_like(self.offset)).to_event(1)
        self._noise = restricted(noise, channels) if channels.any() else none

    @property
    def noise(self) -> TorchDistribution:
        """N(0, Σ_OO)."""
        return self._noise

    def to_model(self) -> GenerativeModel:
        """Not available: use the program of all channels, which accepts missing values.

        Raises:
            InputError: always.
        """
        raise InputError("a part of a model is not a program; use the program of all channels")


def solve_noise(noise: TorchDistribution, rows: Tensor) -> Tensor:
    """Each row v, shape (num, n), times Σ⁻¹ of N(0, Σ): minus the slope of its log-density at v."""
    if not len(rows):
        return rows
    with torch.enable_grad():
        at = rows.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(noise.log_prob(at).sum(), at)
    found: Tensor = -slope
    return found
