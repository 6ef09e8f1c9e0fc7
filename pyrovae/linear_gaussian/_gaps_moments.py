"""Mean and covariance of data with missing values, by expectation maximisation."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.linear_gaussian._patterns import pattern_table

Array = NDArray[np.float64]

_SHARES = (0.1, 0.2)
"""Shares of the data that have each pair of the first channels; each share is a start."""
_STAGES = 8
"""Rounds in which channels are added."""
_MORE_ROUNDS = 6
"""At most, from the likeliest start."""
_LEAST_GAIN = 1e-3
"""Nats a datum: they end with the first round that gains less."""
_RIDGE = 1e-9
"""Of regressions on z, in units of the trace."""
_LEAST_VARIANCE = 1e-14
"""Of the noise, in units of the channels' mean variance."""


@torch.no_grad()
def moments_of_gaps(x: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Expected mean (n,) and covariance (n, n) of data, given their observed values.

    The expectations are those of probabilistic PCA with d components, after some rounds of expectation maximisation
    over z and the observed values (Ilin and Raiko 2010). The first round has only the channels of which enough data
    have each pair. The others are added step by step, those that more data have first. Otherwise covariances of pairs
    that no datum has would lead to a poor maximum. Groups of channels that no data connect, as of two instruments,
    start with components each: those of one group say nothing of another.

    Args:
        x: data, shape (num, n), NaN where a value was not observed.
        d: latent dimension.

    Raises:
        InputError: a channel that is never observed, or data without variance.
    """
    observed = ~x.isnan()
    empty = ~observed.any(0)
    if empty.any():
        raise InputError(
            f"channel {int(empty.nonzero()[0])} (counted from 0) is missing in all training data; leave it out"
        )
    data, every = _Gaps.of(x[observed.any(1)]), np.arange(x.shape[1])
    groups = data.groups()
    if len(groups) > 1:
        found = data.expect(data.apart(groups, d), every)
    else:
        starts = {len(channels): channels for channels in (data.seen_together(share, d) for share in _SHARES)}
        found = max((data.start(channels, d) for channels in starts.values()), key=lambda expected: expected.log_prob)
    for _ in range(_MORE_ROUNDS):
        before, found = found, data.expect(data.maximise(found, every), every)
        if found.log_prob - before.log_prob < _LEAST_GAIN * len(x):
            break
    mean, covariance = data.moments(found)
    return torch.from_numpy(mean), torch.from_numpy(covariance)


class _Components(NamedTuple):
    """x = Az + b + N(0, σ²I)."""

    loadings: Array
    mean: Array
    variance: float


class _Expected(NamedTuple):
    """Means (num, d) of z, its covariance (p, d, d) for each pattern, and the sum of log p(x_O) without a constant."""

    of: _Components
    z: Array
    covariance: Array
    log_prob: float


@dataclass(frozen=True)
class _Gaps:
    """Data with missing values.

    Attributes:
        x: shape (num, n), 0 where a value is missing.
        seen: ones where it was observed.
        patterns: the same for each pattern of observed channels, shape (p, n).
        index: the pattern of each datum, shape (num,).
        sizes: data of each pattern, shape (p,).
        counts: data that have each channel, shape (n,).
    """

    x: Array
    seen: Array
    patterns: Array
    index: NDArray[np.int64]
    sizes: Array
    counts: Array

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """The data with NaN where a value is missing."""
        observed = ~x.isnan()
        first, index, sizes = pattern_table(observed)
        seen = observed.numpy().astype(np.float64)
        return cls(np.where(observed.numpy(), x.numpy(), 0.0), seen, seen[first], index, sizes, seen.sum(0))

    def groups(self) -> list[NDArray[np.int64]]:
        """The channels in groups: two of one group are observed together, or linked by others."""
        from scipy.sparse.csgraph import connected_components

        num, labels = connected_components(self.seen.T @ self.seen > 0, directed=False)
        return [np.flatnonzero(labels == group) for group in range(num)]

    def apart(self, groups: list[NDArray[np.int64]], d: int) -> _Components:
        """Components of each group, and the mean of their variances."""
        parts = [self._of_pairs(channels, d) for channels in groups]
        loadings = np.sum([part.loadings for part in parts], axis=0)
        return _Components(loadings, parts[0].mean, float(np.mean([part.variance for part in parts])))

    def seen_together(self, share: float, d: int) -> NDArray[np.int64]:
        """The most observed channels of which this share of the data have each pair, or all if these are too few.

        The most observed channel comes first.
        """
        pairs, (num, n) = self.seen.T @ self.seen, self.seen.shape
        order = np.argsort(-pairs.diagonal(), kind="stable")
        fewest = np.where(np.tri(n) > 0, pairs[np.ix_(order, order)], np.inf).min(1)
        enough = int((np.minimum.accumulate(fewest) >= share * num).sum())
        return order[: enough if enough > 2 * d else n]

    def start(self, channels: NDArray[np.int64], d: int) -> _Expected:
        """Components of these channels, from the covariances of their pairs, to which the others are added."""
        others = np.argsort(-self.counts, kind="stable")
        order = np.concatenate([channels, others[~np.isin(others, channels)]])
        first, n = len(channels), len(order)
        found = self._of_pairs(channels, d)
        for k in range(_STAGES if first < n else 0):
            used = order[: first + k * (n - first) // _STAGES]
            found = self.maximise(self.expect(found, used), used)
        return self.expect(found, order)

    def _of_pairs(self, channels: NDArray[np.int64], d: int) -> _Components:
        """Probabilistic PCA of the covariances of pairs of some channels; the loadings of the others are 0."""
        mean = self.x.sum(0) / self.counts
        centred, seen = (self.seen * (self.x - mean))[:, channels], self.seen[:, channels]
        values, axes = np.linalg.eigh(centred.T @ centred / np.maximum(seen.T @ seen, 1))
        rest = max(0, len(values) - d)
        if not values[: max(1, rest)].max() > 0:  # covariances of pairs need not be those of one distribution
            values, axes = np.sort(abs(values)), axes[:, np.argsort(abs(values))]
        variance = np.maximum(values[:rest], 0).mean() if rest else values[0] / 2
        variance = max(variance, _LEAST_VARIANCE * values[-1])
        if not variance > 0:
            raise InputError(f"the data span no more than {d} dimensions, so the noise would be 0")
        loadings = np.zeros((len(mean), d))
        loadings[channels, : len(values) - rest] = axes[:, rest:] * np.sqrt(np.maximum(values[rest:] - variance, 0))
        return _Components(loadings, mean, variance)

    def expect(self, of: _Components, channels: NDArray[np.int64]) -> _Expected:
        """The posterior of z given the observed values of some channels."""
        n, d = of.loadings.shape
        used = np.zeros(n)
        used[channels] = 1
        centred, patterns = self.seen * (self.x - of.mean), self.patterns * used
        centred[:, used == 0] = 0
        outer = (of.loadings[:, :, None] * of.loadings[:, None, :]).reshape(n, d * d)
        precision = np.eye(d) + (patterns @ outer).reshape(-1, d, d) / of.variance
        covariance = np.linalg.inv(precision).astype(np.float64, copy=False)
        along = centred @ of.loadings / of.variance
        z = np.einsum("nde,ne->nd", covariance[self.index], along)
        terms = np.linalg.slogdet(precision)[1] + patterns.sum(1) * np.log(of.variance)
        squares = np.vdot(centred, centred) / of.variance - np.vdot(z, along)
        return _Expected(of, z, covariance, -0.5 * (squares + self.sizes @ terms))

    def maximise(self, expected: _Expected, channels: NDArray[np.int64]) -> _Components:
        """Each channel's regression on z, where it was observed, σ² of some channels, and z standardised."""
        (loadings, before, _), z, covariance, _ = expected
        (num, d), n = z.shape, len(loadings)
        centred, z_and_one = self.seen * (self.x - before), np.concatenate([z, np.ones((num, 1))], axis=1)
        outer = (z_and_one[:, :, None] * z_and_one[:, None, :]).reshape(num, -1)
        products = (self.seen.T @ outer).reshape(n, d + 1, d + 1)
        spread = self.sizes[:, None] * covariance.reshape(len(covariance), -1)
        products[:, :d, :d] += (self.patterns.T @ spread).reshape(n, d, d)
        products += _RIDGE * products.trace(axis1=1, axis2=2)[:, None, None] * np.eye(d + 1)
        along = centred.T @ z_and_one
        slopes = np.linalg.solve(products, along[:, :, None])[:, :, 0]
        squares = np.einsum("ij,ij->j", centred, centred)
        left = (squares - (slopes * along).sum(1))[channels]
        least = _LEAST_VARIANCE * squares.sum() / self.counts.sum()
        variance = max(left.sum() / self.counts[channels].sum(), least)
        of_z = (z.T @ z + spread.sum(0).reshape(d, d)) / num - np.outer(z.mean(0), z.mean(0))
        mean = before + slopes[:, d] + slopes[:, :d] @ z.mean(0)
        return _Components(slopes[:, :d] @ np.linalg.cholesky(of_z), mean, variance)

    def moments(self, expected: _Expected) -> tuple[Array, Array]:
        """Expected mean (n,) and covariance (n, n) of the data."""
        (loadings, mean, variance), z, covariance, _ = expected
        (n, d), (num, _) = loadings.shape, self.x.shape
        filled = np.where(self.seen > 0, self.x, mean + z @ loadings.T)
        factors = np.linalg.cholesky(covariance).transpose(1, 2, 0).reshape(d, -1)
        parts = (loadings @ factors).reshape(n, d, -1)
        parts *= ((1 - self.patterns).T * np.sqrt(self.sizes / num))[:, None]
        spread = parts.reshape(n, -1)  # of z, where a channel is missing
        centred = filled - filled.mean(0)
        noise = np.diag(variance * (1 - self.seen.mean(0)))
        return filled.mean(0), centred.T @ centred / num + spread @ spread.T + noise
