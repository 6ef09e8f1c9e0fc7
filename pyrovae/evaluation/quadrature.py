"""Log p(x) as an integral over a few latent dimensions, by a grid."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.distributions import covariance_of, mean_of
from pyrovae.errors import InputError, check_choice, check_integer
from pyrovae.evaluation._method import VALUES_AT_ONCE, Center, Method, Problem
from pyrovae.evaluation.estimate import LogMarginal
from pyrovae.evaluation.importance import in_chunks
from pyrovae.evaluation.per_datum import NUM_DRAWS, rows_of
from pyrovae.programs import running_on

MAX_LATENT_DIM = 3
MAX_HERMITE_POINTS = 200


@dataclass(frozen=True)
class Quadrature(Method):
    """Sums p(z) p(x|z) over a grid of at most three latent dimensions.

    The grid consists of midpoints around the prior or of Gauss–Hermite nodes around the guide. Half the points along
    each dimension give an estimate of the error, which means nothing where the grid around the prior is coarser than
    the posterior is wide: give more ``num_points``.
    """

    name: ClassVar[str] = "quadrature"
    num_points: int = 128
    """Points along each latent dimension, at least 2."""
    center: str = Center.PRIOR
    """Where the grid lies, prior or guide. Around the guide it needs fewer points where q is near the posterior, and
    overlooks what lies far from q."""

    def __post_init__(self) -> None:
        check_integer("num_points", self.num_points, least=2)
        check_choice("center", self.center, list(Center))
        if self.center == Center.GUIDE and self.num_points > MAX_HERMITE_POINTS:
            raise InputError(
                f"num_points must be at most {MAX_HERMITE_POINTS} around the guide, not {self.num_points}: weights "
                "would vanish"
            )

    def estimate(self, problem: Problem) -> LogMarginal:
        """Integrate p(z) p(x|z) for each datum."""
        model, _ = problem.parts(self.name)
        if model.latent_dim > MAX_LATENT_DIM:
            raise InputError(
                f"quadrature is for at most {MAX_LATENT_DIM} latent dimensions, not {model.latent_dim}; "
                "use method='importance' or 'annealed'"
            )
        integral = log_integral_around_prior if self.center == Center.PRIOR else log_integral_around_guide
        fine, coarse = (integral(problem, num) for num in (self.num_points, self.num_points // 2))
        return LogMarginal.exact(fine, (fine - coarse).abs())


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


def log_integral_around_prior(problem: Problem, num_points: int) -> Tensor:
    """Log ∫ p(z) p(x|z) dz by midpoints within 6 standard deviations of the prior's mean, shape (num,)."""
    (model, _), x = problem.parts(Quadrature.name), problem.x
    prior = model.prior_distribution()
    center = mean_of(prior, num_draws=NUM_DRAWS).double().cpu()
    reach = 6 * covariance_of(prior, num_draws=NUM_DRAWS).double().cpu().diagonal().sqrt()
    nodes, log_weights = midpoint_rule(center - reach, center + reach, num_points)
    nodes, log_weights = nodes.to(x), log_weights.to(x)
    log_prior = prior.log_prob(nodes) + log_weights
    total = x.new_full((len(x),), -math.inf)
    nodes_at_once = max(1, min(len(nodes), VALUES_AT_ONCE // x[0].numel()))
    passes = list(zip(nodes.split(nodes_at_once), log_prior.split(nodes_at_once), strict=True))
    data_at_once = max(1, VALUES_AT_ONCE // (min(nodes_at_once, len(nodes)) * x[0].numel()))
    bar = tqdm(total=len(passes) * len(x), unit="datum", disable=None if problem.progress else True)
    with running_on(x), bar:
        for node, log_p in passes:
            likelihood = model.conditional(node)  # the decoder sees each node once, not once a datum
            parts = []
            for rows in x.split(data_at_once):
                parts.append((likelihood.log_prob(rows.unsqueeze(1)) + log_p).logsumexp(1))
                bar.update(len(rows))
            total = torch.logaddexp(total, torch.cat(parts))
    return total.double().cpu()


def log_integral_around_guide(problem: Problem, num_points: int) -> Tensor:
    """Log ∫ p(z) p(x|z) dz by Gauss–Hermite nodes of the Gaussian with q(z|x)'s mean and covariance, shape (num,)."""
    (model, guide), x = problem.parts(Quadrature.name), problem.x
    nodes, log_weights = gauss_hermite_rule(model.latent_dim, num_points)
    nodes, log_weights = nodes.to(x).unsqueeze(1), log_weights.to(x).unsqueeze(1)
    log_unit = log_weights + 0.5 * (nodes.square().sum(-1) + model.latent_dim * math.log(2 * math.pi))
    nodes_at_once = min(len(nodes), problem.rows_at_once)
    data_at_once = max(1, problem.rows_at_once // nodes_at_once)

    def integral(rows: slice) -> tuple[Tensor]:
        q = rows_of(guide, rows, x).posterior(x[rows])
        factor = torch.linalg.cholesky(covariance_of(q, num_draws=NUM_DRAWS))
        total = x.new_full((rows.stop - rows.start,), -math.inf)
        for node, log_one in zip(nodes.split(nodes_at_once), log_unit.split(nodes_at_once), strict=True):
            z = mean_of(q, num_draws=NUM_DRAWS) + (factor @ node.unsqueeze(-1)).squeeze(-1)
            log_joint = model.prior_distribution().log_prob(z) + model.conditional(z).log_prob(x[rows])
            total = torch.logaddexp(total, (log_one + log_joint).logsumexp(0))
        return (total + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1),)

    (per_datum,) = in_chunks(integral, x, data_at_once, problem.progress)
    return per_datum.double().cpu()
