"""Gaussians on chains of vectors: the precision is block-tridiagonal."""

import math

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions.utils import lazy_property

from pyrovae.distributions._recurrence import block_recurrence, times
from pyrovae.errors import InputError


class MarkovNormal(TorchDistribution):
    r"""Gaussian Markov chain of T steps with k numbers each, stored step by step in one vector of length T·k.

    z_t = μ_t + S_t y_t, y_0 = ε_0, y_t = K_{t−1} y_{t−1} + H_{t−1} ε_t with K Kᵀ + H Hᵀ = I: every y_t is N(0, I), so
    that S_t Sᵀ_t is the covariance of step t, and cov(z_{t+1}, z_t) = S_{t+1} K_t Sᵀ_t. Every Gaussian whose precision
    is block-tridiagonal has this form; k = 1 is :class:`AR1Normal` with a scale and a correlation per step. Sampling,
    density, entropy and divergences cost O(T k³), without a Python loop over the steps.

    K is given by any matrix C, its *coupling*: K = C R⁻ᵀ with R Rᵀ = I + CᵀC, whose singular values c/√(1 + c²) are
    below 1. For k = 1, C = ρ/√(1 − ρ²) = sinh(arctanh ρ). With G Gᵀ = I + CCᵀ, H = G⁻ᵀ and
    log p(z) = −½ Σ_t ‖w_t‖² − Σ_t log det S_t + Σ_t log det G_t − ½ T k log 2π, w_t = Gᵀ(y_t − K y_{t−1}).

    Args:
        loc: mean μ, shape (*batch, T·k).
        marginal_scale_tril: S, lower triangular with positive diagonals, shape (*batch, T, k, k).
        coupling: C, shape (*batch, T−1, k, k).
        validate_args: whether to check that values are real numbers.

    Raises:
        InputError: shapes do not fit.

    Example:
        >>> q = MarkovNormal(torch.zeros(6), torch.eye(2).expand(3, 2, 2), torch.ones(2, 2, 2))
        >>> q.rsample().shape, q.precision_matrix[:2, 4:].abs().max() < 1e-6
        (torch.Size([6]), tensor(True))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own convention)
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, marginal_scale_tril: Tensor, coupling: Tensor, validate_args: bool | None = None
    ) -> None:
        shape = marginal_scale_tril.shape
        num_steps, k = (*shape[-3:-1],) if marginal_scale_tril.dim() > 2 else (0, 0)
        fits = shape[-2:] == (k, k) and coupling.shape[-3:] == (num_steps - 1, k, k)
        if not fits or loc.shape[-1:] != (num_steps * k,):
            raise InputError(
                "loc (…, T·k), marginal_scale_tril (…, T, k, k) and coupling (…, T−1, k, k) do not fit: "
                f"{tuple(loc.shape)}, {tuple(shape)} and {tuple(coupling.shape)}"
            )
        self.loc, self.marginal_scale_tril, self.coupling = loc, marginal_scale_tril, coupling
        self.num_steps, self.channels = num_steps, k
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], shape[:-3], coupling.shape[:-3])
        super().__init__(batch_shape, loc.shape[-1:], validate_args=validate_args)

    @classmethod
    def from_precision(cls, loc: Tensor, diagonal: Tensor, off_diagonal: Tensor) -> "MarkovNormal":
        """The chain with a block-tridiagonal precision, by one backward and one forward pass over the steps.

        Args:
            loc: mean, shape (*batch, T·k).
            diagonal: blocks P_tt, shape (*batch, T, k, k).
            off_diagonal: blocks P_{t+1,t}, shape (*batch, T−1, k, k).
        """
        given, transition = eliminate(diagonal, off_diagonal)
        scale = torch.linalg.cholesky(torch.cholesky_inverse(given[0]))
        scales, couplings = [scale], []
        for factor, step in zip(given[1:], transition, strict=True):
            innovation = torch.cholesky_inverse(factor)
            carried = step @ scale
            following = torch.linalg.cholesky(carried @ carried.mT + innovation)
            contraction = torch.linalg.solve_triangular(following, carried, upper=False)
            # G Gᵀ = (I − K Kᵀ)⁻¹ = Sᵀ J S, without a difference of nearly equal numbers
            inner = factor.mT @ following @ contraction
            gram = torch.eye(scale.shape[-1]).to(scale) + inner.mT @ inner  # (I − KᵀK)⁻¹ = RᵀR
            root = torch.linalg.cholesky(gram.flip(-1, -2)).flip(-1, -2)
            couplings.append(contraction @ root)
            scales.append(following)
            scale = following
        coupling = torch.stack(couplings, -3) if couplings else off_diagonal
        return cls(loc, torch.stack(scales, -3), coupling, validate_args=False)

    @lazy_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        """Cholesky factors R of I + CᵀC and G of I + CCᵀ, each (*batch, T−1, k, k)."""
        c = self.coupling
        eye = torch.eye(self.channels, dtype=c.dtype, device=c.device)
        return torch.linalg.cholesky(eye + c.mT @ c), torch.linalg.cholesky(eye + c @ c.mT)

    @lazy_property
    def contraction(self) -> Tensor:
        """K, shape (*batch, T−1, k, k): the correlation of a step with the one before it."""
        return torch.linalg.solve_triangular(self._factors[0], self.coupling.mT, upper=False).mT

    @property
    def innovation_precision_factor(self) -> Tensor:
        """G, shape (*batch, T−1, k, k)."""
        return self._factors[1]

    @lazy_property
    def innovation_factor(self) -> Tensor:
        """H = G⁻ᵀ, shape (*batch, T−1, k, k)."""
        factor = self._factors[1]
        eye = torch.eye(self.channels, dtype=factor.dtype, device=factor.device)
        return torch.linalg.solve_triangular(factor.mT, eye.expand_as(factor), upper=True)

    @lazy_property
    def _half_log_det(self) -> Tensor:
        """½ log det Σ, broadcastable to the batch shape."""
        marginal = self.marginal_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1))
        return marginal - self._factors[1].diagonal(dim1=-2, dim2=-1).log().sum((-2, -1))

    @property
    def mean(self) -> Tensor:
        """μ, shape (*batch, T·k)."""
        return self.loc.expand(self._extended_shape())

    @property
    def mode(self) -> Tensor:
        """μ, shape (*batch, T·k)."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        """Variances, shape (*batch, T·k)."""
        return self.marginal_scale_tril.square().sum(-1).flatten(-2).expand(self._extended_shape())

    @property
    def _factor(self) -> Tensor:
        """F with FFᵀ = Σ, triangular by blocks, shape (*batch, T·k, T·k)."""
        d = self.event_shape[0]
        eye = torch.eye(d, dtype=self.loc.dtype, device=self.loc.device)
        return self._colour(eye, extra_axis=True).mT.expand(*self._extended_shape(), d)

    @property
    def covariance_matrix(self) -> Tensor:
        """Σ, shape (*batch, T·k, T·k): O(T²) memory."""
        factor = self._factor
        return factor @ factor.mT

    @property
    def precision_matrix(self) -> Tensor:
        """Σ⁻¹, block-tridiagonal, shape (*batch, T·k, T·k): O(T²) memory."""
        inverse = torch.linalg.inv(self._factor)
        return inverse.mT @ inverse

    @property
    def step_covariances(self) -> tuple[Tensor, Tensor]:
        """Covariance of each step, (*batch, T, k, k), and of each step with the previous one, (*batch, T−1, k, k)."""
        s = self.marginal_scale_tril
        return s @ s.mT, s[..., 1:, :, :] @ self.contraction @ s[..., :-1, :, :].mT

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draw z_t = μ_t + S_t y_t."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.loc + self._colour(torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device))

    def _colour(self, noise: Tensor, *, extra_axis: bool = False) -> Tensor:
        """Turn white ε (*, T·k) into S y; ε may have one more axis before the last than the parameters."""
        parts = self.contraction, self.innovation_factor, self.marginal_scale_tril
        contraction, innovation, scale = (part.unsqueeze(-4) if extra_axis else part for part in parts)
        steps = self._by_step(noise)
        moved = times(innovation, steps[..., 1:, :])
        first = steps[..., :1, :].expand(*moved.shape[:-2], 1, -1)
        return times(scale, block_recurrence(contraction, torch.cat([first, moved], dim=-2))).flatten(-2)

    def _by_step(self, value: Tensor) -> Tensor:
        return value.unflatten(-1, (self.num_steps, self.channels))

    def white(self, difference: Tensor, *, extra_axis: bool = False) -> tuple[Tensor, Tensor]:
        """Two parts of z − μ that are N(0, I): y of the first step, and Gᵀ(y_t − K y_{t−1}) of the others.

        Args:
            difference: z − μ.
            extra_axis: whether it has one more axis before the last than the parameters.
        """
        parts = self.marginal_scale_tril, self.contraction, self._factors[1]
        scale, contraction, precision = (part.unsqueeze(-4) if extra_axis else part for part in parts)
        y = torch.linalg.solve_triangular(scale, self._by_step(difference).unsqueeze(-1), upper=False).squeeze(-1)
        return y[..., 0, :], times(precision.mT, y[..., 1:, :] - times(contraction, y[..., :-1, :]))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, shape (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        first, others = self.white(value - self.loc)
        squares = first.square().sum(-1) + others.square().sum((-2, -1))
        return -0.5 * (squares + self.event_shape[0] * math.log(2 * math.pi)) - self._half_log_det

    def entropy(self) -> Tensor:
        """½ T k (1 + log 2π) + ½ log det Σ in nats, shape (*batch)."""
        constant = 0.5 * self.event_shape[0] * (1 + math.log(2 * math.pi))
        return (self._half_log_det + constant).expand(self._batch_shape)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "MarkovNormal":
        """The same distribution with its batch shape broadcast to ``batch_shape``."""
        batch_shape = torch.Size(batch_shape)
        return MarkovNormal(
            self.loc.expand(batch_shape + self.event_shape),
            self.marginal_scale_tril.expand(batch_shape + self.marginal_scale_tril.shape[-3:]),
            self.coupling.expand(batch_shape + self.coupling.shape[-3:]),
            validate_args=self._validate_args,
        )


def eliminate(diagonal: Tensor, off_diagonal: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """A block-tridiagonal precision as a chain: factors of the precision of each step given the previous one.

    From the last step back these are J_t = P_tt − Pᵀ_{t+1,t} J⁻¹_{t+1} P_{t+1,t}. Also returns the transitions
    −J⁻¹_{t+1} P_{t+1,t}.
    """
    precision = diagonal[..., -1, :, :]
    factors, transitions = [torch.linalg.cholesky(precision)], []
    for t in reversed(range(off_diagonal.shape[-3])):
        step = off_diagonal[..., t, :, :]
        transitions.append(-torch.cholesky_solve(step, factors[-1]))
        factors.append(torch.linalg.cholesky(diagonal[..., t, :, :] + step.mT @ transitions[-1]))
    return factors[::-1], transitions[::-1]
