"""Log p(x) as an integral over a few latent dimensions, by a grid."""

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pyrovae.errors import InputError, check_choice, check_integer
from pyrovae.evaluation._density import Density, density_of, moments_of_guide
from pyrovae.evaluation._method import Center, Method, Problem
from pyrovae.evaluation._modes import Modes, find_modes
from pyrovae.evaluation.estimate import LogMarginal, UnreliableEstimateWarning
from pyrovae.evaluation.importance import in_chunks
from pyrovae.programs import cannot_run

MAX_LATENT_DIM = 3
MAX_HERMITE_POINTS = 200

_REACH = 6.0
"""Standard deviations around a mode where the grid begins to look."""

_OUTERMOST_SHARE = 1e-6
"""What the outermost cells on a side may hold of the mass; a grid is widened until they do."""

_WIDENINGS = 40
"""How often a grid is widened at most, each time by a quarter of its width on a side."""

_LAPLACE_ERROR = 0.5
"""Nats that Gaussians at the modes may hold more than the grid found before a mode counts as overlooked."""

_TOLERATED_ERROR = 0.1
"""Nats of error from which a datum is counted as not integrated."""


@dataclass(frozen=True)
class Quadrature(Method):
    """Sums p(x, z) over a grid of at most three latent dimensions.

    Around the ``"mode"``, the grid's midpoints are in units of the curvature at the highest mode of each datum and
    cover all modes found. It is widened until its outermost cells have less than a millionth of the mass. Around the
    ``"guide"`` it consists of Gauss–Hermite nodes. A grid of half the points along each dimension gives the error, plus
    the mass outside of the grid. There is a warning above 0.1 nats.
    """

    name: ClassVar[str] = "quadrature"
    num_points: int = 64
    """Points along each latent dimension, at least 2."""
    center: str = Center.MODE
    """Where the grid lies: mode (formerly called prior) or guide. Around the guide it needs fewer points if q is near
    the posterior, but misses what lies far from q."""

    def __post_init__(self) -> None:
        check_integer("num_points", self.num_points, least=2)
        check_choice("center", self.center, list(Center))
        if self.center == Center.GUIDE and self.num_points > MAX_HERMITE_POINTS:
            raise InputError(
                f"num_points must be at most {MAX_HERMITE_POINTS} around the guide, not {self.num_points}: weights "
                "would vanish"
            )

    def estimate(self, problem: Problem) -> LogMarginal:
        """Integrate p(x, z) over z for each datum."""
        x = problem.x
        most = problem.rows_at_once
        data_at_once = problem.at_once(max(1, min(len(x), most // min(most, self.num_points))))

        def integral(rows: slice) -> tuple[Tensor, ...]:
            density = density_of(problem.model, problem.guide, x, rows, most)
            if density.dim > MAX_LATENT_DIM:
                raise InputError(
                    f"quadrature is for at most {MAX_LATENT_DIM} latent dimensions, not {density.dim}; "
                    "use method='importance' or 'annealed'"
                )
            around = _around_guide if self.center == Center.GUIDE else _around_modes
            return around(density, self.num_points, most, x)

        per_datum, error = in_chunks(integral, x, data_at_once, problem.progress)
        if not per_datum.isfinite().all():
            row = int((~per_datum.isfinite()).nonzero()[0])
            raise cannot_run(x, ValueError(f"p(x, z) is not finite or 0 on all of the grid, at row {row}"))
        bad = error > _TOLERATED_ERROR
        if bad.double().mean() > 0.1:
            warnings.warn(
                f"quadrature: the grid's error is above {_TOLERATED_ERROR} nats for {100 * bad.double().mean():.0f} % "
                "of the data, because it is too coarse or p(x, z) has heavy tails; give more num_points, or use "
                "method='annealed'",
                UnreliableEstimateWarning,
                stacklevel=4,  # the caller of log_marginal, through its decorator
            )
        return LogMarginal.exact(per_datum, error)


def midpoint_rule(low: Tensor, high: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
    """Nodes and log-weights of the midpoint rule on a box: ∫ f(z) dz ≈ Σ exp(log_weight) f(node).

    Args:
        low: lower corner, shape (d,).
        high: upper corner, shape (d,).
        num_points: nodes along each dimension.

    Returns:
        Nodes, shape (num_points^d, d), and log-weights, shape (num_points^d,).

    Example:
        >>> nodes, log_weights = midpoint_rule(torch.zeros(1), torch.ones(1), 5)
        >>> round((log_weights.exp() * (nodes[:, 0] + 1) ** 2).sum().item(), 6)  # exactly 7/3
        2.33
    """
    steps = (high - low) / num_points
    axes = [
        low_i + step * (torch.arange(num_points, dtype=low.dtype) + 0.5) for low_i, step in zip(low, steps, strict=True)
    ]
    nodes = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    return nodes, steps.log().sum().expand(len(nodes))


def gauss_hermite_rule(dim: int, num_points: int) -> tuple[Tensor, Tensor]:
    """Nodes and log-weights for expectations under N(0, I): E[f(z)] ≈ Σ exp(log_weight) f(node).

    Exact for polynomials of degree below 2 ``num_points`` in each dimension.

    Args:
        dim: dimension d.
        num_points: nodes along each dimension.

    Returns:
        Nodes, shape (num_points^d, d), and log-weights, shape (num_points^d,), in float64.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(num_points)
    axis = torch.as_tensor(points)
    log_weights = torch.as_tensor(weights).log() - 0.5 * math.log(2 * math.pi)
    nodes = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    return nodes, torch.cartesian_prod(*[log_weights] * dim).reshape(-1, dim).sum(-1)


def _around_modes(density: Density, num_points: int, max_rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Log ∫ p(x, z) dz by midpoints around the modes, and its error, each of shape (num,)."""
    modes = find_modes(density, like)
    low, high = _box(modes)
    coarse_points = max(2, num_points // 2)
    for _ in range(_WIDENINGS):
        coarse, sides = _midpoint_sums(density, modes, (low, high), coarse_points, max_rows)
        full = sides > _OUTERMOST_SHARE  # (2, num, d)
        if not full.any():
            break
        step = 0.25 * (high - low)
        low, high = torch.where(full[0], low - step, low), torch.where(full[1], high + step, high)
    fine, sides = _midpoint_sums(density, modes, (low, high), num_points, max_rows)
    # beyond a side lies at most about what half the cells hold if they hold as much as the outermost one
    outside = sides.sum((0, 2)) * num_points / 2
    missed = (_laplace(modes) - fine).clamp_min(0.0)
    missed = torch.where(missed > _LAPLACE_ERROR, missed, 0.0)  # a mode between the points
    return fine, (fine - coarse).abs() + torch.log1p(outside) + missed


def _laplace(modes: Modes) -> Tensor:
    """Log ∫ p(x, z) dz if each mode that was found were a Gaussian, (num,)."""
    whiten = torch.linalg.inv(modes.factor)
    terms: list[Tensor] = []
    for k, loc in enumerate(modes.loc):
        far = [(whiten[j] @ (loc - modes.loc[j]).unsqueeze(-1)).squeeze(-1).norm(dim=-1) > 1 for j in range(k)]
        is_new = torch.stack(far).all(0) if far else torch.ones(loc.shape[:-1], dtype=torch.bool, device=loc.device)
        terms.append(torch.where(is_new, modes.log_mass[k], -math.inf))
    total: Tensor = torch.stack(terms).logsumexp(0) + 0.5 * modes.loc.shape[-1] * math.log(2 * math.pi)
    return total


def _box(modes: Modes) -> tuple[Tensor, Tensor]:
    """Corners (num, d) of a box in the main mode's units that reaches around all modes of some weight."""
    whiten = torch.linalg.inv(modes.factor[0])
    place = (whiten @ (modes.loc - modes.loc[0]).unsqueeze(-1)).squeeze(-1)
    reach = _REACH * (whiten @ modes.factor).norm(dim=-1)
    counts = (modes.log_mass > modes.log_mass.amax(0) - 25).unsqueeze(-1)
    low = torch.where(counts, place - reach, math.inf).amin(0)
    high = torch.where(counts, place + reach, -math.inf).amax(0)
    return low, high


def _midpoint_sums(
    density: Density, modes: Modes, box: tuple[Tensor, Tensor], num_points: int, max_rows: int
) -> tuple[Tensor, Tensor]:
    """Log of the midpoint sum, (num,), and the shares of the outermost cells on both sides, (2, num, d)."""
    (low, high), d = box, density.dim
    step = (high - low) / num_points
    cells = torch.cartesian_prod(*[torch.arange(num_points)] * d).reshape(-1, d).to(low.device)
    logs = []
    for part in cells.split(max(1, max_rows // density.num)):
        place = low + step * (part.unsqueeze(1) + 0.5)
        z = modes.loc[0] + (modes.factor[0] @ place.unsqueeze(-1)).squeeze(-1)
        logs.append(density.log_joint(z.to(modes.dtype)).double().nan_to_num(-math.inf))
    terms = torch.cat(logs)
    total = terms.logsumexp(0)
    ends = [torch.stack([terms[cells[:, i] == end].logsumexp(0) for i in range(d)], -1) for end in (0, num_points - 1)]
    shares = (torch.stack(ends) - total.unsqueeze(-1)).exp().nan_to_num(0.0)
    volume = step.log().sum(-1) + modes.factor[0].diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return total + volume, shares


def _around_guide(density: Density, num_points: int, max_rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Log ∫ p(x, z) dz by Gauss–Hermite nodes of the Gaussian with q(z|x)'s mean and covariance, and its error."""
    loc, covariance = moments_of_guide(density)
    factor = torch.linalg.cholesky(covariance.double())

    def integral(num: int) -> Tensor:
        nodes, log_weights = gauss_hermite_rule(density.dim, num)
        nodes, log_weights = nodes.to(factor).unsqueeze(1), log_weights.to(factor).unsqueeze(1)
        log_unit = log_weights + 0.5 * (nodes.square().sum(-1) + density.dim * math.log(2 * math.pi))
        total: Tensor = factor.new_full((density.num,), -math.inf)
        at_once = max(1, max_rows // density.num)
        for node, log_one in zip(nodes.split(at_once), log_unit.split(at_once), strict=True):
            z = loc + (factor @ node.unsqueeze(-1)).squeeze(-1)
            total = torch.logaddexp(total, (log_one + density.log_joint(z.to(like)).double()).logsumexp(0))
        volume: Tensor = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return volume + total

    fine = integral(num_points)
    return fine, (fine - integral(num_points // 2)).abs()
