"""The linear-Gaussian state-space model: ordered latents whose posterior, a Markov chain, is known exactly."""

import math
from functools import cached_property

import torch
from torch import Tensor, nn

from pyrovae.distributions import MarkovNormal
from pyrovae.distributions.markov import eliminate
from pyrovae.errors import InputError, check_integer, check_positive
from pyrovae.likelihoods import GaussianLikelihood
from pyrovae.linear_gaussian._posterior import GaussianPosterior
from pyrovae.vae import GenerativeModel


class LinearGaussianStateSpace(GaussianPosterior):
    """z_t = F z_{t−1} + N(0, Q), x_t = A z_t + b + N(0, σ² I): ordered latents, k per step for T steps.

    A datum is a series: x has T·n numbers, z has T·k, ordered by step. Everything is in float64. The posterior's
    precision P, the prior's and AᵀA/σ², is block-tridiagonal: the posterior is a
    :class:`~pyrovae.distributions.MarkovNormal`. With k = 1 it is in the family ``"ar1-per-step"``, which loses
    nothing. A diagonal family loses ½(Σ log P_ii − log det P), which grows with T.

    Args:
        num_steps: T.
        transition: F, shape (k, k), or a number for k = 1.
        loadings: A, shape (n, k), or a number for n = k = 1; shape (T, n, k) if they differ between steps.
        noise_scale: σ > 0.
        innovation_covariance: Q, shape (k, k), or a number for k = 1. By default I − FFᵀ, which makes every z_t N(0,
            I).
        initial_covariance: covariance of z_0; by default the stationary one, Σ = FΣFᵀ + Q.
        offset: b, shape (T·n,); zeros by default.

    Raises:
        InputError: shapes do not fit, a covariance is not positive definite, or the scale is not positive.

    Example:
        >>> chain = LinearGaussianStateSpace(24, transition=0.9, loadings=1.0, noise_scale=1.0)
        >>> round(chain.gap("diagonal"), 4), abs(chain.gap("ar1-per-step")) < 1e-10
        (4.038, True)
    """

    def __init__(
        self,
        num_steps: int,
        transition: Tensor | float,
        loadings: Tensor | float,
        noise_scale: float,
        *,
        innovation_covariance: Tensor | float | None = None,
        initial_covariance: Tensor | float | None = None,
        offset: Tensor | None = None,
    ) -> None:
        check_integer("num_steps", num_steps)
        check_positive("noise_scale", noise_scale)
        self.num_steps, self.noise_scale = num_steps, float(noise_scale)
        self.transition = _matrix("transition", transition)
        k = len(self.transition)
        if self.transition.shape != (k, k):
            raise InputError(f"transition must have shape (k, k), not {tuple(self.transition.shape)}")
        self.loadings = _matrix("loadings", loadings)
        if self.loadings.dim() == 2:
            self.loadings = self.loadings.expand(num_steps, -1, -1)
        if self.loadings.shape[0] != num_steps or self.loadings.shape[2:] != (k,) or not self.loadings.shape[1]:
            shape = tuple(torch.as_tensor(loadings).shape)
            raise InputError(f"loadings must have shape (n, {k}) or ({num_steps}, n, {k}), not {shape}")
        f = self.transition
        given = torch.eye(k).double() - f @ f.T if innovation_covariance is None else innovation_covariance
        self.innovation_covariance = _covariance("innovation_covariance", given, k)
        if initial_covariance is None:
            initial_covariance = _stationary(f, self.innovation_covariance)
        self.initial_covariance = _covariance("initial_covariance", initial_covariance, k)
        self.offset = torch.zeros(self.n).double() if offset is None else torch.as_tensor(offset, dtype=torch.float64)
        if self.offset.shape != (self.n,):
            raise InputError(f"offset must have shape ({self.n},), not {tuple(self.offset.shape)}")

    def __repr__(self) -> str:
        _, n, k = self.loadings.shape
        return (
            f"LinearGaussianStateSpace(num_steps={self.num_steps}, channels of x={n}, of z={k}, "
            f"noise_scale={self.noise_scale:.4g})"
        )

    @property
    def n(self) -> int:
        """Dimension T·n of x."""
        return self.num_steps * self.loadings.shape[1]

    @property
    def latent_dim(self) -> int:
        """Dimension T·k of z."""
        return self.num_steps * len(self.transition)

    @cached_property
    def prior(self) -> MarkovNormal:
        """p(z)."""
        diagonal, off_diagonal = self._prior_blocks
        return MarkovNormal.from_precision(torch.zeros(self.latent_dim).double(), diagonal, off_diagonal)

    @cached_property
    def _prior_blocks(self) -> tuple[Tensor, Tensor]:
        """Blocks Q_tt and Q_{t+1,t} of the prior's precision."""
        f, steps = self.transition, self.num_steps
        innovation = torch.linalg.inv(self.innovation_covariance)
        diagonal = innovation.repeat(steps, 1, 1)
        diagonal[0] = torch.linalg.inv(self.initial_covariance)
        diagonal[:-1] += f.T @ innovation @ f
        return diagonal, (-innovation @ f).expand(steps - 1, -1, -1)

    def _blocks(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the posterior's, for values that are observed or not, (*batch, T, n)."""
        diagonal, off_diagonal = self._prior_blocks
        seen = self.loadings * observed.unsqueeze(-1)
        return diagonal + seen.mT @ seen / self.noise_scale**2, off_diagonal

    @cached_property
    def _complete(self) -> MarkovNormal:
        """The posterior of a complete series, but for its mean."""
        blocks = self._blocks(torch.ones(self.loadings.shape[:-1]).double())
        return MarkovNormal.from_precision(torch.zeros(self.latent_dim).double(), *blocks)

    @cached_property
    def precision(self) -> Tensor:
        """P of a complete series, block-tridiagonal, shape (T·k, T·k)."""
        diagonal, off_diagonal = self._blocks(torch.ones(self.loadings.shape[:-1]).double())
        k = len(self.transition)
        dense = diagonal.new_zeros(self.num_steps, k, self.num_steps, k)
        steps = torch.arange(self.num_steps)
        dense[steps, :, steps] = diagonal
        dense[steps[1:], :, steps[:-1]] = off_diagonal
        dense[steps[:-1], :, steps[1:]] = off_diagonal.mT
        return dense.reshape(self.latent_dim, self.latent_dim)

    @cached_property
    def gain(self) -> Tensor:
        """G = P⁻¹Aᵀ/σ², shape (T·k, T·n): the posterior mean is G(x − b)."""
        gain: Tensor = self.covariance @ torch.block_diag(*self.loadings).T / self.noise_scale**2
        return gain

    def _check(self, x: Tensor) -> Tensor:
        x = torch.as_tensor(x, dtype=torch.float64)
        if x.shape[-1:] != (self.n,):
            raise InputError(f"x must have shape (*batch, {self.n}), step by step, not {tuple(x.shape)}")
        return x

    def posterior(self, x: Tensor) -> MarkovNormal:
        """p(z|x), the smoother, for x (*batch, T·n); NaN is a missing value."""
        x = self._check(x)
        observed = ~x.isnan()
        residual = torch.where(observed, x - self.offset, 0.0).unflatten(-1, (self.num_steps, -1))
        if observed.all():
            q = self._complete
            blocks = self._blocks(torch.ones_like(residual[(0,) * (residual.dim() - 2)]))
        else:
            blocks = self._blocks(observed.unflatten(-1, (self.num_steps, -1)).double())
            blocks = blocks[0], blocks[1].expand(*blocks[0].shape[:-3], -1, -1, -1)
            q = MarkovNormal.from_precision(x.new_zeros(*x.shape[:-1], self.latent_dim), *blocks)
        loc = solve(*blocks, (residual.unsqueeze(-2) @ self.loadings).squeeze(-2) / self.noise_scale**2)
        return MarkovNormal(loc.flatten(-2), q.marginal_scale_tril, q.coupling, validate_args=False)

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Log p(x) in nats, shape (*batch), for x (*batch, T·n); with NaN, log p of the observed values.

        Log p(x, z) − log p(z|x) at the posterior's mean, in O(T k³).
        """
        x = self._check(x)
        posterior = self.posterior(x)
        z = posterior.mean
        steps = z.unflatten(-1, (self.num_steps, -1)).unsqueeze(-1)
        error = (x - self.offset - (self.loadings @ steps).squeeze(-1).flatten(-2)) / self.noise_scale
        terms = error.square() + 2 * math.log(self.noise_scale) + math.log(2 * math.pi)
        log_prob: Tensor = self.prior.log_prob(z) - 0.5 * terms.nan_to_num(0.0).sum(-1) - posterior.log_prob(z)
        return log_prob

    @torch.no_grad()
    def sample(self, num: int) -> Tensor:
        """Draw series x, shape (num, T·n)."""
        z = self.prior.sample(torch.Size([num])).unflatten(-1, (self.num_steps, -1)).unsqueeze(-1)
        x: Tensor = (self.loadings @ z).squeeze(-1).flatten(-2) + self.offset
        return x + self.noise_scale * torch.randn_like(x)

    def to_model(self) -> GenerativeModel:
        """The generative model as a Pyro program, in float64; its last layer holds T·n × T·k numbers."""
        likelihood = GaussianLikelihood(self.latent_dim, self.n, scale=self.noise_scale)
        model = GenerativeModel(nn.Identity(), likelihood, self.latent_dim, prior=self.prior).double()
        with torch.no_grad():
            likelihood.loc_head.weight.copy_(torch.block_diag(*self.loadings))
            likelihood.loc_head.bias.copy_(self.offset)
        return model


def solve(diagonal: Tensor, off_diagonal: Tensor, right: Tensor) -> Tensor:
    """P⁻¹r of a block-tridiagonal P, by one pass back and one forth.

    Args:
        diagonal: blocks P_tt, shape (*batch, T, k, k).
        off_diagonal: blocks P_{t+1,t}, shape (*batch, T−1, k, k).
        right: r, shape (*batch, T, k).
    """
    factors, transitions = eliminate(diagonal, off_diagonal)
    columns = list(right.unsqueeze(-1).unbind(-3))
    for t in reversed(range(len(transitions))):
        columns[t] = columns[t] + transitions[t].mT @ columns[t + 1]
    z = torch.cholesky_solve(columns[0], factors[0].expand(*columns[0].shape[:-2], -1, -1))
    found = [z]
    for t, step in enumerate(transitions):
        column = columns[t + 1]
        z = torch.cholesky_solve(column, factors[t + 1].expand(*column.shape[:-2], -1, -1)) + step @ z
        found.append(z)
    return torch.stack(found, -3).squeeze(-1)


def _matrix(name: str, value: Tensor | float) -> Tensor:
    matrix = torch.as_tensor(value, dtype=torch.float64)
    matrix = matrix.reshape(1, 1) if matrix.dim() == 0 else matrix
    if matrix.dim() not in ((2, 3) if name == "loadings" else (2,)):
        raise InputError(f"{name} must be a number or a matrix, not of shape {tuple(matrix.shape)}")
    if not matrix.isfinite().all():
        raise InputError(f"{name} holds NaN or infinite values")
    return matrix


def _covariance(name: str, value: Tensor | float, k: int) -> Tensor:
    matrix = _matrix(name, value)
    if matrix.shape != (k, k) or not torch.allclose(matrix, matrix.T) or torch.linalg.cholesky_ex(matrix).info:
        raise InputError(f"{name} must be a positive definite matrix of shape ({k}, {k}), not {matrix.tolist()}")
    return matrix


def _stationary(transition: Tensor, innovation_covariance: Tensor) -> Tensor:
    """Σ = FΣFᵀ + Q."""
    if not torch.linalg.eigvals(transition).abs().max() < 1:
        raise InputError(
            f"transition {transition.tolist()} is not stationary (an eigenvalue is 1 or more); give initial_covariance"
        )
    k = len(transition)
    lifted = torch.eye(k * k).double() - torch.kron(transition, transition)
    found: Tensor = torch.linalg.solve(lifted, innovation_covariance.flatten()).reshape(k, k)
    return 0.5 * (found + found.T)
