"""Likelihoods p(x|z), one per file; each maps the decoder's features to a distribution."""

from collections.abc import Callable
from functools import partial

from pyrovae.likelihoods._counts import CountLikelihood
from pyrovae.likelihoods._noise import CovarianceLikelihood, GaussianNoiseLikelihood
from pyrovae.likelihoods.ar1 import AR1GaussianLikelihood
from pyrovae.likelihoods.base import Likelihood, gram
from pyrovae.likelihoods.bernoulli import BernoulliLikelihood
from pyrovae.likelihoods.categorical import CategoricalLikelihood
from pyrovae.likelihoods.continuous_bernoulli import ContinuousBernoulliLikelihood
from pyrovae.likelihoods.full_covariance import FullCovarianceGaussianLikelihood
from pyrovae.likelihoods.gaussian import GaussianLikelihood
from pyrovae.likelihoods.low_rank import LowRankGaussianLikelihood
from pyrovae.likelihoods.negative_binomial import NegativeBinomialLikelihood
from pyrovae.likelihoods.poisson import PoissonLikelihood

LIKELIHOODS: dict[str, Callable[..., Likelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "bernoulli-soft-targets": partial(BernoulliLikelihood, soft_targets=True),
    "continuous-bernoulli": ContinuousBernoulliLikelihood,
    "gaussian": GaussianLikelihood,
    "gaussian-per-dimension": partial(GaussianLikelihood, scale="per-dimension"),
    "gaussian-per-datum": partial(GaussianLikelihood, scale="per-datum"),
    "ar1": AR1GaussianLikelihood,
    "ar1-per-dimension": partial(AR1GaussianLikelihood, scale="per-dimension"),
    "ar1-per-datum": partial(AR1GaussianLikelihood, covariance="per-datum"),
    "low-rank": LowRankGaussianLikelihood,
    "low-rank-per-datum": partial(LowRankGaussianLikelihood, covariance="per-datum"),
    "full-covariance": FullCovarianceGaussianLikelihood,
    "full-covariance-per-datum": partial(FullCovarianceGaussianLikelihood, covariance="per-datum"),
    "poisson": PoissonLikelihood,
    "negative-binomial": NegativeBinomialLikelihood,
}
"""The likelihoods by their names on command lines and in files.

The Gaussian ones take ``initial_scale``, those of counts ``initial_mean``."""

__all__ = [
    "LIKELIHOODS",
    "AR1GaussianLikelihood",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "CountLikelihood",
    "CovarianceLikelihood",
    "FullCovarianceGaussianLikelihood",
    "GaussianLikelihood",
    "GaussianNoiseLikelihood",
    "Likelihood",
    "LowRankGaussianLikelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "gram",
]
