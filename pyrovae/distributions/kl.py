"""Closed-form Kullback–Leibler divergences between structured Gaussians, in nats.

Each is registered with :func:`torch.distributions.kl.register_kl`, so ``kl_divergence`` and Pyro's
estimators find it; together with those of torch and Pyro every ordered pair of independent Normals,
``MultivariateNormal``, ``LowRankMultivariateNormal`` and :class:`AR1Normal` has one. The general form is
KL(q ‖ p) = ½[log det Σ_p − log det Σ_q − d + tr(Σ_p⁻¹ Σ_q) + (μ_q − μ_p)ᵀ Σ_p⁻¹ (μ_q − μ_p)].

============  =======================================================================  ===============
against p     what enters of q                                                         cost a datum
============  =======================================================================  ===============
independent   mean, variances, log det: no factorisation, no solve                     O(d), reading q
AR(1)         also the first off-diagonal of Σ_q                                       O(d), reading q
low rank      AR(1) and independent q through their factor, by Woodbury's identity     O(d r²)
dense         AR(1) q through its covariance                                           O(d²) after p's
============  =======================================================================  ===============
"""

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    register_kl,
)

from pyrovae.distributions.ar1 import AR1Normal, ar1_factor_transpose
from pyrovae.distributions.cholesky import CholeskyNormal


def _as_normal(distribution: Any) -> Any:
    """The Normal inside ``Normal(…).to_event(1)``; other Independents have no closed form here."""
    if not isinstance(distribution, Independent):
        return distribution
    if isinstance(distribution.base_dist, Normal) and distribution.reinterpreted_batch_ndims == 1:
        return distribution.base_dist
    raise NotImplementedError


@singledispatch
def _half_log_det(q: Any) -> Tensor:
    """½ log det Σ, broadcastable to the batch shape."""
    raise NotImplementedError


@_half_log_det.register
def _(q: Normal) -> Tensor:
    return q.scale.log().sum(-1)


@_half_log_det.register
def _(q: AR1Normal) -> Tensor:
    return q._half_log_det


@_half_log_det.register
def _(q: CholeskyNormal) -> Tensor:
    return q._half_log_det


@_half_log_det.register
def _(q: MultivariateNormal) -> Tensor:
    return q._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@_half_log_det.register
def _(q: LowRankMultivariateNormal) -> Tensor:
    # the matrix determinant lemma, with the factor of I + Wᵀ D⁻¹ W that q already holds
    inner = q._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return inner + 0.5 * q._unbroadcasted_cov_diag.log().sum(-1)


@singledispatch
def _first_off_diagonal(q: Any) -> Tensor:
    """Σ_{i,i+1}, broadcastable to (*batch, d−1)."""
    raise NotImplementedError


@_first_off_diagonal.register
def _(q: Normal) -> Tensor:
    return torch.zeros_like(q.scale[..., 1:])


@_first_off_diagonal.register
def _(q: MultivariateNormal) -> Tensor:
    factor = q._unbroadcasted_scale_tril
    return (factor[..., 1:, :] * factor[..., :-1, :]).sum(-1)


@_first_off_diagonal.register
def _(q: LowRankMultivariateNormal) -> Tensor:
    factor = q._unbroadcasted_cov_factor
    return (factor[..., 1:, :] * factor[..., :-1, :]).sum(-1)


@register_kl(AR1Normal, Independent)
@register_kl(MultivariateNormal, Independent)
@register_kl(LowRankMultivariateNormal, Independent)
def _kl_gaussian_independent(q: Any, p: Independent) -> Tensor:
    """½ Σ_i [(Σ_ii + (μ_i − m_i)²)/s_i² − 1] + Σ_i log s_i − ½ log det Σ."""
    base = _as_normal(p)
    second_moment = (q.variance + (q.mean - base.loc).square()) / base.scale.square()
    return 0.5 * (second_moment.sum(-1) - q.event_shape[0]) + _half_log_det(base) - _half_log_det(q)


@register_kl(AR1Normal, AR1Normal)
def _kl_ar1_ar1(q: AR1Normal, p: AR1Normal) -> Tensor:
    """O(d), as a sum of squares that stays exact where correlations round to ±1.

    With z = arctanh ρ, s = σ/σ' and m = (μ − μ')/σ' (primes for p), step j adds to ½[…]
    E[(u_j − ρ'u_{j−1})²]/(1 − ρ'²) = (s_j g/g')² + (s_j g sinh(z − z') + sinh z' (s_j − s_{j−1}))²
    + (m_j cosh z' − m_{j−1} sinh z')², where g = 1/cosh z.
    """
    ratio = (q.scale / p.scale).expand(torch.broadcast_shapes(q.loc.shape, p.loc.shape))
    mean = (q.loc - p.loc) / p.scale
    cosh, sinh = p.fisher_z.cosh(), p.fisher_z.sinh()
    innovation_scale = q._innovation_scale
    kept = ratio[..., 1:] * innovation_scale * cosh
    moved = ratio[..., 1:] * innovation_scale * (q.fisher_z - p.fisher_z).sinh()
    moved = moved + sinh * (ratio[..., 1:] - ratio[..., :-1])
    shifted = mean[..., 1:] * cosh - mean[..., :-1] * sinh
    steps = kept.square() + moved.square() + shifted.square()
    first = ratio[..., 0].square() + mean[..., 0].square()
    d = q.event_shape[0]
    return 0.5 * (first + steps.sum(-1) - d) + _half_log_det(p) - _half_log_det(q)


@register_kl(Independent, AR1Normal)
@register_kl(MultivariateNormal, AR1Normal)
@register_kl(LowRankMultivariateNormal, AR1Normal)
def _kl_gaussian_ar1(q: Any, p: AR1Normal) -> Tensor:
    """From the mean, the diagonal and the first off-diagonal of q's covariance alone.

    With s_j² = Σ_jj/σ'_j² and r_j the correlation of neighbours under q, step j adds to ½[…]
    s_j² (1 − r²) cosh² z' + (r s_j cosh z' − s_{j−1} sinh z')² and the mean's share as between AR(1)s.
    """
    q = _as_normal(q)
    standard = q.variance.sqrt()
    correlation = _first_off_diagonal(q) / (standard[..., 1:] * standard[..., :-1])
    ratio, mean = standard / p.scale, (q.mean - p.loc) / p.scale
    cosh, sinh = p.fisher_z.cosh(), p.fisher_z.sinh()
    steps = (ratio[..., 1:] * cosh).square() * (1 - correlation.square())
    steps = steps + (correlation * ratio[..., 1:] * cosh - ratio[..., :-1] * sinh).square()
    steps = steps + (mean[..., 1:] * cosh - mean[..., :-1] * sinh).square()
    first = ratio[..., 0].square() + mean[..., 0].square()
    d = p.event_shape[0]
    return 0.5 * (first + steps.sum(-1) - d) + _half_log_det(p) - _half_log_det(q)


@register_kl(AR1Normal, MultivariateNormal)
def _kl_ar1_multivariate(q: AR1Normal, p: MultivariateNormal) -> Tensor:
    factor = p._unbroadcasted_scale_tril
    precision = torch.cholesky_inverse(factor)
    trace = (precision * q.covariance_matrix).sum((-2, -1))
    difference = (q.loc - p.loc).unsqueeze(-1)
    mahalanobis = (difference.mT @ precision @ difference).squeeze(-1).squeeze(-1)
    return 0.5 * (trace + mahalanobis - q.event_shape[0]) + _half_log_det(p) - _half_log_det(q)


@register_kl(AR1Normal, LowRankMultivariateNormal)
@register_kl(Independent, LowRankMultivariateNormal)
def _kl_gaussian_low_rank(q: Any, p: LowRankMultivariateNormal) -> Tensor:
    """O(d r²) by Woodbury: Σ_p⁻¹ = D⁻¹ − D⁻¹W (I + WᵀD⁻¹W)⁻¹ WᵀD⁻¹."""
    q = _as_normal(q)
    diagonal = p._unbroadcasted_cov_diag
    weighted = p._unbroadcasted_cov_factor.mT / diagonal.unsqueeze(-2)  # WᵀD⁻¹, (*batch, r, d)
    spread = ar1_factor_transpose(q, weighted) if isinstance(q, AR1Normal) else weighted * q.scale.unsqueeze(-2)
    difference = q.mean - p.loc
    shift = (weighted @ difference.unsqueeze(-1)).expand((*spread.shape[:-1], 1))
    inner = torch.cat([spread, shift], dim=-1)
    reduction = torch.linalg.solve_triangular(p._capacitance_tril, inner, upper=False).square().sum((-2, -1))
    quadratic = ((q.variance + difference.square()) / diagonal).sum(-1) - reduction
    return 0.5 * (quadratic - p.event_shape[0]) + _half_log_det(p) - _half_log_det(q)
