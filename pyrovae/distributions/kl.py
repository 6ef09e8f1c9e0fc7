"""Closed-form Kullback–Leibler divergences between structured Gaussians, in nats.

Each is registered with :func:`torch.distributions.kl.register_kl`, so ``kl_divergence`` and Pyro's
estimators find it. The general form is
KL(q ‖ p) = ½[log det Σ_p − log det Σ_q − d + tr(Σ_p⁻¹ Σ_q) + (μ_q − μ_p)ᵀ Σ_p⁻¹ (μ_q − μ_p)].
Against an independent Normal only q's mean, marginal variances and log-determinant enter: neither a
factorisation nor a solve is needed.
"""

from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, register_kl

from pyrovae.distributions.ar1 import AR1Normal


def _as_normal(p: Independent) -> Normal:
    """The Normal inside ``Normal(…).to_event(1)``; any other Independent has no closed form here."""
    if isinstance(p.base_dist, Normal) and p.reinterpreted_batch_ndims == 1:
        return p.base_dist
    raise NotImplementedError


def _kl_to_independent_normal(q: AR1Normal | MultivariateNormal, half_log_det: Tensor, p: Normal) -> Tensor:
    """½ Σ_i [(Σ_ii + (μ_i − m_i)²)/s_i² − 1] + Σ_i log s_i − ½ log det Σ."""
    second_moment = (q.variance + (q.mean - p.loc).square()) / p.scale.square()
    return (0.5 * (second_moment - 1) + p.scale.log()).sum(-1) - half_log_det


@register_kl(AR1Normal, Independent)
def _kl_ar1_independent(q: AR1Normal, p: Independent) -> Tensor:
    return _kl_to_independent_normal(q, q._half_log_det, _as_normal(p))


@register_kl(MultivariateNormal, Independent)
def _kl_multivariate_independent(q: MultivariateNormal, p: Independent) -> Tensor:
    half_log_det = q._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl_to_independent_normal(q, half_log_det, _as_normal(p))
