"""Covariances estimated from few data: a mixture of the data's covariance and a simpler one (Ledoit and Wolf 2004)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.blocks import has_gaps
from pyrovae.linear_gaussian._directions import DENSE
from pyrovae.linear_gaussian._model import LinearModel
from pyrovae.linear_gaussian._patterns import patterns
from pyrovae.posteriors.lbfgs import check_time

SHARES = torch.logspace(-7, 0, 57, dtype=torch.float64)
"""Shares a of the target that are tried. Below the least, data that leave a direction empty could have any density."""


_MOST_ROUNDS = 8
"""Of expectation maximisation, for data with missing values."""
_LEAST_GAIN = 0.1
"""Nats a held-out datum: the rounds end with the first that gains less."""


class Shrinkage(NamedTuple):
    """The share a of the target, the held-out data's mean log-density, and S, None where it is x's own."""

    share: float
    log_prob: float
    covariance: Tensor | None = None


def shrinkage(
    x: Tensor,
    target: LinearModel,
    held_out: Tensor,
    *,
    shares: Tensor = SHARES,
    rounds: int = _MOST_ROUNDS,
    dense: int = DENSE,
) -> Shrinkage:
    """The a at which held-out data are likeliest under N(x̄, (1 − a)S + aT).

    With at most ``dense`` channels, or data where these are fewer, one decomposition serves all shares. With more, each
    share that a search tries takes a Cholesky factor of that size.

    With missing values S is expectation maximisation's: the covariance that the data are expected to have under the
    target, then under the shrunk Gaussian itself, until the held-out data's observed values get no likelier.

    Args:
        x: data of covariance S, shape (num, n).
        target: T is its covariance.
        held_out: shape (any, n); NaN in it and in x are missing values.
        shares: those that are tried, of data with missing values.
        rounds: most rounds after the first, of data with missing values.
        dense: see above.

    Raises:
        OutOfTimeError: see :func:`~pyrovae.posteriors.lbfgs.ending_by`.
    """
    if has_gaps(x) or has_gaps(held_out):
        return _with_gaps(x, target, held_out, shares, rounds)
    rows, held_out = (x - x.mean(0)) / len(x) ** 0.5, held_out - x.mean(0)
    if rows.shape[1] <= max(len(rows), dense):
        covariance, of_target = rows.T @ rows, target.marginal.covariance_matrix
        if len(of_target) <= dense:
            return best_shrinkage(covariance, of_target, held_out)
        return Shrinkage(*_searched(lambda share: _log_prob(shrunk(covariance, of_target, share), held_out)))
    return Shrinkage(*_best_of_few(rows, target, held_out, len(rows) <= dense))


def _with_gaps(x: Tensor, target: LinearModel, held_out: Tensor, shares: Tensor, rounds: int) -> Shrinkage:
    """Of data with missing values, see :func:`shrinkage`."""
    of_target, centred = target.marginal.covariance_matrix, held_out - target.offset
    groups = [(channels, centred[rows][:, channels]) for channels, rows in patterns(centred) if channels.any()]

    def best_of(covariance: Tensor) -> Shrinkage:
        def of_share(share: float) -> float:
            whole = shrunk(covariance, of_target, share)
            found = (_log_prob(whole[channels][:, channels], rows) * len(rows) for channels, rows in groups)
            return sum(found) / len(centred)

        return Shrinkage(*_searched(of_share, shares), covariance)

    covariance = target.expected_moments(x)[1]
    best = best_of(covariance)
    for _ in range(rounds if has_gaps(x) else 0):
        check_time()
        expected = _expected_covariance(x, target.offset, shrunk(covariance, of_target, best.share))
        if expected is None:
            break
        covariance = expected
        before, best = best, max(best, best_of(covariance), key=lambda one: one.log_prob)
        if best.log_prob - before.log_prob < _LEAST_GAIN:
            break
    return best if has_gaps(x) else Shrinkage(best.share, best.log_prob)


def _expected_covariance(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor | None:
    """What data are expected to have under N(b, C) given their observed values; None where C is singular."""
    filled, more = x.clone(), torch.zeros_like(covariance)
    for channels, rows in patterns(x):
        if channels.all():
            continue
        factor, failed = torch.linalg.cholesky_ex(covariance[channels][:, channels])
        if failed:
            return None
        across, missing = covariance[channels][:, ~channels], (~channels).nonzero().T
        weights = torch.cholesky_solve(across, factor)
        filled[rows.unsqueeze(-1), missing] = mean[~channels] + (x[rows][:, channels] - mean[channels]) @ weights
        left = covariance[~channels][:, ~channels] - across.T @ weights
        more[missing.T, missing] += len(rows) / len(x) * 0.5 * (left + left.T)
    return torch.cov(filled.T, correction=0).reshape(covariance.shape) + more


def best_shrinkage(covariance: Tensor, target: Tensor, held_out: Tensor) -> Shrinkage:
    """The a at which held-out data are likeliest under N(0, (1 − a)S + aT).

    With T = CCᵀ, every a has the same eigenvectors, those of C⁻¹SC⁻ᵀ: one decomposition, O(n³), serves all of them.

    Args:
        covariance: S, shape (n, n), float64; it may be singular.
        target: T, shape (n, n), float64, positive definite.
        held_out: shape (num, n), float64, less the mean.
    """
    factor = torch.linalg.cholesky(target)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=False)
    values, axes = torch.linalg.eigh(inverse @ covariance @ inverse.T)
    shares = SHARES.unsqueeze(-1)
    shrunk = (1 - shares) * values.clamp_min(0) + shares  # (shares, n)
    squares = (held_out @ inverse.T @ axes).square().mean(0)
    half_log_det = 0.5 * shrunk.log().sum(-1) + factor.diagonal().log().sum()
    log_prob = -0.5 * (squares / shrunk).sum(-1) - half_log_det - 0.5 * len(values) * math.log(2 * math.pi)
    best = int(log_prob.argmax())
    return Shrinkage(SHARES[best].item(), log_prob[best].item())


def _best_of_few(rows: Tensor, target: LinearModel, held_out: Tensor, at_once: bool) -> tuple[float, float]:
    """Of fewer data than channels, S = RᵀR: by K = RT⁻¹Rᵀ and H = RT⁻¹Yᵀ of held-out data Y, no n × n matrix.

    Log det C = log det aT + log det(I + K(1 − a)/a), and yᵀC⁻¹y = (yᵀT⁻¹y − hᵀ(Ia/(1 − a) + K)⁻¹h)/a.
    """
    solved = target.solve(held_out)
    inner, cross, own = target.solve(rows) @ rows.T, rows @ solved.T, (solved * held_out).sum(-1).mean()
    n, log_prob_of_mean = rows.shape[1], target.log_prob(target.offset)  # −½(log det T + n log 2π)
    if at_once:
        values, axes = torch.linalg.eigh(inner)
        found = values > torch.finfo(values.dtype).eps * len(values) * values[-1]
        values, squares = values[found], (axes.T @ cross).square().mean(1)[found]
        share, left = SHARES.unsqueeze(-1), own - (squares / values).sum()  # what no datum reaches
        blended = (1 - share) * values + share
        log_det = (n - len(values)) * SHARES.log() + blended.log().sum(-1)
        fit = left / SHARES + (squares / values / blended).sum(-1)
        log_prob = log_prob_of_mean - 0.5 * (log_det + fit)
        best = int(log_prob.argmax())
        return SHARES[best].item(), log_prob[best].item()
    eye = torch.eye(len(inner)).to(inner)

    def of_share(share: float) -> float:
        odds = share / (1 - share) if share < 1 else math.inf
        if math.isinf(odds):
            return float(log_prob_of_mean - 0.5 * own)
        factor = torch.linalg.cholesky(odds * eye + inner)
        explained = torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(0).mean()
        log_det = n * math.log(share) + 2 * factor.diagonal().log().sum() - len(inner) * math.log(odds)
        return float(log_prob_of_mean - 0.5 * (log_det + (own - explained) / share))

    return _searched(of_share)


def _searched(of_share: Callable[[float], float], shares: Tensor = SHARES) -> tuple[float, float]:
    """The best share of a function that rises and then falls, from twelve values of it, and its value."""
    known: dict[int, float] = {}

    def value(index: int) -> float:
        if index not in known:
            known[index] = of_share(shares[index].item())
        return known[index]

    best = max(range(0, len(shares), 16), key=value)
    for step in (8, 4, 2, 1):
        best = max((i for i in (best - step, best, best + step) if 0 <= i < len(shares)), key=value)
    return shares[best].item(), value(best)


def _log_prob(covariance: Tensor, held_out: Tensor) -> float:
    """The mean log-density of rows under N(0, C); −∞ where C has no Cholesky factor."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        return -math.inf
    fit = torch.linalg.solve_triangular(factor, held_out.T, upper=False).square().sum(0).mean()
    return float(-0.5 * (fit + len(factor) * math.log(2 * math.pi)) - factor.diagonal().log().sum())


def shrunk(covariance: Tensor, target: Tensor, share: float) -> Tensor:
    """(1 − a)S + aT."""
    return (1 - share) * covariance + share * target
