"""Log-density of data with missing values under a linear-Gaussian model, with slopes by hand."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.distributions import AR1Normal
from pyrovae.distributions.partial import given_last_observed
from pyrovae.linear_gaussian._patterns import pattern_table

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Whole:
    """Values of the data's pairs as tables (num, k), 0 where a datum does not have the pair."""

    has: Array

    def spread(self, values: Array) -> Array:
        """Each pair's value (k,) for the data that have it."""
        return values * self.has

    def table(self, values: Array) -> Array:
        """The table of values."""
        return values

    def sums(self, values: Array) -> Array:
        """Sums over data, (k,)."""
        total: Array = values.sum(0)
        return total

    def products(self, z: Array, w: Array) -> Array:
        """zᵀw of each datum and pair, for z (num, d) and w (k, d)."""
        return self.has * (z @ w.T)


@dataclass(frozen=True)
class _Sparse:
    """The same values one after the other, shape (m,), row by row."""

    rows: NDArray[np.int64]
    which: NDArray[np.int64]
    shape: tuple[int, int]

    def spread(self, values: Array) -> Array:
        return values[self.which]

    def table(self, values: Array) -> "csr_array":
        from scipy.sparse import csr_array

        return csr_array((values, (self.rows, self.which)), shape=self.shape)

    def sums(self, values: Array) -> Array:
        return np.bincount(self.which, values, self.shape[1]).astype(np.float64, copy=False)

    def products(self, z: Array, w: Array) -> Array:
        found: Array = np.einsum("md,md->m", z[self.rows], w[self.which])
        return found


@dataclass(frozen=True)
class GapDensity:
    """The mean log-density of data, from the pairs of an observed channel j and the last observed one i before it.

    Σ_OO^(−½) takes each observed channel, in units of its σ, less its regression on the last observed one before. That
    depends on i and j alone, so it is the same for all data that have this pair.

    Attributes:
        form: how values of the data's pairs are stored.
        here: x_j of each observed value, in this form.
        before: x_i.
        patterns: which pairs a pattern of observed channels has, a matrix (p, k) of ones.
        index: the pattern of each datum, shape (num,).
        sizes: data of each pattern, shape (p,).
        pairs: i and j of each pair, shape (2, k); i = j where no channel was observed before.
        counts: data that have the pair, shape (k,).
    """

    form: _Whole | _Sparse
    here: Array
    before: Array
    patterns: "Array | csr_array"
    index: NDArray[np.int64]
    sizes: Array
    pairs: Tensor
    counts: Tensor

    @classmethod
    def of(cls, x: Tensor, *, is_independent: bool, dense: float = 0.1) -> "GapDensity":
        """The density of data.

        Args:
            x: shape (num, n), NaN where a value is missing.
            is_independent: whether the noise is independent: then no channel is regressed on another.
            dense: share of all pairs that a datum has, from which on tables of data and pairs are stored whole.
        """
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
        first, index, sizes = pattern_table(observed)
        values, values_before = x[rows, here].numpy(), x[rows, before].numpy()
        entries, shape = (rows.numpy(), which.numpy()), (num, len(codes))
        form: _Whole | _Sparse = _Sparse(*entries, shape)
        members = csr_array((np.ones(len(rows)), entries), shape=shape)
        is_dense = len(rows) >= dense * num * len(codes)
        if is_dense:
            form = _Whole(members.toarray())
            values, values_before = (csr_array((v, entries), shape).toarray() for v in (values, values_before))
        return cls(
            form,
            values,
            values_before,
            patterns=members[first].toarray() if is_dense else members[first],
            index=index,
            sizes=sizes,
            pairs=torch.stack([codes // n, codes % n]),
            counts=torch.bincount(which, minlength=len(codes)).to(x),
        )

    @property
    def num(self) -> int:
        """Number of data."""
        return len(self.index)

    def mean_log_prob(self, p: TorchDistribution, affine: Tensor) -> Tensor:
        """The mean of log N(x_O; b_O, A_O A_Oᵀ + Σ_OO) in nats.

        Args:
            p: the noise N(0, Σ), independent or AR(1).
            affine: A, and b as its last column, shape (n, d + 1).
        """
        of_here, of_before = whitening(p, *self.pairs)
        terms = self.counts @ (0.5 * math.log(2 * math.pi) - of_here.log()) / self.num
        explained: Tensor = _Explained.apply(self, affine, of_here, of_before)  # type: ignore[no-untyped-call]
        total: Tensor = explained - terms
        return total

    def mean_precision(self, p: TorchDistribution, a: Tensor) -> Tensor:
        """The mean over data of (A_O A_Oᵀ + Σ_OO)⁻¹, shape (n, n), with zeros for channels that a datum misses."""
        (i, j), (n, d), counts = self.pairs.numpy(), a.shape, self.counts.numpy()
        of_here, of_before = (values.numpy() for values in whitening(p, *self.pairs))
        rows = of_here[:, None] * a.numpy()[j] - of_before[:, None] * a.numpy()[i]
        total = np.zeros((n, n))  # the sum of Σ_OO⁻¹
        np.add.at(total, (j, j), counts * of_here**2)
        np.add.at(total, (i, i), counts * of_before**2)
        np.subtract.at(total, (i, j), counts * of_here * of_before)
        np.subtract.at(total, (j, i), counts * of_here * of_before)
        covariance, _ = self.posterior(rows)
        pattern, which = self.patterns.nonzero()
        along = np.zeros((len(self.sizes), n, d))  # Σ_OO⁻¹A_O of each pattern
        along[pattern, j[which]] = (of_here[:, None] * rows)[which]
        follows = i[which] != j[which]
        pattern, which = pattern[follows], which[follows]
        along[pattern, i[which]] -= (of_before[:, None] * rows)[which]
        along = along @ (np.sqrt(self.sizes)[:, None, None] * np.linalg.cholesky(covariance))
        along = np.swapaxes(along, 0, 1).reshape(n, -1)
        return torch.from_numpy((total - along @ along.T) / self.num)

    def latents(self, p: TorchDistribution, affine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means (num, d) of z given what was observed, its covariance (p, d, d) of each pattern, and these (num,)."""
        alpha, beta = (values.numpy()[:, None] for values in whitening(p, *self.pairs))
        white = alpha * affine.numpy()[self.pairs[1]] - beta * affine.numpy()[self.pairs[0]]
        form, rows = self.form, np.ascontiguousarray(white[:, :-1])
        residual = form.spread(alpha[:, 0]) * self.here - form.spread(beta[:, 0]) * self.before
        covariance, _ = self.posterior(rows)
        along = form.table(residual - form.spread(white[:, -1])) @ rows
        z = np.einsum("nde,ne->nd", covariance[self.index], along)
        return torch.from_numpy(z), torch.from_numpy(covariance), torch.from_numpy(self.index)

    def posterior(self, w: Array) -> tuple[Array, Array]:
        """V = (I + WᵀW)⁻¹ of each pattern, W the rows of w (k, d) of its pairs, and log det V⁻¹."""
        k, d = w.shape
        outer = (w[:, :, None] * w[:, None, :]).reshape(k, d * d)
        precision = (self.patterns @ outer).reshape(len(self.sizes), d, d)
        rounding = 4 * np.finfo(float).eps * np.trace(precision, axis1=1, axis2=2)  # where W has fewer rows than d
        precision += (1 + rounding)[:, None, None] * np.eye(d)
        return np.linalg.inv(precision), np.linalg.slogdet(precision)[1]


def whitening(p: TorchDistribution, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """α and β of pairs of channels, (k,): those of a datum make αx_j − βx_i N(0, I) under p = N(0, Σ)."""
    scale = p.stddev
    if not isinstance(p, AR1Normal):
        return scale[j].reciprocal(), scale.new_zeros(len(j))
    if p.correlation.shape[-1] == 1:  # channels t apart: slope ρᵗ, and of the variance (1 − ρ²)(1 + ρ² + … + ρ²ᵗ⁻²)
        powers = p.correlation ** torch.arange(len(scale)).to(scale)
        left = (1 - p.correlation.square()) * powers[:-1].square().cumsum(0)
        slope, variance = torch.cat([0 * powers[:1], powers[1:]])[j - i], torch.cat([powers[:1], left])[j - i]
    else:
        one = torch.eye(len(scale)).to(scale)
        slopes, variances = given_last_observed(p, one, one.bool())  # of channel j, if i alone is observed before
        slope, variance = torch.where(i == j, 0.0, slopes[i, j]), torch.where(i == j, 1.0, variances[i, j])
    deviation = variance.sqrt()
    return (scale[j] * deviation).reciprocal(), slope / (scale[i] * deviation)


class _Explained(torch.autograd.Function):
    """The mean over data of −½(lᵀl + ẑᵀẑ + log det P) with the residuals r = αx_j − βx_i − c of a datum's pairs.

    A pair has the row w = αa_j − βa_i of W, and c = αb_j − βb_i; P = I + WᵀW, ẑ = P⁻¹Wᵀr, and l = r − Wẑ is what ẑ
    leaves. The sum lᵀl + ẑᵀẑ = rᵀr − rᵀWẑ is least at ẑ, so it bears the rounding of P⁻¹ where the noise is small. The
    slopes are those of Fisher's identity, lẑᵀ − WP⁻¹ for W and −l for r.
    """

    @staticmethod
    def forward(ctx: Any, data: GapDensity, affine: Tensor, of_here: Tensor, of_before: Tensor) -> Tensor:
        """See the class; A, and b as its last column, have the shape (n, d + 1), α and β (k,)."""
        columns, alpha, beta, form, (i, j) = (
            affine.numpy(),
            of_here.numpy()[:, None],
            of_before.numpy()[:, None],
            data.form,
            data.pairs.numpy(),
        )
        (k, width), at_here, at_before = (len(j), columns.shape[1]), columns[j], columns[i]
        white = alpha * at_here - beta * at_before
        rows, centre = np.ascontiguousarray(white[:, :-1]), white[:, -1]
        residual = form.spread(alpha[:, 0]) * data.here - form.spread(beta[:, 0]) * data.before - form.spread(centre)
        covariance, log_det = data.posterior(rows)
        along = form.table(residual) @ rows
        z = np.einsum("nde,ne->nd", covariance[data.index], along)
        left = residual - form.products(z, rows)
        weighted = data.sizes[:, None] * covariance.reshape(len(covariance), -1)
        spread = (data.patterns.T @ weighted).reshape(k, width - 1, width - 1)
        of_white = np.empty_like(white)
        of_white[:, :-1] = form.table(left).T @ z - np.einsum("kde,ke->kd", spread, rows)
        of_white[:, -1] = form.sums(left)
        of_columns = np.zeros_like(columns)
        np.add.at(of_columns, j, alpha * of_white)
        np.subtract.at(of_columns, i, beta * of_white)
        of_alpha = (of_white * at_here).sum(1) - form.sums(left * data.here)
        of_beta = form.sums(left * data.before) - (of_white * at_before).sum(1)
        slopes = (of_columns, of_alpha, of_beta)
        ctx.save_for_backward(*(torch.from_numpy(slope / data.num) for slope in slopes))
        value = np.vdot(left, left) + np.vdot(z, z) + data.sizes @ log_det
        return affine.new_tensor(-0.5 * value / data.num)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Slopes of A and b, α and β."""
        (slope,) = slopes
        return None, *(slope * found for found in ctx.saved_tensors)
