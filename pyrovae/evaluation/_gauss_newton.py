"""Gaussians fitted to p(z|x) for each datum: Gauss–Newton to a mode, then in expectation over q."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.evaluation._adam import Adam
from pyrovae.evaluation._target import Target
from pyrovae.evaluation.estimate import mean_and_stderr

_LARGEST_DAMPING = 1e6
_MOST_STEPS = 20
_SMALLEST_GAIN = 0.1
_LARGEST_SLOPE = 1e12

_RATE = 0.2
"""Adam's rate, times d: its noise moves d² numbers."""

_FLAT = 0.05
"""Slopes, in q's own units, below which Adam is gradient descent: it would blow up those of rounding."""


@dataclass(frozen=True)
class Gaussians:
    """N(μ, LLᵀ) of each datum, in float64.

    Attributes:
        loc: μ, shape (num, d).
        scale_tril: L, shape (num, d, d).
    """

    loc: Tensor
    scale_tril: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """μ + Lε for ε of shape (draws, num, d)."""
        return self.loc + times(self.scale_tril, noise)

    def noise_of(self, z: Tensor) -> Tensor:
        """The ε of z = μ + Lε, shape (draws, num, d)."""
        away = (z - self.loc).permute(1, 2, 0)
        noise: Tensor = torch.linalg.solve_triangular(self.scale_tril, away, upper=False)
        return noise.permute(2, 0, 1)

    def log_prob_of(self, noise: Tensor) -> Tensor:
        """Log-density of the draws :meth:`at` that noise, shape (draws, num): exact however nearly singular L is."""
        constant = 0.5 * self.loc.shape[-1] * math.log(2 * math.pi)
        return -0.5 * noise.square().sum(-1) - self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - constant

    def scaled(self, factor: float) -> "Gaussians":
        """With standard deviations that many times as large."""
        return Gaussians(self.loc, factor * self.scale_tril)

    def of(self, rows: Tensor | slice) -> "Gaussians":
        """Those of some data."""
        return Gaussians(self.loc[rows], self.scale_tril[rows])

    def where(self, condition: Tensor, other: "Gaussians") -> "Gaussians":
        """These where the condition, shape (num,), holds, and the others elsewhere."""
        return Gaussians(
            torch.where(condition.unsqueeze(-1), self.loc, other.loc),
            torch.where(condition.unsqueeze(-1).unsqueeze(-1), self.scale_tril, other.scale_tril),
        )


@dataclass(frozen=True)
class Mixture:
    """Σ_k w_k N(μ_k, L_k L_kᵀ) of each datum, in float64.

    Attributes:
        parts: the Gaussians, all of the same data.
        log_weights: log w, shape (num, parts); −∞ where a datum lacks a part.
    """

    parts: tuple[Gaussians, ...]
    log_weights: Tensor

    @classmethod
    def of_tensors(cls, loc: Tensor, scale_tril: Tensor, log_weights: Tensor) -> "Mixture":
        """That of what :meth:`tensors` gave, without parts that all data lack."""
        (used,) = (log_weights > -math.inf).any(0).nonzero(as_tuple=True)
        return cls(tuple(Gaussians(loc[:, k], scale_tril[:, k]) for k in used), log_weights[:, used])

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means (num, parts, d), factors (num, parts, d, d) and log-weights (num, parts)."""
        locs, factors = [part.loc for part in self.parts], [part.scale_tril for part in self.parts]
        return torch.stack(locs, 1), torch.stack(factors, 1), self.log_weights

    def likeliest(self, num: int) -> "Mixture":
        """With the ``num`` parts of each datum that weigh most; it lacks what there is not."""
        loc, scale_tril, log_weights = self.tensors()
        extra = max(0, num - len(self.parts))
        order = log_weights.argsort(dim=-1, descending=True)[:, :num]
        order = torch.cat([order, order[:, :1].expand(-1, extra)], dim=-1)
        log_weights = log_weights.take_along_dim(order, 1)
        log_weights[:, num - extra :] = -math.inf
        loc = loc.take_along_dim(order[..., None], 1)
        scale_tril = scale_tril.take_along_dim(order[..., None, None], 1)
        return Mixture(tuple(map(Gaussians, loc.unbind(1), scale_tril.unbind(1))), log_weights)

    def of(self, rows: Tensor | slice) -> "Mixture":
        """Those of some data."""
        return Mixture(tuple(part.of(rows) for part in self.parts), self.log_weights[rows])

    def scaled(self, factor: float) -> "Mixture":
        """With standard deviations that many times as large."""
        return Mixture(tuple(part.scaled(factor) for part in self.parts), self.log_weights)

    def sample(self, num_draws: int) -> tuple[Tensor, Tensor]:
        """Draws, shape (num_draws, num, d), and their log-density, (num_draws, num)."""
        loc = self.parts[0].loc
        noise = torch.randn((num_draws, *loc.shape), dtype=loc.dtype, device=loc.device)
        if len(self.parts) == 1:
            return self.parts[0].at(noise), self.parts[0].log_prob_of(noise)
        which = torch.multinomial(self.log_weights.exp(), num_draws, replacement=True).T.unsqueeze(-1)
        z = torch.stack([part.at(noise) for part in self.parts])
        z = z.take_along_dim(which.unsqueeze(0), dim=0).squeeze(0)
        return z, self.log_prob(z)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density at z of shape (draws, num, d)."""
        logs = [part.log_prob_of(part.noise_of(z)) for part in self.parts]
        return (torch.stack(logs, dim=-1) + self.log_weights).logsumexp(-1)


def of_precision(loc: Tensor, precision: Tensor) -> Gaussians:
    """N(μ, P⁻¹), P of shape (num, d, d): P = UUᵀ with U upper triangular, so that L = U⁻ᵀ is lower triangular."""
    upper = torch.linalg.cholesky(precision.flip(-1, -2)).flip(-1, -2)
    eye = torch.eye(loc.shape[-1], dtype=loc.dtype, device=loc.device).expand_as(precision)
    return Gaussians(loc, torch.linalg.solve_triangular(upper.mT, eye, upper=False))


def climb(target: Target, loc: Tensor) -> Gaussians:
    """Laplace's approximation at a mode of p(z|x), by Gauss–Newton steps damped datum by datum (Levenberg–Marquardt).

    A step that does not raise log p(x, z) is undone and repeated with more damping, so that sharp likelihoods are safe.

    Args:
        target: log p(x, z), with curvature.
        loc: where to start, shape (num, d).

    Returns:
        N(mode, P⁻¹) of each datum.
    """
    loc = loc.clone()
    damping = torch.zeros(len(loc), dtype=loc.dtype, device=loc.device)
    value, slope = (found[0].clone() for found in target.slope(loc.unsqueeze(0)))
    precision = target.precision(loc.unsqueeze(0))[0].clone()
    active = torch.ones_like(damping, dtype=torch.bool)
    for _ in range(_MOST_STEPS):
        rows = active.nonzero().squeeze(-1)
        if not len(rows):
            break
        part = target.of(rows)
        scaling = (damping[rows].unsqueeze(-1) * precision[rows].diagonal(dim1=-2, dim2=-1)).diag_embed()
        step = solve(precision[rows] + scaling, slope[rows])
        there = loc[rows] + step
        (new,), (new_slope,) = part.slope(there.unsqueeze(0))
        better = new > value[rows]
        damping[rows] = torch.where(better, damping[rows] / 5, (5 * damping[rows]).clamp_min(0.05))
        damping[damping < 1e-2] = 0.0
        gain = torch.where(better, new - value[rows], math.inf)
        # a step so short that it neither gains nor loses is the end too
        active[rows] = (gain > _SMALLEST_GAIN) & (damping[rows] < _LARGEST_DAMPING)
        moved = rows[better]
        loc[moved], value[moved], slope[moved] = there[better], new[better], new_slope[better]
        if len(moved):
            (precision[moved],) = target.of(moved).precision(loc[moved].unsqueeze(0))
    return of_precision(loc, precision)


def settle(target: Target, q: Gaussians, num_steps: int, num_draws: int) -> Gaussians:
    """Variational Gauss–Newton from q: Λ = Λ₀ + E_q[JᵀIJ], μ ← μ + step · Λ⁻¹ E_q[∇ log p(x, z)].

    The expectations are over antithetic draws; the Jacobian is formed for the first pair. Λ is a mean over the steps,
    weighted towards the latest; steps fall as 1/√i. The draws also estimate the ELBO of each step's q. If it falls, the
    datum returns to its best q and takes shorter steps.

    Args:
        target: log p(x, z), with curvature.
        q: where to start.
        num_steps: at least 1.
        num_draws: draws of each step, even.
    """
    precision = torch.zeros_like(q.scale_tril)
    rate = torch.ones_like(q.loc[:, 0])
    best, best_elbo, best_error = q, torch.full_like(rate, -math.inf), torch.zeros_like(rate)
    for i in range(num_steps):
        noise = antithetic(num_draws, q.loc)
        z = q.at(noise)
        value, slope = target.slope(z)
        elbo, error = mean_and_stderr(value - q.log_prob_of(noise))
        worse = ~(elbo >= best_elbo - 3 * torch.hypot(error, best_error))  # where it is not a number, too
        curvature = target.precision(z[:2]).mean(0)
        if worse.any():
            rate = torch.where(worse, 0.3 * rate, rate)
            slope = torch.where(worse.unsqueeze(-1), 0.0, slope)
            q = best.where(worse, q)
            curvature = torch.where(worse.unsqueeze(-1).unsqueeze(-1), precision, curvature)
        better = elbo > best_elbo
        best = q.where(better, best)
        best_elbo, best_error = torch.where(better, elbo, best_elbo), torch.where(better, error, best_error)
        precision = precision + 2 / (i + 2) * (curvature - precision)
        step = solve(precision, slope.mean(0)) * (rate / math.sqrt(i + 1)).unsqueeze(-1)
        q = of_precision(q.loc + step, precision)
    return q


def descend(target: Target, q: Gaussians, num_steps: int, num_draws: int) -> Gaussians:
    """Maximise the ELBO of each datum by Adam from q, in q's own units: z = μ + L(m + Aε), A lower triangular.

    The gradients are those of sticking the landing (Roeder et al. 2017), which have no noise if q is p(z|x). The
    learning rate falls to 0 along a cosine.
    """
    num, d = q.loc.shape
    shift = torch.zeros_like(q.loc)
    factor = torch.eye(d, dtype=q.loc.dtype, device=q.loc.device).expand(num, d, d).clone()
    adam = Adam([shift, factor], betas=(0.9, 0.95), eps=_FLAT)
    eye = torch.eye(d, dtype=torch.bool, device=q.loc.device)
    for i in range(num_steps):
        noise = antithetic(num_draws, q.loc)
        _, slope = target.slope(q.at(shift + times(factor, noise)))
        slope = slope.clamp(-_LARGEST_SLOPE, _LARGEST_SLOPE).nan_to_num()
        toward_q = torch.linalg.solve_triangular(factor.mT, noise.permute(1, 2, 0), upper=True).permute(2, 0, 1)
        pull = times(q.scale_tril.mT, slope) + toward_q
        gradients = [-pull.mean(0), -torch.einsum("sni,snj->nij", pull, noise).tril() / num_draws]
        adam.step(gradients, 0.5 * (1 + math.cos(math.pi * i / num_steps)) * _RATE / d)
        # the diagonal stays positive
        factor.copy_(torch.where(eye, factor.clamp_min(1e-3), factor))
    return Gaussians(q.loc + times(q.scale_tril, shift), q.scale_tril @ factor)


def antithetic(num_draws: int, like: Tensor) -> Tensor:
    """Standard normal noise, shape (num_draws, *like.shape), each draw followed by its negative."""
    half = torch.randn(num_draws // 2, *like.shape, dtype=like.dtype, device=like.device)
    return torch.stack([half, -half], dim=1).flatten(0, 1)


def solve(precision: Tensor, slope: Tensor) -> Tensor:
    """P⁻¹g of each datum, shape (num, d)."""
    return torch.cholesky_solve(slope.unsqueeze(-1), torch.linalg.cholesky(precision)).squeeze(-1)


def times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """A v, for matrices (num, d, d) and vectors (…, num, d)."""
    return torch.einsum("nij,...nj->...ni", matrix, vectors)
