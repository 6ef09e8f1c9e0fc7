"""Structured Gaussian distributions, the divergences between them, and distributions of grey values and counts."""

from pyrovae.distributions import kl as kl  # registers the divergences
from pyrovae.distributions.ar1 import AR1Normal, bounded_fisher_z
from pyrovae.distributions.cholesky import CholeskyNormal, fill_scale_tril, fixed_draw, tril_position
from pyrovae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyrovae.distributions.counts import NegativeBinomial, Poisson
from pyrovae.distributions.isotropic import IsotropicNormal
from pyrovae.distributions.low_rank import LowRankNormal
from pyrovae.distributions.moments import covariance_of, mean_of
from pyrovae.distributions.partial import PartiallyObserved

__all__ = [
    "AR1Normal",
    "CholeskyNormal",
    "ContinuousBernoulli",
    "IsotropicNormal",
    "LowRankNormal",
    "NegativeBinomial",
    "PartiallyObserved",
    "Poisson",
    "bounded_fisher_z",
    "covariance_of",
    "fill_scale_tril",
    "fixed_draw",
    "mean_of",
    "tril_position",
]
