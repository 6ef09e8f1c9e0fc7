"""Pareto k̂: whether an importance-weighted mean can be trusted (Vehtari, Simpson, Gelman, Yao and Gabry 2024)."""

import math
from dataclasses import dataclass

import torch
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

_HEAVIEST = 0.9
"""Largest shape for computing the mean of a tail: at 1 it is infinite."""

_SMALLEST = 1e-300
"""Weights below this share of the largest count as 0, since the fit divides by them."""

_LIGHT = 2.0
"""Largest weight, in units of the smallest of the tail, up to which a tail is light whatever its shape."""


def tail_size(num_samples: int) -> int:
    """Number of largest weights in the tail: the smaller of K/5 and 3 √K."""
    return math.floor(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def reliable_below(num_samples: int) -> float:
    """The largest k̂ at which a mean of K weights converges at a practical rate: min(1 − 1/log₁₀ K, 0.7)."""
    return min(1 - 1 / math.log10(num_samples), 0.7)


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto distribution fitted to the largest weights.

    Attributes:
        k: its shape k̂, shape (num,): the weights have 1/k̂ moments. −∞ where the largest weights are all the same, +∞
            where most of them are nothing beside the largest, or none is finite; NaN where K is below 25.
        error: standard error of the log-mean due to k̂'s own, shape (num,); 0 where k̂ ≤ ½.
    """

    k: Tensor
    error: Tensor


def tail_of(log_weights: Tensor) -> Tail:
    """Fit the tails of weights.

    Args:
        log_weights: shape (K, num).
    """
    num, size = log_weights.shape[1], tail_size(len(log_weights))
    zeros = torch.zeros(num, dtype=torch.float64)
    if size < 5:
        return Tail(torch.full_like(zeros, math.nan), zeros)
    largest = log_weights.double().topk(size + 1, dim=0).values
    weights = (largest - largest[0]).exp()
    tails = (weights[:-1] - weights[-1]).T
    fits = [_fit(logs, tail) for logs, tail in zip(largest.T, tails, strict=True)]
    k, scale = torch.tensor(fits, dtype=torch.float64).T
    total = (log_weights.double() - largest[0]).exp().sum(0)
    shape = k.clamp(0, _HEAVIEST)
    excess = size * scale / (1 - shape)
    # the mean of the excess, σ/(1 − k), by k̂'s standard error, (1 + k)/√size
    error = excess / (total + excess) * (1 + shape) / (1 - shape) / math.sqrt(size)
    heavy = (k > 0.5) & total.isfinite()
    return Tail(k, torch.where(heavy, error, 0.0))


def pareto_k(log_weights: Tensor) -> Tensor:
    """Shape k̂ of the tail of weights (K, num), see :class:`Tail`."""
    return tail_of(log_weights).k


def _fit(log_largest: Tensor, tail: Tensor) -> tuple[float, float]:
    """The shape k̂ and the scale of one tail, shape (size,), the largest first."""
    if not log_largest[0].isfinite() or log_largest.isnan().any():
        return math.inf, 0.0  # no weights, or not numbers
    if log_largest[0] - log_largest[-1] <= 1e-5:
        return -math.inf, 0.0
    if not tail.sort().values[int(len(tail) / 4 - 0.5)] > _SMALLEST:  # what the fit divides by
        return math.inf, float(tail.mean())  # most of the tail is nothing beside the largest
    k, scale = fit_generalized_pareto(tail)
    # a heavy tail spreads farther; one with two piles of weights fits no k̂
    most = 0.0 if log_largest[0] - log_largest[-1] <= math.log(_LIGHT) else math.inf
    return min(float(k), most), float(scale)
