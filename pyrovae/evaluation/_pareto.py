"""Pareto k̂: whether an importance-weighted mean can be trusted (Vehtari, Simpson, Gelman, Yao and Gabry 2024)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_HEAVIEST = 0.9
"""Largest shape for computing the mean of a tail: at 1 it is infinite."""

_SMALLEST = 1e-300
"""Weights below this share of the largest count as 0, since the fit divides by them."""

_VALUES_AT_ONCE = 2**17
"""Values of a fit in memory: more do not fit the processor's cache."""

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


def tail_of(log_weights: Tensor, log_total: Tensor | None = None) -> Tail:
    """Fit the tails of weights.

    Args:
        log_weights: shape (K, num).
        log_total: logarithms of the sums of the weights, shape (num,), if they are known.
    """
    num, size = log_weights.shape[1], tail_size(len(log_weights))
    zeros = torch.zeros(num, dtype=torch.float64)
    if size < 5:
        return Tail(torch.full_like(zeros, math.nan), zeros)
    largest = _largest(log_weights, size + 1)
    weights = (largest - largest[0]).exp()
    k, scale = _fit_each(largest.T, (weights[:-1] - weights[-1]).T.flip(1))
    if log_total is None:
        log_total = log_weights.double().logsumexp(0)
    total = (log_total - largest[0]).exp()
    shape = k.clamp(0, _HEAVIEST)
    excess = size * scale / (1 - shape)
    # the mean of the excess, σ/(1 − k), by k̂'s standard error, (1 + k)/√size
    error = excess / (total + excess) * (1 + shape) / (1 - shape) / math.sqrt(size)
    heavy = (k > 0.5) & total.isfinite()
    return Tail(k, torch.where(heavy, error, 0.0))


def _largest(log_weights: Tensor, num: int) -> Tensor:
    """The ``num`` largest of each column, the largest first, NaN before all. NumPy takes a fifth of ``topk``'s time."""
    values = log_weights.detach().double().cpu().numpy()
    largest = np.sort(np.partition(values, -num, axis=0)[-num:], axis=0)
    return torch.from_numpy(largest).flip(0)


def pareto_k(log_weights: Tensor) -> Tensor:
    """Shape k̂ of the tail of weights (K, num), see :class:`Tail`."""
    return tail_of(log_weights).k


def _fit_each(log_largest: Tensor, tails: Tensor) -> tuple[Tensor, Tensor]:
    """The shape k̂ and the scale of each tail (a row, from the smallest); ``log_largest`` has the largest first."""
    span = log_largest[:, 0] - log_largest[:, -1]
    scale = torch.where(tails.isfinite().all(-1), tails.mean(-1), 0.0)
    k = torch.full_like(scale, math.inf)  # no weights, not numbers, or most of the tail nothing beside the largest
    fits = tails.isfinite().all(-1) & (tails[:, _quartile(tails)] > _SMALLEST)
    k[fits], scale[fits] = _fit_generalized_pareto(tails[fits])
    light = span <= math.log(_LIGHT)  # one with two piles of weights fits no k̂
    k = torch.where(light, k.clamp_max(0), k)
    equal = span <= 1e-5
    return k.masked_fill(equal, -math.inf), scale.masked_fill(equal, 0.0)


def _quartile(tails: Tensor) -> int:
    return int(tails.shape[1] / 4 - 0.5)


def _fit_generalized_pareto(x: Tensor) -> tuple[Tensor, Tensor]:
    """The shape k̂ and the scale σ of a generalised Pareto distribution for each row of x, from the smallest.

    The mean of θ = −k/σ under the profile likelihood at M = 30 + √size points (Zhang and Stephens 2009), with
    k(θ) = mean log(1 − θ x); k̂ is shrunk to ½ by ten more values (Vehtari et al. 2024).
    """
    size = x.shape[1]
    num_points = 30 + math.isqrt(size)
    steps = 1 - (num_points / (torch.arange(num_points, dtype=x.dtype) + 0.5)).sqrt()
    theta = 1 / x[:, -1:] + steps / (3 * x[:, _quartile(x), None])
    few = max(1, _VALUES_AT_ONCE // (num_points * size))
    k = torch.cat(
        [
            torch.log1p(-points.unsqueeze(-1) * tails.unsqueeze(1)).mean(-1)
            for points, tails in zip(theta.split(few), x.split(few), strict=True)
        ]
    )
    log_likelihood = size * ((-theta / k).log() - k - 1)
    mean = (theta * log_likelihood.softmax(-1)).sum(-1)
    shape = torch.log1p(-mean.unsqueeze(-1) * x).mean(-1)
    return (size * shape + 5) / (size + 10), -shape / mean
