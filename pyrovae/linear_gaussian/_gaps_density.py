"""Log-density of data with missing values under a linear-Gaussian model, with slopes by hand."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.distributions import AR1Normal
from pyrovae.distributions.partial import given_last_observed

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class GapDensity:
    """The mean log-density of data, from the pairs of an observed channel j and the last observed one i before it.

    Σ_OO^(−½) takes each observed channel, in units of its σ, less its regression on the last observed one before. That
    depends on i and j alone, so it is the same for all data that have this pair.

    Attributes:
        here: x_j of each observed value, shape (m,), row by row.
        before: x_i, shape (m,).
        rows: the datum of each, shape (m,).
        members: which pairs a datum has, a matrix (num, k) of ones.
        patterns: the different rows of ``members``.
        index: the pattern of each datum, shape (num,).
        pairs: i and j of each pair, shape (2, k); i = j where no channel was observed before.
        counts: data that have the pair, shape (k,).
    """

    here: np.ndarray
    before: np.ndarray
    rows: np.ndarray
    members: "csr_array"
    patterns: "csr_array"
    index: Tensor
    pairs: Tensor
    counts: Tensor

    @classmethod
    def of(cls, x: Tensor, *, is_independent: bool) -> "GapDensity":
        """Data (num, n), NaN where a value is missing; with independent noise no channel is regressed on another."""
        from scipy.sparse import csr_array

        observed, (num, n) = ~x.isnan(), x.shape
        channel = torch.arange(n)
        previous = channel.expand(num, n)
        if not is_independent:
            last = torch.where(observed, channel, -1).cummax(1).values
            previous = torch.cat([last.new_full((num, 1), -1), last[:, :-1]], dim=1)
            previous = torch.where(previous < 0, channel, previous)
        rows, here = observed.nonzero(as_tuple=True)
        before = previous[rows, here]
        codes, which = torch.unique(before * n + here, return_inverse=True)
        ends = np.concatenate([[0], observed.sum(1).cumsum(0).numpy()])
        members = csr_array((np.ones(len(rows)), which.numpy(), ends), shape=(num, len(codes)))
        _, index = torch.unique(observed, dim=0, return_inverse=True)
        first = np.unique(index.numpy(), return_index=True)[1]
        counts = torch.bincount(which, minlength=len(codes)).to(x)
        pairs = torch.stack([codes // n, codes % n])
        return cls(
            x[rows, here].numpy(), x[rows, before].numpy(), rows.numpy(), members, members[first], index, pairs, counts
        )

    def mean_log_prob(self, p: TorchDistribution, a: Tensor, b: Tensor) -> Tensor:
        """The mean of log N(x_O; b_O, A_O A_Oᵀ + Σ_OO) in nats, for noise p = N(0, Σ)."""
        (i, j), num = self.pairs, self.members.shape[0]
        scale, slope, variance = p.stddev, torch.zeros_like(self.counts), torch.ones_like(self.counts)
        if isinstance(p, AR1Normal):
            one = torch.eye(len(b)).to(b)
            slopes, variances = given_last_observed(p, one, one.bool())  # of channel j, if i alone is observed before
            slope = torch.where(i == j, 0.0, slopes[i, j])
            variance = torch.where(i == j, 1.0, variances[i, j])
        deviation = scale[j] * variance.sqrt()
        of_here, of_before = deviation.reciprocal(), slope / (scale[i] * variance.sqrt())
        white = of_here.unsqueeze(-1) * a[j] - of_before.unsqueeze(-1) * a[i]
        centre = of_here * b[j] - of_before * b[i]
        terms = self.counts @ (deviation.log() + 0.5 * math.log(2 * math.pi)) / num
        explained: Tensor = _Explained.apply(self, white, of_here, of_before, centre)  # type: ignore[no-untyped-call]
        total: Tensor = explained - terms
        return total


class _Explained(torch.autograd.Function):
    """The mean over data of −½(rᵀr − uᵀẑ + log det P), r = αx_j − βx_i − c of a datum's pairs, u = Wᵀr, P = I + WᵀW.

    The slopes are those of Fisher's identity: with what ẑ = P⁻¹u leaves, l = r − Wẑ, they are lẑᵀ − WP⁻¹ for W, and −l
    for r.
    """

    @staticmethod
    def forward(ctx: Any, data: GapDensity, w: Tensor, alpha: Tensor, beta: Tensor, c: Tensor) -> Tensor:
        """See the class; w has the shape (k, d), alpha, beta and c have (k,)."""
        members, (k, d) = data.members, w.shape
        which, num = members.indices, members.shape[0]
        rows = w.numpy()
        residual = alpha.numpy()[which] * data.here - beta.numpy()[which] * data.before - c.numpy()[which]
        outer = (rows[:, :, None] * rows[:, None, :]).reshape(k, d * d)
        precision = torch.from_numpy(data.patterns @ outer).unflatten(-1, (d, d)) + torch.eye(d).to(w)
        factor = torch.linalg.cholesky(precision)
        covariance = torch.cholesky_inverse(factor)
        along = torch.from_numpy(_with_values(members, residual) @ rows)
        z = (covariance[data.index] @ along.unsqueeze(-1)).squeeze(-1)
        sizes = torch.bincount(data.index).to(w)
        log_det = 2 * sizes @ factor.diagonal(dim1=-2, dim2=-1).log().sum(1)
        left = residual - np.einsum("md,md->m", z.numpy()[data.rows], rows[which])
        of_w = torch.from_numpy(_with_values(members, left).T @ z.numpy())
        weighted = (sizes.unsqueeze(-1) * covariance.flatten(1)).numpy()
        spread = torch.from_numpy(data.patterns.T @ weighted).unflatten(-1, (d, d))
        of_w -= (spread @ w.unsqueeze(-1)).squeeze(-1)
        sums = (np.bincount(which, values, k) for values in (-left * data.here, left * data.before, left))
        ctx.save_for_backward(*(slope / num for slope in (of_w, *map(torch.from_numpy, sums))))
        value: Tensor = -0.5 * (float(residual @ residual) - (along * z).sum() + log_det) / num
        return value

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Slopes of W, α, β and c."""
        (slope,) = slopes
        return None, *(slope * found for found in ctx.saved_tensors)


def _with_values(members: "csr_array", values: np.ndarray) -> "csr_array":
    """The matrix with other values in the same places."""
    return type(members)((values, members.indices, members.indptr), shape=members.shape)
