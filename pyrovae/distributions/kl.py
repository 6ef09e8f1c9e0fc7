"""Closed-form Kullback–Leibler divergences between structured Gaussians, in nats.

Each is registered with :func:`torch.distributions.kl.register_kl`, so ``kl_divergence`` and Pyro's estimators find it.
With those of torch and Pyro, every ordered pair of independent Normals, ``MultivariateNormal``,
``LowRankMultivariateNormal``, :class:`AR1Normal` and :class:`MarkovNormal` has one. The general form is
KL(q ‖ p) = ½[log det Σ_p − log det Σ_q − d + tr(Σ_p⁻¹ Σ_q) + (μ_q − μ_p)ᵀ Σ_p⁻¹ (μ_q − μ_p)].

============  =======================================================================  ===============
against p     what it uses of q                                                        cost a datum
============  =======================================================================  ===============
independent   mean, variances, log det: no factorisation, no solve                     O(d), reading q
AR(1)         also the variances of neighbours' differences, off Σ_q's factor          O(d), reading q
low rank      AR(1) and independent q through their factor, by Woodbury's identity     O(d r²)
dense         AR(1) q through its covariance                                           O(d²) after p's
Markov        q's own blocks; of a dense q, its factor's columns                       O(T k³); O(T² k³)
============  =======================================================================  ===============
"""

from collections.abc import Callable
from functools import singledispatch
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, MultivariateNormal, Normal
from torch.distributions.kl import register_kl

from pyrovae.distributions.ar1 import AR1Normal, ar1_factor_transpose, log_sech
from pyrovae.distributions.cholesky import CholeskyNormal
from pyrovae.distributions.markov import MarkovNormal
from pyrovae.errors import InputError

Q = TypeVar("Q", bound=Distribution)
P = TypeVar("P", bound=Distribution)


def normal_of(distribution: Distribution) -> Normal:
    """The Normal inside ``Normal(…).to_event(1)``; other Independents have no closed form here."""
    assert isinstance(distribution, Independent)
    if isinstance(distribution.base_dist, Normal) and distribution.reinterpreted_batch_ndims == 1:
        return distribution.base_dist
    raise NotImplementedError


@singledispatch
def half_log_det(q: Distribution) -> Tensor:
    """½ log det Σ, broadcastable to the batch shape."""
    raise NotImplementedError


@half_log_det.register
def _(q: Normal) -> Tensor:
    return q.scale.log().sum(-1)


@half_log_det.register
def _(q: AR1Normal | CholeskyNormal | MarkovNormal) -> Tensor:
    return q._half_log_det


@half_log_det.register
def _(q: MultivariateNormal) -> Tensor:
    return q._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@half_log_det.register
def _(q: LowRankMultivariateNormal) -> Tensor:
    # the matrix determinant lemma, with the factor of I + Wᵀ D⁻¹ W that q already has
    inner = q._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return inner + 0.5 * q._unbroadcasted_cov_diag.log().sum(-1)


@singledispatch
def _innovations(q: Distribution, left: Tensor, right: Tensor) -> Tensor:
    """Var(left_j z_{j+1} − right_j z_j) under q, j = 0 … d−2, as a sum of squares: (*batch, d−1)."""
    raise NotImplementedError


@_innovations.register
def _(q: Normal, left: Tensor, right: Tensor) -> Tensor:
    return (left * q.scale[..., 1:]).square() + (right * q.scale[..., :-1]).square()


@_innovations.register
def _(q: MultivariateNormal, left: Tensor, right: Tensor) -> Tensor:
    factor = q._unbroadcasted_scale_tril
    rows = left.unsqueeze(-1) * factor[..., 1:, :] - right.unsqueeze(-1) * factor[..., :-1, :]
    return rows.square().sum(-1)


@_innovations.register
def _(q: LowRankMultivariateNormal, left: Tensor, right: Tensor) -> Tensor:
    factor, diagonal = q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag
    rows = left.unsqueeze(-1) * factor[..., 1:, :] - right.unsqueeze(-1) * factor[..., :-1, :]
    independent = left.square() * diagonal[..., 1:] + right.square() * diagonal[..., :-1]
    return independent + rows.square().sum(-1)


def closed_form(type_q: type, type_p: type) -> Callable[[Callable[[Q, P], Tensor]], Callable[[Q, P], Tensor]]:
    """Register a divergence between distributions on vectors of one length."""

    def decorator(function: Callable[[Q, P], Tensor]) -> Callable[[Q, P], Tensor]:
        def checked(q: Q, p: P) -> Tensor:
            if q.event_shape != p.event_shape:
                raise InputError(f"KL between event shapes {tuple(q.event_shape)} and {tuple(p.event_shape)}")
            return function(q, p)

        register_kl(type_q, type_p)(checked)
        return function

    return decorator


@closed_form(AR1Normal, Independent)
@closed_form(MultivariateNormal, Independent)
@closed_form(LowRankMultivariateNormal, Independent)
@closed_form(MarkovNormal, Independent)
def _kl_gaussian_independent(q: Distribution, p: Distribution) -> Tensor:
    """½ Σ_i [(Σ_ii + (μ_i − m_i)²)/s_i² − 1] + Σ_i log s_i − ½ log det Σ."""
    base = normal_of(p)
    second_moment = (q.variance + (q.mean - base.loc).square()) / base.scale.square()
    return 0.5 * (second_moment.sum(-1) - q.event_shape[0]) + half_log_det(base) - half_log_det(q)


@closed_form(AR1Normal, AR1Normal)
def _kl_ar1_ar1(q: AR1Normal, p: AR1Normal) -> Tensor:
    """O(d), as a sum of squares that is exact even where correlations round to ±1.

    With z = arctanh ρ, s = σ/σ' and m = (μ − μ')/σ' (primes for p), step j adds to ½[…]
    E[(u_j − ρ'u_{j−1})²]/(1 − ρ'²) = (s_j g/g')² + (s_j (ρ − ρ')/g' + sinh z' (s_j − s_{j−1}))²
    + (m_j cosh z' − m_{j−1} sinh z')², where g = 1/cosh z.
    """
    ratio = q.scale / p.scale
    ratio = ratio.expand((*ratio.shape[:-1], q.event_shape[0]))
    cosh, sinh = p.fisher_z.cosh(), p.fisher_z.sinh()
    kept = ratio[..., 1:] * q._innovation_scale * cosh
    moved = ratio[..., 1:] * _scaled_difference(q, p) + sinh * (ratio[..., 1:] - ratio[..., :-1])
    expected = ratio[..., 0].square() + (kept.square() + moved.square()).sum(-1)
    return _kl_to_ar1(expected, q, p)


def _scaled_difference(q: AR1Normal, p: AR1Normal) -> Tensor:
    """(ρ − ρ')/√(1 − ρ'²), without cancellation and with finite gradients up to |z| = 40 in float32.

    If z and z' have the same sign, sinh(z − z')/cosh z keeps the digits of a small difference. If not,
    tanh z cosh z' − sinh z' avoids the product of a huge and a tiny number.
    """
    z, other = torch.broadcast_tensors(q.fisher_z, p.fisher_z)
    same_side = z * other > 0
    near = torch.where(same_side, z, other)
    return torch.where(same_side, (near - other).sinh() * log_sech(near).exp(), z.tanh() * other.cosh() - other.sinh())


@closed_form(Independent, AR1Normal)
@closed_form(MultivariateNormal, AR1Normal)
@closed_form(LowRankMultivariateNormal, AR1Normal)
def _kl_gaussian_ar1(q: Distribution, p: AR1Normal) -> Tensor:
    """From q's variances and the variances of z_j/σ'_j − ρ' z_{j−1}/σ'_{j−1}, taken from its factor."""
    q = normal_of(q) if isinstance(q, Independent) else q
    d = p.event_shape[0]
    inverse_scale = p.scale.reciprocal().expand((*p.scale.shape[:-1], d))
    cosh, sinh = p.fisher_z.cosh(), p.fisher_z.sinh()
    steps = _innovations(q, cosh * inverse_scale[..., 1:], sinh * inverse_scale[..., :-1])
    return _kl_to_ar1(q.variance[..., 0] * inverse_scale[..., 0].square() + steps.sum(-1), q, p)


def _kl_to_ar1(expected: Tensor, q: Distribution, p: AR1Normal) -> Tensor:
    """The divergence, given the sum of E_q of the squared innovations of z − μ_q under p."""
    mean = (q.mean - p.loc) / p.scale
    shifted = mean[..., 1:] * p.fisher_z.cosh() - mean[..., :-1] * p.fisher_z.sinh()
    quadratic = expected + mean[..., 0].square() + shifted.square().sum(-1)
    return 0.5 * (quadratic - p.event_shape[0]) + half_log_det(p) - half_log_det(q)


@closed_form(AR1Normal, MultivariateNormal)
def _kl_ar1_multivariate(q: AR1Normal, p: MultivariateNormal) -> Tensor:
    factor = p._unbroadcasted_scale_tril
    precision = torch.cholesky_inverse(factor)
    trace = (precision * q.covariance_matrix).sum((-2, -1))
    difference = (q.loc - p.loc).unsqueeze(-1)
    mahalanobis = (difference.mT @ precision @ difference).squeeze(-1).squeeze(-1)
    return 0.5 * (trace + mahalanobis - q.event_shape[0]) + half_log_det(p) - half_log_det(q)


@closed_form(AR1Normal, LowRankMultivariateNormal)
@closed_form(Independent, LowRankMultivariateNormal)
def _kl_gaussian_low_rank(q: Distribution, p: LowRankMultivariateNormal) -> Tensor:
    """O(d r²) by Woodbury: Σ_p⁻¹ = D⁻¹ − D⁻¹W (I + WᵀD⁻¹W)⁻¹ WᵀD⁻¹."""
    base = q if isinstance(q, AR1Normal) else normal_of(q)
    diagonal = p._unbroadcasted_cov_diag
    weighted = p._unbroadcasted_cov_factor.mT / diagonal.unsqueeze(-2)  # WᵀD⁻¹, (*batch, r, d)
    spread = ar1_factor_transpose(q, weighted) if isinstance(q, AR1Normal) else weighted * base.scale.unsqueeze(-2)
    difference = q.mean - p.loc
    shift = weighted @ difference.unsqueeze(-1)
    batch = torch.broadcast_shapes(spread.shape[:-2], shift.shape[:-2])
    inner = torch.cat([part.expand(*batch, *part.shape[-2:]) for part in (spread, shift)], dim=-1)
    reduction = torch.linalg.solve_triangular(p._capacitance_tril, inner, upper=False).square().sum((-2, -1))
    quadratic = ((q.variance + difference.square()) / diagonal).sum(-1) - reduction
    return 0.5 * (quadratic - p.event_shape[0]) + half_log_det(p) - half_log_det(base)
