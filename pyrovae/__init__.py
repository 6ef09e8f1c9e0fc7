"""pyrovae: which posterior q(z|x), and which ELBO estimator, should my VAE use?"""

from pyrovae import (
    datasets,
    distributions,
    elbo,
    evaluation,
    likelihoods,
    nn,
    plotting,
    posteriors,
    testing,
    training,
)
from pyrovae.comparison import compare
from pyrovae.distributions import AR1Normal
from pyrovae.elbo import (
    AnalyticELBO,
    ClosedFormEntropyELBO,
    MonteCarloELBO,
    NoClosedFormError,
    StickingTheLandingELBO,
)
from pyrovae.evaluation import active_directions, elbo_terms
from pyrovae.io import load, save
from pyrovae.likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from pyrovae.posteriors import (
    AR1Posterior,
    DiagonalPosterior,
    FlowPosterior,
    FullCovariancePosterior,
    IsotropicPosterior,
    LowRankPosterior,
    Posterior,
)
from pyrovae.report import summarize, to_markdown
from pyrovae.training import History, NonFiniteLossError, fit, linear_warmup
from pyrovae.vae import AmortizedGuide, GenerativeModel

__version__ = "0.1.0"

__all__ = [
    "AR1Normal",
    "AR1Posterior",
    "AmortizedGuide",
    "AnalyticELBO",
    "BernoulliLikelihood",
    "ClosedFormEntropyELBO",
    "DiagonalPosterior",
    "FlowPosterior",
    "FullCovariancePosterior",
    "GaussianLikelihood",
    "GenerativeModel",
    "History",
    "IsotropicPosterior",
    "Likelihood",
    "LowRankPosterior",
    "MonteCarloELBO",
    "NoClosedFormError",
    "NonFiniteLossError",
    "Posterior",
    "StickingTheLandingELBO",
    "active_directions",
    "compare",
    "datasets",
    "distributions",
    "elbo",
    "elbo_terms",
    "evaluation",
    "fit",
    "likelihoods",
    "linear_warmup",
    "load",
    "nn",
    "plotting",
    "posteriors",
    "save",
    "summarize",
    "testing",
    "to_markdown",
    "training",
]
