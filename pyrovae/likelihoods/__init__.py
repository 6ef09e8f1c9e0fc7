"""Likelihoods p(x|z), one a file; each maps the decoder's features to a distribution."""

from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.bernoulli import BernoulliLikelihood
from pyrovae.likelihoods.gaussian import GaussianLikelihood

__all__ = ["BernoulliLikelihood", "GaussianLikelihood", "Likelihood"]
