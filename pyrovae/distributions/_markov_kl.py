"""Closed-form divergences from a Gaussian Markov chain of vectors, in nats."""

from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, MultivariateNormal, Normal

from pyrovae.distributions.ar1 import AR1Normal
from pyrovae.distributions.kl import closed_form, half_log_det, normal_of
from pyrovae.distributions.markov import MarkovNormal


@closed_form(Independent, MarkovNormal)
@closed_form(AR1Normal, MarkovNormal)
@closed_form(MarkovNormal, MarkovNormal)
@closed_form(MultivariateNormal, MarkovNormal)
@closed_form(LowRankMultivariateNormal, MarkovNormal)
def _kl_to_markov(q: Distribution, p: MarkovNormal) -> Tensor:
    """The covariance of q enters through E‖w‖², where w is z − μ_q whitened by p."""
    q = normal_of(q) if isinstance(q, Independent) else q
    first, shifted = p.white(q.mean - p.loc)
    quadratic = _squares(q, p) + first.square().sum(-1) + shifted.square().sum((-2, -1))
    return 0.5 * (quadratic - p.event_shape[0]) + half_log_det(p) - half_log_det(q)


@closed_form(MarkovNormal, AR1Normal)
def _kl_markov_ar1(q: MarkovNormal, p: AR1Normal) -> Tensor:
    return _kl_to_markov(q, _as_chain(p, q.num_steps, q.channels))


@closed_form(MarkovNormal, MultivariateNormal)
@closed_form(MarkovNormal, LowRankMultivariateNormal)
def _kl_markov_dense(q: MarkovNormal, p: MultivariateNormal) -> Tensor:
    """Through q's dense covariance, O(T² k²) after p's precision."""
    precision, difference = p.precision_matrix, (q.loc - p.loc).unsqueeze(-1)
    mahalanobis = (difference.mT @ precision @ difference).squeeze(-1).squeeze(-1)
    trace = (precision * q.covariance_matrix).sum((-2, -1))
    return 0.5 * (trace + mahalanobis - q.event_shape[0]) + half_log_det(p) - half_log_det(q)


@singledispatch
def _squares(q: Distribution, p: MarkovNormal) -> Tensor:
    """E_q‖w‖² of z − μ_q, as a sum of squares without a subtraction."""
    return _squares(_as_chain(q, p.num_steps, p.channels), p)


@_squares.register
def _(q: MarkovNormal, p: MarkovNormal) -> Tensor:
    """‖S'₀⁻¹S₀‖² + Σ_t ‖G'ᵀS'_t⁻¹S_t H‖² + ‖G'ᵀ(S'_t⁻¹S_t K − K'S'_{t−1}⁻¹S_{t−1})‖², primes for p."""
    if (q.num_steps, q.channels) != (p.num_steps, p.channels):
        raise NotImplementedError
    ratio = torch.linalg.solve_triangular(p.marginal_scale_tril, q.marginal_scale_tril, upper=False)
    whitening, later, earlier = p.innovation_precision_factor.mT, ratio[..., 1:, :, :], ratio[..., :-1, :, :]
    kept = whitening @ later @ q.innovation_factor
    moved = whitening @ (later @ q.contraction - p.contraction @ earlier)
    parts = [part.square().sum((-3, -2, -1)) for part in (ratio[..., :1, :, :], kept, moved)]
    return parts[0] + parts[1] + parts[2]


@_squares.register
def _(q: MultivariateNormal, p: MarkovNormal) -> Tensor:
    return _squares_of_columns(q._unbroadcasted_scale_tril, p)


@_squares.register
def _(q: LowRankMultivariateNormal, p: MarkovNormal) -> Tensor:
    scale = q._unbroadcasted_cov_diag.sqrt()
    independent = _squares(Normal(torch.zeros_like(scale), scale), p)
    return independent + _squares_of_columns(q._unbroadcasted_cov_factor, p)


def _squares_of_columns(factor: Tensor, p: MarkovNormal) -> Tensor:
    """Σ over the columns of F (*batch, d, r) of ‖w‖²."""
    first, others = p.white(factor.mT, extra_axis=True)
    return first.square().sum((-2, -1)) + others.square().sum((-3, -2, -1))


@singledispatch
def _as_chain(q: Distribution, num_steps: int, channels: int) -> MarkovNormal:
    """The distribution as a chain of T steps with k numbers each."""
    raise NotImplementedError


@_as_chain.register
def _(q: Normal, num_steps: int, channels: int) -> MarkovNormal:
    scale = q.scale.unflatten(-1, (num_steps, channels)).diag_embed()
    return MarkovNormal(q.loc, scale, torch.zeros_like(scale[..., 1:, :, :]), validate_args=False)


@_as_chain.register
def _(q: AR1Normal, num_steps: int, channels: int) -> MarkovNormal:
    if channels > 1:  # its neighbours are channels of one step
        raise NotImplementedError
    scale = q.scale.expand((*q.scale.shape[:-1], num_steps))
    fisher_z = q.fisher_z.expand((*q.fisher_z.shape[:-1], num_steps - 1))
    return MarkovNormal(q.loc, scale[..., None, None], fisher_z.sinh()[..., None, None], validate_args=False)
