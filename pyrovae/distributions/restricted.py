"""The marginal distribution of some channels, in the same form as the full one."""

from functools import singledispatch

import torch
from pyro.distributions import Independent, MultivariateNormal, Normal, TorchDistribution, TransformedDistribution
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal
from torch.distributions.transforms import AffineTransform

from pyrovae.distributions.ar1 import AR1Normal
from pyrovae.distributions.isotropic import IsotropicNormal
from pyrovae.distributions.low_rank import LowRankNormal
from pyrovae.distributions.moments import covariance_of
from pyrovae.distributions.partial import given_last_observed
from pyrovae.errors import InputTypeError


def restricted(p: TorchDistribution, channels: Tensor) -> TorchDistribution:
    """The distribution of some entries of x ~ p, exactly.

    Independent channels stay independent, low rank stays low rank, and AR(1) stays AR(1), with the product of ρ over
    each gap. For any other Gaussian, the block of the dense covariance is factorised again.

    Args:
        p: a Gaussian, of batch shape ().
        channels: which entries, booleans of shape (n,), at least one.

    Raises:
        InputTypeError: the distribution is not Gaussian.

    Example:
        >>> p = AR1Normal(torch.zeros(3), 1.0, correlation=0.5)
        >>> restricted(p, torch.tensor([True, False, True])).correlation
        tensor([0.2500])
    """
    return _restricted(p, channels.nonzero().squeeze(-1))


@singledispatch
def _restricted(p: TorchDistribution, kept: Tensor) -> TorchDistribution:
    raise InputTypeError(f"the distribution of some entries of a {type(p).__name__} is not known")


@_restricted.register
def _(p: IsotropicNormal, kept: Tensor) -> IsotropicNormal:
    return IsotropicNormal(p._loc[kept], p._scale)


@_restricted.register(Independent)
def _(p: Independent, kept: Tensor) -> Independent:
    if not isinstance(p.base_dist, Normal):
        raise InputTypeError(f"the distribution of some entries of a {type(p.base_dist).__name__} is not known")
    return Normal(p.mean[kept], p.stddev[kept]).to_event(1)


@_restricted.register
def _(p: AR1Normal, kept: Tensor) -> AR1Normal:
    ones = p.loc.new_ones(p.event_shape)
    observed = torch.zeros_like(ones, dtype=torch.bool).index_fill(0, kept, True)
    correlation, variance = (found[kept[1:]] for found in given_last_observed(p, ones, observed))
    # Fisher's z from 1 − ρ², which keeps its digits where ρ is near ±1
    fisher_z = correlation.sign() * (torch.log1p(correlation.abs()) - 0.5 * variance.log())
    return AR1Normal(p.loc[kept], p.scale.expand(p.event_shape)[kept], fisher_z=fisher_z)


@_restricted.register
def _(p: LowRankMultivariateNormal, kept: Tensor) -> LowRankNormal:
    return LowRankNormal(p.loc[kept], p._unbroadcasted_cov_factor[kept], p._unbroadcasted_cov_diag[kept])


@_restricted.register
def _(p: MultivariateNormal, kept: Tensor) -> MultivariateNormal:
    return MultivariateNormal(p.loc[kept], covariance_of(p)[kept][:, kept])


@_restricted.register
def _(p: TransformedDistribution, kept: Tensor) -> TransformedDistribution:
    (transform,) = p.transforms
    if not isinstance(transform, AffineTransform) or not isinstance(transform.scale, float):
        raise InputTypeError("the distribution of some entries is known after one affine transform of numbers alone")
    return TransformedDistribution(_restricted(p.base_dist, kept), [transform])
