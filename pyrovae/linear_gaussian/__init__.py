"""Linear-Gaussian models: exact truths, maximum likelihood, baselines, and the start of networks.

==================  =================================================================================================
``exact``           :class:`LinearGaussianVAE`: one σ; log p(x), the posterior and each family's best ELBO, exactly
``state_space``     :class:`LinearGaussianStateSpace`: the same for latents in an order: the posterior is a Markov chain
``factor_model``    :class:`FactorModel`: any Gaussian noise, fitted by maximum likelihood
``shrunk_gaussian`` :class:`ShrunkGaussian`: no latents, the data's covariance shrunk to a simpler one
``baselines``       :func:`linear_baselines`: what a VAE has to beat on held-out data
``warm_start``      :func:`start_as_linear`: networks that start as a factor model
==================  =================================================================================================
"""

from pyrovae.linear_gaussian._model import LinearModel
from pyrovae.linear_gaussian.baselines import Baseline, linear_baselines
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.linear_gaussian.shrunk_gaussian import ShrunkGaussian
from pyrovae.linear_gaussian.state_space import LinearGaussianStateSpace
from pyrovae.linear_gaussian.warm_start import start_as_linear

__all__ = [
    "Baseline",
    "FactorModel",
    "LinearGaussianStateSpace",
    "LinearGaussianVAE",
    "LinearModel",
    "ShrunkGaussian",
    "linear_baselines",
    "start_as_linear",
]
