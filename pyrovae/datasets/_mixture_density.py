"""The density of simulated mixtures: no model of them has a higher mean log-density."""

import math

import torch
from torch import Tensor
from torch.distributions import StudentT

from pyrovae.randomness import seeded

DEGREES_OF_FREEDOM = 5.0
"""Of the proposal, whose tails are heavier than the integrand's."""


def log_prob_of_mixtures(
    x: Tensor,
    pure: Tensor,
    baseline: Tensor,
    noise_precision: Tensor,
    concentration: float,
    scatter: float,
    num_draws: int = 4000,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Log p(x) of x = s (Σ_k c_k ε_k + wP) + noise, c ~ Dirichlet(α), log s ~ N(0, τ²), w ~ N(0, I).

    With u = s c, whose sum is s, p(x) = ∫ p(u) N(x; uᵀε, Σ + s² PᵀP) du over K positive numbers. The integral is
    computed in float64 by importance sampling from Student's t around the generalised least squares estimate of u.

    Args:
        x: shape (num, n).
        pure: ε, shape (K, n), K ≥ 2.
        baseline: P, shape (any, n), maybe of no rows.
        noise_precision: Σ⁻¹, shape (n, n).
        concentration: α.
        scatter: τ > 0.
        num_draws: draws of u for each x.
        seed: seed of the draws.

    Returns:
        Log p(x) in nats and the standard error of its Monte Carlo estimate, both of shape (num,).
    """
    k, n = pure.shape
    of_x, of_pure, of_baseline = (rows @ noise_precision for rows in (x, pure, baseline))
    x_x, u_x, u_u = (of_x * x).sum(-1), of_x @ pure.T, of_pure @ pure.T
    values, axes = torch.linalg.eigh(of_baseline @ baseline.T)  # PΣ⁻¹Pᵀ
    w_x, w_u = of_x @ baseline.T @ axes, axes.T @ of_baseline @ pure.T
    total = torch.ones(len(x), 1, dtype=x.dtype)
    for _ in range(3):  # s from u, and u given s
        shrink = total.square() / (1 + total.square() * values)
        precision = u_u - torch.einsum("pk,bp,pl->bkl", w_u, shrink, w_u)
        estimate = torch.linalg.solve(precision, u_x - (shrink * w_x) @ w_u)
        total = estimate.sum(-1, keepdim=True).clamp(math.exp(-6 * scatter), math.exp(6 * scatter))
    factor = torch.linalg.inv(torch.linalg.cholesky(precision)).mT  # of the covariance, (num, K, K)
    with seeded(seed):
        standard = StudentT(x.new_tensor(DEGREES_OF_FREEDOM)).sample(torch.Size([num_draws, 1, k]))
    log_proposal = StudentT(x.new_tensor(DEGREES_OF_FREEDOM)).log_prob(standard).sum(-1)
    log_proposal = log_proposal - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    u = estimate + (factor @ standard.unsqueeze(-1)).squeeze(-1)  # (draws, num, K)
    possible = (u > 0).all(-1)
    u = torch.where(possible.unsqueeze(-1), u, 1 / k)
    s = u.sum(-1)
    log_norm = math.lgamma(k * concentration) - k * math.lgamma(concentration)
    log_prior = log_norm + (concentration - 1) * (u / s.unsqueeze(-1)).log().sum(-1)
    log_prior = log_prior - 0.5 * (s.log() / scatter).square() - math.log(scatter * math.sqrt(2 * math.pi))
    log_prior = log_prior - k * s.log()  # of s for log s, and of u for (c, s)
    fit = x_x - 2 * (u * u_x).sum(-1) + (u * (u @ u_u)).sum(-1)
    rest = (w_x - u @ w_u.T).square()
    spread = s.square().unsqueeze(-1)
    fit = fit - (rest * spread / (1 + spread * values)).sum(-1)
    log_det = (1 + spread * values).log().sum(-1) - torch.logdet(noise_precision)
    log_weight = log_prior - 0.5 * (n * math.log(2 * math.pi) + log_det + fit) - log_proposal
    log_weight = torch.where(possible, log_weight, -math.inf)
    mean = log_weight.logsumexp(0) - math.log(num_draws)
    return mean, (log_weight - mean).exp().std(0) / math.sqrt(num_draws)
