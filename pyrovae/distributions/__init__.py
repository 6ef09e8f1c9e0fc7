"""Structured Gaussian distributions, the Kullback–Leibler divergences between them, and the continuous Bernoulli."""

from pyrovae.distributions import kl as kl  # registers the divergences
from pyrovae.distributions.ar1 import AR1Normal
from pyrovae.distributions.cholesky import CholeskyNormal
from pyrovae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyrovae.distributions.isotropic import IsotropicNormal
from pyrovae.distributions.moments import covariance_of, mean_of

__all__ = ["AR1Normal", "CholeskyNormal", "ContinuousBernoulli", "IsotropicNormal", "covariance_of", "mean_of"]
