"""Annealed importance sampling with Hamiltonian transitions (Neal 2001; Wu, Burda, Salakhutdinov and Grosse 2017)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.distributions import covariance_of
from pyrovae.evaluation.per_datum import AnyGuide
from pyrovae.vae import GenerativeModel

_PILOT_CHAINS = 8
_TARGET_ACCEPTANCE = 0.8


@dataclass(frozen=True)
class Path:
    """Densities π_t ∝ q₀(z)^(1 − β_t) p(x, z)^β_t from a start q₀ that can be drawn from to the posterior.

    Attributes:
        log_start: log q₀ of z (chains, num, d), shape (chains, num).
        log_joint: log p(x, z), likewise.
        draw: so many draws of q₀, shape (chains, num, d).
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


def path_from(model: GenerativeModel, guide: AnyGuide | None, x: Tensor, num_temperatures: int) -> Path:
    """The path from the guide's q(z|x), or from the prior without one, to p(z|x)."""
    prior = model.prior_distribution()
    start = prior if guide is None else guide.posterior(x)
    shape = [] if guide is not None else [len(x)]
    # dense near both ends, where the densities change fastest
    rise = torch.sigmoid(4 * torch.linspace(-1, 1, num_temperatures + 1, dtype=x.dtype, device=x.device))
    return Path(
        log_start=start.log_prob,
        log_joint=lambda z: prior.log_prob(z) + model.conditional(z).log_prob(x),
        draw=lambda chains: start.sample(torch.Size([chains, *shape])).to(x),  # a prior may be of another dtype
        factor=torch.linalg.cholesky(covariance_of(start, num_draws=256).to(x)),
        temperatures=(rise - rise[0]) / (rise[-1] - rise[0]),
    )


def forward_log_weights(path: Path, num_chains: int, num_leapfrog: int) -> tuple[Tensor, Tensor]:
    """Anneal from q₀ to the posterior: E[w] = p(x), so E[log w] is a lower bound.

    Step sizes are found by chains of their own, whose weights are thrown away: adapting them to the chains that count
    would take the unbiasedness of w.

    Returns:
        Log-weights (chains, num) and mean acceptance (num,).
    """
    sizes = _pilot(path, min(num_chains, _PILOT_CHAINS), num_leapfrog)
    z = path.draw(num_chains)
    log_w = torch.zeros(z.shape[:-1], dtype=z.dtype, device=z.device)
    accepted = torch.zeros_like(log_w)
    for t, rise in enumerate(path.temperatures.diff()):
        log_w += rise * path.log_ratio(z)
        z, moved = _transition(path, z, path.temperatures[t + 1], sizes[t], num_leapfrog)
        accepted += moved
    return log_w, (accepted / len(sizes)).mean(0)


def reverse_log_weights(path: Path, z: Tensor, num_chains: int, num_leapfrog: int) -> tuple[Tensor, Tensor]:
    """Anneal from exact draws of the posterior back to q₀: E[1/w] = 1/p(x), so −log mean(1/w) is an upper bound.

    Args:
        path: the path.
        z: the latents that x was simulated with, (num, d), draws of p(z|x).
        num_chains: chains from each.
        num_leapfrog: leapfrog steps a transition.

    Returns:
        Log-weights (chains, num) and mean acceptance (num,).
    """
    sizes = _pilot(path, min(num_chains, _PILOT_CHAINS), num_leapfrog)
    z = z.expand(num_chains, *z.shape)
    log_w = torch.zeros(z.shape[:-1], dtype=z.dtype, device=z.device)
    accepted = torch.zeros_like(log_w)
    rises = path.temperatures.diff()
    for t in reversed(range(len(rises))):
        z, moved = _transition(path, z, path.temperatures[t + 1], sizes[t], num_leapfrog)
        accepted += moved
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
