"""Log p(x) by annealed importance sampling with Hamiltonian transitions (Neal 2001; Wu, Burda et al. 2017)."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypedDict

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.distributions import covariance_of
from pyrovae.errors import InputError, check_choice, check_integer
from pyrovae.evaluation._density import Density, density_of, moments_of_guide
from pyrovae.evaluation._method import Center, Method, Problem
from pyrovae.evaluation.estimate import Bound, LogMarginal, UnreliableEstimateWarning
from pyrovae.evaluation.importance import in_chunks, log_mean_weight
from pyrovae.evaluation.per_datum import NUM_DRAWS

_PILOT_CHAINS = 8
_TARGET_ACCEPTANCE = 0.8


@dataclass(frozen=True)
class Annealing(Method):
    """Chains from the guide or the prior to the posterior, by Hamiltonian transitions (Neal 2001).

    They pass through ``num_temperatures`` intermediate densities: a lower bound in expectation that needs no good
    guide. For data simulated with known latents, chains run back from the posterior and give an upper bound (Grosse et
    al. 2015).
    """

    name: ClassVar[str] = "annealed"
    takes_latents: ClassVar[bool] = True
    num_samples: int = 16
    """Chains for each datum."""
    center: str = Center.GUIDE
    """Start of the chains: guide or prior."""
    num_temperatures: int = 500
    """Steps of annealing. The distance of the bounds is inversely proportional to it."""
    num_leapfrog: int = 5
    """Leapfrog steps in each transition."""

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_temperatures", "num_leapfrog"):
            check_integer(name, getattr(self, name))
        check_choice("center", self.center, [Center.PRIOR, Center.GUIDE])

    def estimate(self, problem: Problem) -> LogMarginal:
        """Estimate log p(x) of each datum, from above if the latents are known."""
        x, latents = problem.x, problem.latents
        prior = None
        if self.center == Center.PRIOR:
            prior = problem.parts("annealed from the prior")[0].prior_distribution()
        if latents is not None and (latents.dim() != 2 or len(latents) != len(x)):
            raise InputError(f"latents must have shape ({len(x)}, d), not {tuple(latents.shape)}")
        if latents is not None and not latents.isfinite().all():
            raise InputError("latents hold NaN or infinite values")

        def estimate(rows: slice) -> tuple[Tensor, ...]:
            density = density_of(problem.model, problem.guide, x, rows, problem.rows_at_once)
            if latents is not None and latents.shape[1] != density.dim:
                raise InputError(f"latents must have shape ({len(x)}, {density.dim}), not {tuple(latents.shape)}")
            path = path_from(density, prior, x[rows], self.num_temperatures)
            exact = None if latents is None else latents[rows].to(x)
            log_w, acceptance = log_weights(path, self.num_samples, self.num_leapfrog, exact)
            log_w = log_w if exact is None else -log_w  # weights of mean 1/p(x)
            return *log_mean_weight(log_w.double().cpu()), acceptance.double().cpu()

        data_at_once = problem.at_once(max(1, problem.rows_at_once // self.num_samples))
        per_datum, stderr, effective, gain, k, acceptance = in_chunks(estimate, x, data_at_once, problem.progress)
        if latents is None:
            found = LogMarginal(per_datum, stderr, self.num_samples, effective, gain, k, acceptance)
            if found.mostly_unreliable:
                share = found.unreliable.double().mean().item()
                warnings.warn(
                    f"the annealed chains of {100 * share:.0f} % of the data differ too much: log p(x) may be far "
                    "above this estimate; start nearer to p(z|x), as method='auto' does, or give more num_temperatures",
                    UnreliableEstimateWarning,
                    stacklevel=4,  # the caller of log_marginal, through its decorator
                )
            return found
        unknown = torch.full_like(stderr, math.nan)  # the chains of a datum start at one draw: they are not independent
        return LogMarginal(
            -per_datum, unknown, self.num_samples, unknown, -gain, unknown, acceptance, bound=Bound.UPPER
        )


class AnnealingKeywords(TypedDict, total=False):
    """The fields of :class:`Annealing`, as a type checker sees the keywords of a function."""

    num_samples: int
    center: str
    num_temperatures: int
    num_leapfrog: int


@dataclass(frozen=True)
class Path:
    """Densities π_t ∝ q₀(z)^(1 − β_t) p(x, z)^β_t from a start q₀ that can be drawn from to the posterior.

    Attributes:
        log_start: log q₀ of z (chains, num, d), shape (chains, num).
        log_joint: log p(x, z), with the same shapes.
        draw: a function from a number of chains to draws of q₀, shape (chains, num, d).
        factor: Cholesky factor of q₀'s covariance, ([num,] d, d): the units in which transitions move.
        temperatures: β, rising from 0 to 1, shape (T + 1,).
    """

    log_start: Callable[[Tensor], Tensor]
    log_joint: Callable[[Tensor], Tensor]
    draw: Callable[[int], Tensor]
    factor: Tensor
    temperatures: Tensor

    def log_ratio(self, z: Tensor) -> Tensor:
        """Log p(x, z) − log q₀(z), shape (chains, num)."""
        return self.log_joint(z) - self.log_start(z)

    def log_density(self, z: Tensor, beta: Tensor) -> Tensor:
        """Log π at a temperature, shape (chains, num)."""
        start = self.log_start(z)
        return start + beta * (self.log_joint(z) - start)

    def log_density_and_slope(self, z: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Log π, (chains, num), and its gradient in z, (chains, num, d)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = self.log_density(z, beta)
            (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope


def path_from(density: Density, prior: TorchDistribution | None, x: Tensor, num_temperatures: int) -> Path:
    """The path from the guide's q(z|x), or from the prior if it is given, to p(z|x)."""
    known = moments_of_guide(density)[1] if prior is None else covariance_of(prior, num_draws=NUM_DRAWS)
    return Path(
        log_start=density.log_guide if prior is None else prior.log_prob,
        log_joint=density.log_joint,
        # a prior may be of another dtype
        draw=density.draw if prior is None else lambda chains: prior.sample(torch.Size([chains, len(x)])).to(x),
        factor=torch.linalg.cholesky(known.to(x)),
        temperatures=rising_temperatures(num_temperatures).to(x),
    )


def rising_temperatures(num: int) -> Tensor:
    """From 0 to 1, shape (num + 1,): dense near both ends, where the densities change fastest."""
    rise = torch.sigmoid(4 * torch.linspace(-1, 1, num + 1, dtype=torch.float64))
    return (rise - rise[0]) / (rise[-1] - rise[0])


def log_weights(path: Path, num_chains: int, num_leapfrog: int, exact: Tensor | None) -> tuple[Tensor, Tensor]:
    """Anneal from q₀ to the posterior, or from exact draws of the posterior back to q₀.

    To the posterior E[w] = p(x), so E[log w] is a lower bound; back E[1/w] = 1/p(x), so −log mean(1/w) is an upper
    bound. Pilot chains, whose weights are discarded, find the step sizes: with steps adapted to the chains themselves,
    w would be biased.

    Args:
        path: the path.
        num_chains: chains for each datum.
        num_leapfrog: leapfrog steps a transition.
        exact: the latents that x was simulated with, (num, d), draws of p(z|x), to anneal back from; else None.

    Returns:
        Log-weights (chains, num) and mean acceptance (num,).
    """
    sizes = _pilot(path, min(num_chains, _PILOT_CHAINS), num_leapfrog)
    z = path.draw(num_chains) if exact is None else exact.expand(num_chains, *exact.shape)
    log_w = torch.zeros(z.shape[:-1], dtype=z.dtype, device=z.device)
    accepted = torch.zeros_like(log_w)
    rises = path.temperatures.diff()
    for t in range(len(rises)) if exact is None else reversed(range(len(rises))):
        if exact is None:
            log_w += rises[t] * path.log_ratio(z)
        z, moved = _transition(path, z, path.temperatures[t + 1], sizes[t], num_leapfrog)
        accepted += moved
        if exact is not None:
            log_w += rises[t] * path.log_ratio(z)
    return log_w, (accepted / len(rises)).mean(0)


def _pilot(path: Path, num_chains: int, num_leapfrog: int) -> Tensor:
    """Step sizes (T, num, 1) at which about 0.8 of the proposals are accepted, datum by datum."""
    z = path.draw(num_chains)
    size = torch.full((z.shape[-2], 1), 0.5 * z.shape[-1] ** -0.25, dtype=z.dtype, device=z.device)
    sizes = []
    for beta in path.temperatures[1:]:
        sizes.append(size)
        z, moved = _transition(path, z, beta, size, num_leapfrog)
        size = size * torch.exp(0.2 * (moved.mean(0) - _TARGET_ACCEPTANCE)).unsqueeze(-1)
    return torch.stack(sizes)


def _transition(path: Path, z: Tensor, beta: Tensor, size: Tensor, num_leapfrog: int) -> tuple[Tensor, Tensor]:
    """One Hamiltonian transition that leaves π invariant: the new z (chains, num, d), and which moved (chains, num)."""
    momentum = torch.randn_like(z)
    before, slope = path.log_density_and_slope(z, beta)
    energy = before - 0.5 * momentum.square().sum(-1)
    proposal, p = z, momentum
    for step in range(num_leapfrog):
        half = 0.5 if step == 0 else 1.0
        p = p + half * size * _times(path.factor.mT, slope)
        proposal = proposal + size * _times(path.factor, p)
        after, slope = path.log_density_and_slope(proposal, beta)
    p = p + 0.5 * size * _times(path.factor.mT, slope)
    change = after - 0.5 * p.square().sum(-1) - energy
    moved = torch.rand_like(change).log() < change  # not where the trajectory diverged to NaN
    return torch.where(moved.unsqueeze(-1), proposal, z), moved.to(z.dtype)


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)
