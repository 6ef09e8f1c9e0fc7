"""Pareto k̂: whether an importance-weighted mean can be trusted (Vehtari, Simpson, Gelman, Yao and Gabry 2024)."""

import math

import torch
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor


def tail_size(num_samples: int) -> int:
    """How many of the largest weights make the tail: the smaller of K/5 and 3 √K."""
    return math.floor(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def reliable_below(num_samples: int) -> float:
    """The k̂ up to which a mean of that many weights converges at a practical rate: min(1 − 1/log₁₀ K, 0.7)."""
    return min(1 - 1 / math.log10(num_samples), 0.7)


def pareto_k(log_weights: Tensor) -> Tensor:
    """Shape k̂ of the generalised Pareto distribution of the largest weights: the weights have 1/k̂ moments.

    Args:
        log_weights: shape (K, num).

    Returns:
        Shape (num,): −∞ where the largest weights are all the same, +∞ where most of them are nothing beside the
        largest, or none is finite; NaN where K is below 25.
    """
    size = tail_size(len(log_weights))
    if size < 5:
        return torch.full(log_weights.shape[1:], math.nan, dtype=torch.float64)
    largest = log_weights.double().topk(size + 1, dim=0).values
    weights = (largest - largest[0]).exp()
    tails = (weights[:-1] - weights[-1]).T
    return torch.tensor([_shape(logs, tail) for logs, tail in zip(largest.T, tails, strict=True)], dtype=torch.float64)


def _shape(log_largest: Tensor, tail: Tensor) -> float:
    """The shape k̂ of one tail, shape (size,), the largest first."""
    if not log_largest[0].isfinite() or log_largest.isnan().any():
        return math.inf  # no weights, or not numbers
    if log_largest[0] - log_largest[-1] <= 1e-12:
        return -math.inf
    if not tail.sort().values[int(len(tail) / 4 - 0.5)] > 0:  # what the fit divides by
        return math.inf  # most of the tail is nothing beside the largest
    k, _ = fit_generalized_pareto(tail)
    return float(k)
