"""Distributions on vectors with missing entries."""

import math
from functools import singledispatch

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, MultivariateNormal, constraints

from pyrovae.distributions._recurrence import linear_recurrence
from pyrovae.distributions.ar1 import AR1Normal
from pyrovae.distributions.moments import covariance_of
from pyrovae.errors import InputTypeError


class PartiallyObserved(TorchDistribution):
    """A distribution whose ``log_prob`` treats NaN as missing and returns the density of the other entries.

    Log p(x_O) = log ∫ p(x) dx_M over the missing entries M, exact and in closed form; draws are complete.

    ============  =================================================================  =====================
    base          how                                                                cost a datum
    ============  =================================================================  =====================
    independent   the terms of the observed entries: ``base.mask(observed)``         O(d)
    AR(1)         ρ multiplies up over a gap, in logarithmically many vector steps   O(d log d), memory O(d)
    low rank      the rows of the observed entries alone                             O(d r²)
    dense         a Cholesky factor of each datum's own Σ_OO                         O(d³), memory O(d²)
    ============  =================================================================  =====================

    Args:
        base: independent (``to_event(1)``), :class:`AR1Normal`, ``LowRankMultivariateNormal`` or
            ``MultivariateNormal``, with event_dim 1.

    Raises:
        InputTypeError: the base has no closed-form density of a subset of its entries.

    Example:
        >>> x = torch.tensor([0.3, math.nan, 0.1])
        >>> p = AR1Normal(torch.zeros(3), 1.0, correlation=0.5)
        >>> ends = AR1Normal(torch.zeros(2), 1.0, correlation=0.25)
        >>> torch.allclose(PartiallyObserved(p).log_prob(x), ends.log_prob(x[::2]))
        True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own convention)

    def __init__(self, base: TorchDistribution, validate_args: bool | None = None) -> None:
        unknown = _marginal_log_prob.dispatch(type(base)) is _marginal_log_prob.dispatch(object)
        if unknown or base.event_dim != 1:
            raise InputTypeError(
                f"the density of some entries of a {type(base).__name__} is not known; give complete data"
            )
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:
        """Support of the base."""
        return self.base.has_rsample

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """That of the base, for complete data."""
        return self.base.support

    @property
    def mean(self) -> Tensor:
        """Mean of complete data."""
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        """Variance of complete data."""
        return self.base.variance

    @property
    def covariance_matrix(self) -> Tensor:
        """Covariance of complete data, shape (*batch, d, d)."""
        return covariance_of(self.base)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draw complete data."""
        return self.base.sample(sample_shape)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw complete data."""
        return self.base.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of the entries that are not NaN, in nats, shape (*sample, *batch); 0 where none is."""
        observed = ~value.isnan()
        # missing entries become 0 before any arithmetic: NaN times 0 would give a NaN gradient
        return _marginal_log_prob(self.base, torch.where(observed, value, 0.0), observed)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "PartiallyObserved":
        """The same distribution with its batch shape broadcast to ``batch_shape``."""
        return PartiallyObserved(self.base.expand(batch_shape), validate_args=self._validate_args)


@singledispatch
def _marginal_log_prob(base: Distribution, value: Tensor, observed: Tensor) -> Tensor:
    """Log-density of the observed entries; value and mask have shape (*sample, *batch, d), the value is 0 elsewhere."""
    raise NotImplementedError


@_marginal_log_prob.register(Independent)
def _(base: Independent[Distribution], value: Tensor, observed: Tensor) -> Tensor:
    return torch.where(observed, base.base_dist.log_prob(value), 0.0).sum(-1)


@_marginal_log_prob.register
def _(base: AR1Normal, value: Tensor, observed: Tensor) -> Tensor:
    """Each observed u_j given the last observed one before it."""
    u, observed = torch.broadcast_tensors((value - base.loc) / base.scale, observed)
    mean, variance = given_last_observed(base, u, observed)
    terms = (u - mean).square() / variance + variance.log() + 2 * base.scale.log() + math.log(2 * math.pi)
    return -0.5 * torch.where(observed, terms, 0.0).sum(-1)


def given_last_observed(p: AR1Normal, u: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Mean m_j and variance v_j of each u_j = (x_j − μ_j)/σ_j given the last observed one before it, by recurrences.

    m_j = ρ_{j−1} (u_{j−1} if observed, else m_{j−1}) and v_j = 1 − ρ_{j−1}² + ρ_{j−1}² (0 if observed, else
    v_{j−1}), from m_0 = 0, v_0 = 1: sums of positive terms, so nothing cancels where ρ is near 1.

    Args:
        p: the distribution of x.
        u: shape (*batch, d), 0 where nothing is observed.
        observed: booleans of that shape.
    """
    seen = observed[..., :-1].to(u)
    correlation, innovation = p.correlation, p._innovation_scale.square()
    start = u[..., :1]
    known = torch.cat([torch.zeros_like(start), correlation * seen * u[..., :-1]], dim=-1)
    added = torch.cat([torch.ones_like(start), innovation.expand_as(seen)], dim=-1)
    gap = correlation * (1 - seen)
    return linear_recurrence(gap, known), linear_recurrence(correlation * gap, added)


@_marginal_log_prob.register
def _(base: LowRankMultivariateNormal, value: Tensor, observed: Tensor) -> Tensor:
    """The rows of W and D of the observed entries, the others left out of every sum."""
    factor, diagonal = base._unbroadcasted_cov_factor, base._unbroadcasted_cov_diag
    precision = torch.where(observed, diagonal.reciprocal(), 0.0)  # 0 for an entry of infinite variance
    weighted = factor * precision.unsqueeze(-1)
    inner = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device) + factor.mT @ weighted
    inner_tril = torch.linalg.cholesky(inner)
    difference = value - base.loc
    shift = torch.linalg.solve_triangular(inner_tril, weighted.mT @ difference.unsqueeze(-1), upper=False)
    squares = (precision * difference.square()).sum(-1) - shift.square().sum((-2, -1))
    log_det = 2 * inner_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_det = log_det + torch.where(observed, diagonal.log() + math.log(2 * math.pi), 0.0).sum(-1)
    return -0.5 * (squares + log_det)


@_marginal_log_prob.register
def _(base: MultivariateNormal, value: Tensor, observed: Tensor) -> Tensor:
    """Σ_OO in the place of Σ; missing entries become independent with variance 1 and are left out of the sum.

    Its factor is Rᵀ of [L_O, I_M]ᵀ = QR: a Cholesky factorisation of LLᵀ would square the condition number.
    """
    factor = base._unbroadcasted_scale_tril
    seen = observed.to(factor)
    rows = seen.unsqueeze(-1) * factor
    _, upper = torch.linalg.qr(torch.cat([rows, (1 - seen).diag_embed().expand_as(rows)], dim=-1).mT)
    difference = (seen * (value - base.loc)).unsqueeze(-1)
    squares = torch.linalg.solve_triangular(upper.mT, difference, upper=False).square().sum((-2, -1))
    half_log_det = upper.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    return -0.5 * (squares + seen.sum(-1) * math.log(2 * math.pi)) - half_log_det
