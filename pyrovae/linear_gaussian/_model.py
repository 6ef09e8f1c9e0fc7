"""What every linear-Gaussian model is: its density, its posterior, its draws, in O(n d) a datum."""

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from torch import Tensor, nn

from pyrovae.distributions import covariance_of
from pyrovae.errors import check_choice
from pyrovae.posteriors import POSTERIORS, Posterior
from pyrovae.vae import AmortizedGuide, GenerativeModel

Family = str | Callable[[int, int], Posterior]
"""A family of posteriors, by its name or as a callable of (in_features, latent_dim)."""
_ROWS = 512


class LinearModel:
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

    def gap(self, family: Family) -> float:
        """Nats between log p(x) and the family's best ELBO, min KL(q ‖ p(z|x)), the same for every x.

        ½(Σ log P_ii − log det P) for the diagonal family, ½(−log det P − d log(d/tr P)) for the isotropic one,
        0 for full covariance; other Gaussian families by numerical minimisation.
        """
        covariance = self.best_covariance(family)
        trace = (self.precision * covariance).sum().item() - self.latent_dim
        return 0.5 * (trace - torch.logdet(self.precision).item() - torch.logdet(covariance).item())

    def best_elbo(self, family: Family, x: Tensor) -> Tensor:
        """The largest ELBO that the family reaches at this decoder, in nats, shape (*batch)."""
        return self.log_prob(x) - self.gap(family)

    def best_covariance(self, family: Family) -> Tensor:
        """Covariance of the family's member nearest to the posterior in KL(q ‖ p(z|x)), shape (d, d)."""
        with torch.random.fork_rng(devices=[]):
            return make_head(family, self.n, self.latent_dim).closest_covariance(self.precision)

    @abstractmethod
    def to_model(self) -> GenerativeModel:
        """The generative model as a Pyro program, in float64."""

    def to_guide(self, family: Family = "full-covariance") -> AmortizedGuide:
        """The family's best guide at this decoder as a Pyro program, in float64: by default the exact posterior."""
        head = make_head(family, self.n, self.latent_dim)
        head.set_covariance(head.closest_values(self.precision))
        head.set_mean(self.gain, -self.gain @ self.offset)
        return AmortizedGuide(nn.Identity(), head)


def make_head(family: Family, in_features: int, latent_dim: int) -> Posterior:
    """A head of the family in float64.

    Raises:
        InputError: an unknown name.
    """
    if isinstance(family, str):
        check_choice("family", family, POSTERIORS)
        family = POSTERIORS[family]
    return family(in_features, latent_dim).double()


def solve_noise(noise: TorchDistribution, rows: Tensor) -> Tensor:
    """Each row v, shape (num, n), times Σ⁻¹ of N(0, Σ): minus the slope of its log-density at v."""
    if not len(rows):
        return rows
    with torch.enable_grad():
        at = rows.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(noise.log_prob(at).sum(), at)
    found: Tensor = -slope
    return found
