"""Structured Gaussian distributions, their divergences, and distributions of grey values and counts."""

from pyrovae.distributions import _markov_kl as _markov_kl  # registers the divergences
from pyrovae.distributions import kl as kl
from pyrovae.distributions.ar1 import AR1Normal, bounded_fisher_z
from pyrovae.distributions.cholesky import CholeskyNormal, fill_scale_tril, fixed_draw, tril_position
from pyrovae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyrovae.distributions.counts import NegativeBinomial, Poisson
from pyrovae.distributions.isotropic import IsotropicNormal
from pyrovae.distributions.low_rank import LowRankNormal
from pyrovae.distributions.markov import MarkovNormal
from pyrovae.distributions.moments import covariance_of, is_tridiagonal, mean_of, trace_with
from pyrovae.distributions.partial import PartiallyObserved

__all__ = [
    "AR1Normal",
    "CholeskyNormal",
    "ContinuousBernoulli",
    "IsotropicNormal",
    "LowRankNormal",
    "MarkovNormal",
    "NegativeBinomial",
    "PartiallyObserved",
    "Poisson",
    "bounded_fisher_z",
    "covariance_of",
    "fill_scale_tril",
    "fixed_draw",
    "is_tridiagonal",
    "mean_of",
    "trace_with",
    "tril_position",
]
