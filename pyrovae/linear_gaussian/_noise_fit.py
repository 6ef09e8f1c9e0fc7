"""Maximum-likelihood noise of a linear-Gaussian model, by L-BFGS over its parameters only."""

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.func import functional_call

from pyrovae.distributions import covariance_of
from pyrovae.likelihoods import GaussianNoiseLikelihood
from pyrovae.linear_gaussian._model import solve_noise
from pyrovae.posteriors.lbfgs import minimise

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

PRIOR_SCALE = 0.01
"""Scale of the prior that keeps noise off 0, as a share of probabilistic PCA's σ."""
MANY = 200
"""Channels above which noise with a tridiagonal Σ⁻¹ is fitted without a dense matrix of its own."""
_STEEP = 0.1
"""Slope of the objective, in nats a datum and unit of log σ, where a fit has not ended."""

Array = NDArray[np.float64]


@torch.no_grad()
def fit_noise(
    noise: GaussianNoiseLikelihood,
    x: Tensor,
    start_scale: float,
    d: int,
    max_steps: int,
    many: int = MANY,
    *,
    warn: bool = True,
) -> Tensor:
    """Give ``noise`` the parameters at which :meth:`FactorModel.fit`'s objective is largest, and return its A (n, d).

    Args:
        noise: in float64; it is changed.
        x: data, shape (num, n).
        start_scale: probabilistic PCA's σ.
        d: latent dimension.
        max_steps: most steps of L-BFGS.
        many: channels above which Σ⁻¹ is taken to be tridiagonal, where it is.
        warn: whether to warn of a fit that has not ended.
    """
    noise.loc_head.weight.zero_()
    noise.loc_head.bias.zero_()
    banded = noise.has_tridiagonal_precision and x.shape[1] > many
    moments = _Banded(x, d) if banded else _Dense(x, d)
    features = x.new_zeros(noise.in_features)
    prior = PRIOR_SCALE * start_scale / len(x) ** 0.5

    def objective(coordinates: Tensor) -> Tensor:
        p = functional_call(noise, noise.noise_parameters(coordinates), features)
        normaliser = p.log_prob(torch.zeros_like(p.mean))
        largest, rest = moments.split(p, normaliser, prior)
        explained = torch.where(largest > 1, 1 + largest.clamp_min(1).log(), largest)
        value: Tensor = 0.5 * (explained.sum() + rest) - normaliser
        return value

    if noise.noise_names:
        start = torch.zeros(noise.num_noise_parameters, dtype=torch.float64)
        found = minimise(objective, [start], max_steps, maxcor=100, ftol=moments.tolerance, gtol=1e-6)
        if warn:
            check_ended(found, noise, stacklevel=4)
        for name, value in noise.noise_parameters(torch.from_numpy(found.x)).items():
            noise.get_parameter(name).copy_(value)
    return moments.loadings(noise(features))


def check_ended(found: "OptimizeResult", noise: GaussianNoiseLikelihood, *, stacklevel: int = 4) -> None:
    """Warn if a fit ended before a maximum."""
    slope = np.abs(found.jac).max()
    if found.status == 1 or (found.status == 2 and slope > _STEEP):
        warnings.warn(
            f"the linear model with the noise of a {type(noise).__name__} has not converged after {found.nit} steps, "
            f"where the slope is {slope:.2g}"
            + ("; give more max_steps" if found.status == 1 else ": the data hardly vary in some direction"),
            stacklevel=stacklevel,
        )


@torch.no_grad()
def best_loadings(noise: GaussianNoiseLikelihood, x: Tensor, d: int) -> Tensor:
    """The maximum-likelihood A, shape (n, d), of data x (num, n) with this noise."""
    return _Dense(x, d).loadings(noise(x.new_zeros(noise.in_features)))


@dataclass
class _Dense:
    """The covariance S of data x as a sum of vvᵀ, as few as it has directions."""

    x: Tensor
    d: int
    root: Tensor = field(init=False)
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        values, axes = torch.linalg.eigh(torch.cov(self.x.T, correction=0))
        found = values > torch.finfo(values.dtype).eps * len(values) * values[-1]
        self.root = (axes[:, found] * values[found].sqrt()).T

    def split(self, p: TorchDistribution, normaliser: Tensor, prior: float) -> tuple[Tensor, Tensor]:
        """The d largest eigenvalues λ of L⁻¹SL⁻ᵀ, and the sum of the others with that of the prior."""
        axes = self._principal(p)
        kept = axes.T @ self.root
        rows = torch.cat([kept, self.root - axes @ kept, prior * torch.eye(self.root.shape[1]).to(self.root)])
        squares = 2 * (normaliser - p.log_prob(rows))  # vᵀΣ⁻¹v: eigenvalues, and their slopes at fixed axes
        return squares[: self.d], squares[self.d :].sum()

    @torch.no_grad()
    def _principal(self, p: TorchDistribution) -> Tensor:
        """Eigenvectors of the d largest eigenvalues of root Σ⁻¹ rootᵀ, which are those of L⁻¹SL⁻ᵀ: (len(root), d)."""
        from scipy.linalg import eigh

        products = self.root @ solve_noise(p, self.root).T  # without Σ's factor, which AR(1) noise loses near ρ = 1
        last = len(self.root) - 1
        _, axes = eigh(products.numpy(), subset_by_index=[last - self.d + 1, last])
        return torch.from_numpy(axes)

    def loadings(self, p: TorchDistribution) -> Tensor:
        """The likeliest A, shape (n, d), its columns by falling share."""
        factor = torch.linalg.cholesky(covariance_of(p))
        white = torch.linalg.solve_triangular(factor, self.root.T, upper=False)
        axes, values, _ = torch.linalg.svd(white, full_matrices=False)
        found: Tensor = factor @ axes[:, : self.d] * (values[: self.d].square() - 1).clamp_min(0).sqrt()
        return found


class _Banded:
    """The same where Q = Σ⁻¹ is tridiagonal: the sum of the others needs S near its diagonal alone, O(n) a step.

    The largest eigenvalues come from Lanczos on CᵀSC, C bidiagonal with CCᵀ = Q.
    """

    tolerance = 1e-9

    def __init__(self, x: Tensor, d: int) -> None:
        self.d = d
        rows = ((x - x.mean(0)) / len(x) ** 0.5).numpy()
        num, n = rows.shape
        self._matrix: Array = rows.T @ rows if n <= num else rows
        self._is_covariance = n <= num
        self._start: Array = np.ones(n)
        self._diagonal, self._beside = (rows**2).sum(0), (rows[:, 1:] * rows[:, :-1]).sum(0)

    def split(self, p: TorchDistribution, normaliser: Tensor, prior: float) -> tuple[Tensor, Tensor]:
        """The d largest eigenvalues λ of CᵀSC, and the sum of the others with that of the prior."""
        kept = self._kept(p)
        diagonal = np.maximum(self._diagonal - (kept**2).sum(0), 0) + prior**2
        beside = self._beside - (kept[:, 1:] * kept[:, :-1]).sum(0)
        rows, signs = _rows_of_band(diagonal, beside)
        squares = 2 * (normaliser - p.log_prob(torch.from_numpy(np.concatenate([kept, rows]))))
        return squares[: self.d], (squares[self.d :] * torch.from_numpy(signs)).sum()

    @torch.no_grad()
    def _kept(self, p: TorchDistribution) -> Array:
        """Rows whose inner products under Q are the largest eigenvalues, the largest first, shape (d, n)."""
        from scipy.sparse.linalg import LinearOperator, eigsh

        c, below = self._factor(p)
        n = len(c)

        def times_c(v: Array) -> Array:
            found = (v.T * c).T
            found[1:] += (v[:-1].T * below).T
            return found

        def times_c_transposed(v: Array) -> Array:
            found = (v.T * c).T
            found[:-1] += (v[1:].T * below).T
            return found

        def times_s(v: Array) -> Array:
            found: Array = self._matrix @ v
            return found if self._is_covariance else self._matrix.T @ found

        once = LinearOperator(
            (n, n), matvec=lambda v: times_c_transposed(times_s(times_c(v.ravel()))), dtype=np.float64
        )
        num_vectors = min(n, max(2 * self.d + 2, 10))
        values, axes = eigsh(once, self.d, v0=self._start, ncv=num_vectors, tol=1e-9)
        self._start = axes.sum(1)
        kept = times_s(times_c(axes)) / np.sqrt(np.maximum(values, np.finfo(float).tiny))
        rows: Array = kept.T[::-1].copy()
        return rows

    def _factor(self, p: TorchDistribution) -> tuple[Array, Array]:
        """The diagonal of C and the entries below it."""
        from scipy.linalg import cholesky_banded

        probes = torch.eye(3, dtype=torch.float64).repeat(1, -(-p.event_shape[0] // 3))[:, : p.event_shape[0]]
        columns = solve_noise(p, probes).numpy()  # three apart do not touch in Q
        at = np.arange(columns.shape[1])
        bands = np.stack([columns[at % 3, at], np.append(columns[at[:-1] % 3, at[1:]], 0.0)])
        factor = cholesky_banded(bands, lower=True)
        return factor[0], factor[1, :-1]

    def loadings(self, p: TorchDistribution) -> Tensor:
        """The likeliest A, shape (n, d), its columns by falling share: the kept rows, √λ long, made √(λ − 1)."""
        kept = torch.from_numpy(self._kept(p))
        values = 2 * (p.log_prob(torch.zeros_like(p.mean)) - p.log_prob(kept))
        found: Tensor = kept * ((values - 1).clamp_min(0) / values).sqrt().unsqueeze(-1)
        return found.T


def _rows_of_band(diagonal: Array, beside: Array) -> tuple[Array, Array]:
    """Rows v and signs s with Σ s vᵀQv = tr QS for every tridiagonal Q, from S's diagonal and the entries beside it.

    Entries of a row that are two apart or more do not meet in Q. Three rows hold every third pair of neighbours, four
    what these leave of the diagonal, above and below 0, its even and its odd entries.
    """
    n, root = len(diagonal), np.sqrt(np.abs(beside))
    pairs = np.zeros((3, n))
    left = diagonal.copy()
    for k in range(3):
        at = np.arange(k, n - 1, 3)
        pairs[k, at], pairs[k, at + 1] = root[at], np.sign(beside[at]) * root[at]
    left -= (pairs**2).sum(0)
    even = np.arange(n) % 2 == 0
    own = [np.sqrt(np.where(chosen, np.maximum(sign * left, 0), 0)) for sign in (1, -1) for chosen in (even, ~even)]
    return np.concatenate([pairs, np.stack(own)]), np.array([1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
