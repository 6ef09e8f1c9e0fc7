"""Likelihoods p(x|z), one a file; each maps the decoder's features to a distribution."""

from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.bernoulli import BernoulliLikelihood
from pyrovae.likelihoods.categorical import CategoricalLikelihood
from pyrovae.likelihoods.continuous_bernoulli import ContinuousBernoulliLikelihood
from pyrovae.likelihoods.gaussian import GaussianLikelihood

__all__ = [
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "GaussianLikelihood",
    "Likelihood",
]
