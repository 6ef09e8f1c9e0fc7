"""pyrovae: which posterior q(z|x), and which ELBO estimator, should my VAE use?"""

from pyrovae import (
    datasets,
    distributions,
    elbo,
    evaluation,
    exact,
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
    DoublyReparameterizedELBO,
    ImportanceWeightedELBO,
    MonteCarloELBO,
    NoClosedFormError,
    StickingTheLandingELBO,
    audit,
)
from pyrovae.evaluation import active_directions, elbo_terms, gradient_statistics, log_marginal
from pyrovae.io import load, save
from pyrovae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    GaussianLikelihood,
    Likelihood,
)
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
from pyrovae.training import (
    CannotCompileError,
    CannotTraceError,
    History,
    NonFiniteLossError,
    Replica,
    fit,
    linear_warmup,
)
from pyrovae.vae import AmortizedGuide, GenerativeModel

__version__ = "0.1.0"

__all__ = [
    "AR1Normal",
    "AR1Posterior",
    "AmortizedGuide",
    "AnalyticELBO",
    "BernoulliLikelihood",
    "CannotCompileError",
    "CannotTraceError",
    "CategoricalLikelihood",
    "ClosedFormEntropyELBO",
    "ContinuousBernoulliLikelihood",
    "DiagonalPosterior",
    "DoublyReparameterizedELBO",
    "FlowPosterior",
    "FullCovariancePosterior",
    "GaussianLikelihood",
    "GenerativeModel",
    "History",
    "ImportanceWeightedELBO",
    "IsotropicPosterior",
    "Likelihood",
    "LowRankPosterior",
    "MonteCarloELBO",
    "NoClosedFormError",
    "NonFiniteLossError",
    "Posterior",
    "Replica",
    "StickingTheLandingELBO",
    "active_directions",
    "audit",
    "compare",
    "datasets",
    "distributions",
    "elbo",
    "elbo_terms",
    "evaluation",
    "exact",
    "fit",
    "gradient_statistics",
    "likelihoods",
    "linear_warmup",
    "load",
    "log_marginal",
    "nn",
    "plotting",
    "posteriors",
    "save",
    "summarize",
    "testing",
    "to_markdown",
    "training",
]
