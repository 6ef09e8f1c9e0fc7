"""The interval of a mean gain: it covers the choice of data, the seeds, and the estimation of log p(x).

Each cause has its own limits. They are combined by the method of variance estimates recovery (Zou and Donner 2008): the
distance from the mean gain to a limit is the root of the sum of the causes' squared distances. Nothing is drawn at
random, so the far tails of many comparisons are as exact as the near ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrovae.errors import InputError, InputTypeError
from pyrovae.evaluation import Bound, LogMarginal

Array = NDArray[np.float64]

_ROUNDING = 1e-6
"""Differences below this share of log p(x) are rounding errors."""


@dataclass(frozen=True)
class Scores:
    """Log p(x) of each seed's model of the same data, and the possible mean error of the estimates.

    Attributes:
        values: in nats, shape (seeds, num).
        monte_carlo: standard error of their mean from the draws of z; 0 if it is not known.
        too_low: how far their mean may be below the true one, in nats, at least 0.
        too_high: how far it may be above.
        is_density: whether they are of log p(x), see :class:`~pyrovae.evaluation.LogMarginal`.
        is_estimate: whether they are given as such estimates, and not as numbers.
    """

    values: Array
    monte_carlo: float = 0.0
    too_low: float = 0.0
    too_high: float = 0.0
    is_density: bool = True
    is_estimate: bool = False

    @classmethod
    def of(cls, given: ArrayLike | Sequence[LogMarginal]) -> Scores:
        """Scores from exact numbers of shape (seeds, num), or from one estimate per seed."""
        listed = list(given) if isinstance(given, Sequence) else []
        estimates = [one for one in listed if isinstance(one, LogMarginal)]
        if not estimates or len(estimates) < len(listed):
            try:
                if isinstance(given, Tensor):
                    given = (given.detach() if given.is_complex() else given.detach().double()).cpu().numpy()
                if isinstance(given, np.ma.MaskedArray):
                    given = given.filled(np.nan)
                return cls(np.asarray(given).astype(np.float64, casting="same_kind"))
            except (TypeError, ValueError, RuntimeError):
                raise InputTypeError(
                    "log p(x) must be numbers of shape (seeds, num), or a list of one estimate per seed, not "
                    f"{type(given).__name__}"
                ) from None
        sizes = {len(estimate.per_datum) for estimate in estimates}
        if len(sizes) != 1:
            raise InputError(f"a model needs an estimate for each seed, all of the same data, not of {sorted(sizes)}")
        values = np.stack([estimate.per_datum.double().cpu().numpy() for estimate in estimates])
        variances = np.stack([estimate.stderr_per_datum.double().cpu().numpy() for estimate in estimates]) ** 2
        off = np.array([remaining_bias(estimate) for estimate in estimates])
        monte_carlo = math.sqrt(np.nan_to_num(variances).sum()) / values.size
        too_low, too_high = off.mean(0).tolist()
        is_density = all(estimate.is_density for estimate in estimates)
        return cls(values, monte_carlo, too_low, too_high, is_density, is_estimate=True)


def remaining_bias(estimate: LogMarginal) -> tuple[float, float]:
    """How far the mean of estimates of log p(x) may be below and above the true mean, in nats per datum.

    Infinitely far if more than a tenth are unreliable, or too few draws show no k̂: the weights then say nothing of what
    the draws missed.
    """
    if estimate.quadrature_error is not None:
        error = estimate.quadrature_error.abs().mean().item()
        return error, error
    bias = max(0.0, estimate.bias_per_datum.mean().item())
    if estimate.mostly_unreliable or estimate.has_too_few_draws:
        bias = math.inf
    return (0.0, bias) if estimate.bound is Bound.UPPER else (bias, 0.0)


def gains_of(values: Array, over: Array, groups: NDArray[np.int64] | None) -> Array:
    """Gains by seed and by group of data, shape (seeds, groups); all zero in a tie.

    Without groups the value of a datum is its gain. The value of a group is what the mean would lose without it, as in
    the jackknife: a group with most of the data would otherwise hide its own error, as the mean follows it.
    """
    gains = values - over
    size = np.maximum(1.0, np.maximum(np.abs(values), np.abs(over)))
    if (np.abs(gains) <= _ROUNDING * size).all():
        return np.zeros_like(gains if groups is None else gains[:, : groups.max() + 1])
    if groups is None:
        return np.asarray(gains)
    sizes = np.bincount(groups).astype(float)
    sums = np.stack([np.bincount(groups, weights=row) for row in gains])
    mean = gains.mean(1, keepdims=True)
    apart = (sums - sizes * mean) * (len(sizes) - 1) / np.maximum(len(groups) - sizes, 1)
    found: Array = mean + apart - apart.mean(1, keepdims=True)
    return found


def reach(gains: Array, tail: float, monte_carlo: Array | float = 0.0) -> tuple[Array, Array]:
    """How far below and above the mean of these gains the true mean may be, each with probability ``tail``.

    For the data it uses Hall's (1992) transformation of Student's t, which removes the effect of skewness to first
    order, as a bootstrap of t does, but never less than Student's t. For the seeds it uses Student's t.

    Args:
        gains: shape (…, seeds, num), of data that are independent of each other.
        tail: probability that the true mean is below, and that it is above.
        monte_carlo: standard error of the mean from the draws of z, shape (…); a lower limit for that of the data.

    Returns:
        Two arrays of shape (…); infinite for a single seed or datum, which shows no spread.
    """
    from scipy.special import stdtrit

    num_seeds, num = gains.shape[-2:]
    shape = gains.shape[:-2]
    if num_seeds < 2 or num < 2:
        return np.full(shape, math.inf), np.full(shape, math.inf)
    by_datum = gains.mean(-2)
    stderr = np.maximum(by_datum.std(-1, ddof=1) / math.sqrt(num), monte_carlo)
    t, a = -stdtrit(num - 1, tail), skewness(by_datum) / math.sqrt(num)
    of_seeds = -stdtrit(num_seeds - 1, tail) * gains.mean(-1).std(-1, ddof=1) / math.sqrt(num_seeds)
    below, above = (np.maximum(t, _skewed(t, sign * a)) * stderr for sign in (1.0, -1.0))
    return np.hypot(below, of_seeds), np.hypot(above, of_seeds)


def skewness(x: Array) -> Array:
    """The sample skewness over the last axis, adjusted for its size; 0 of equal values."""
    num = x.shape[-1]
    centred = x - x.mean(-1, keepdims=True)
    second, third = (centred**2).mean(-1), (centred**3).mean(-1)
    ratio = np.divide(third, second**1.5, out=np.zeros_like(second), where=second > 0)
    return ratio * math.sqrt(num * (num - 1)) / (num - 2) if num > 2 else np.zeros_like(ratio)


def _skewed(t: float, a: Array) -> Array:
    """The quantile of a mean's t statistic whose transformed value is t, of skewness a √num (Hall 1992)."""
    flat = np.abs(a) < 1e-6  # where the transformation is t + a (1 + 2 t²)/6
    a = np.where(flat, 1.0, a)
    return np.where(flat, t, 3 / a * (np.cbrt(1 + a * (t - a / 6)) - 1))
