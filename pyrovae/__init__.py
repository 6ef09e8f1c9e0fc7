"""pyrovae: which posterior q(z|x), and which ELBO estimator, should my VAE use?"""

from pyrovae import datasets, distributions, elbo, likelihoods, nn, posteriors
from pyrovae.elbo import AnalyticELBO, MonteCarloELBO, NoClosedFormError
from pyrovae.likelihoods import BernoulliLikelihood, GaussianLikelihood
from pyrovae.posteriors import (
    AR1Posterior,
    DiagonalPosterior,
    FullCovariancePosterior,
    IsotropicPosterior,
)
from pyrovae.vae import AmortizedGuide, GenerativeModel
from pyrovae.training import fit
