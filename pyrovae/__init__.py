"""pyrovae: which posterior q(z|x), and which ELBO estimator, should my VAE use?"""

from typing import TYPE_CHECKING

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
from pyrovae.comparison.compare import compare
from pyrovae.comparison.recommendation import recommend
from pyrovae.comparison.settings import ComparisonSettings
from pyrovae.comparison.tables import summarize, to_markdown
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
from pyrovae.errors import InputError
from pyrovae.evaluation import (
    UnreliableEstimateWarning,
    active_directions,
    collapse_report,
    conformal_p_values,
    elbo_estimate,
    elbo_terms,
    gradient_statistics,
    impute,
    inference_gaps,
    log_marginal,
    refine,
    refit,
    refit_encoder,
    sandwich,
)
from pyrovae.io import load, load_linear, load_preprocessing, save
from pyrovae.likelihoods import (
    AR1GaussianLikelihood,
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    FullCovarianceGaussianLikelihood,
    GaussianLikelihood,
    Likelihood,
    LowRankGaussianLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)
from pyrovae.linear_gaussian.baselines import linear_baselines
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.linear_gaussian.shrunk_gaussian import ShrunkGaussian
from pyrovae.linear_gaussian.warm_start import start_as_linear
from pyrovae.posteriors import (
    AR1Posterior,
    DiagonalPosterior,
    FlowPosterior,
    FullCovariancePosterior,
    IsotropicPosterior,
    LowRankPosterior,
    Posterior,
)
from pyrovae.training import (
    CannotCompileError,
    CannotTraceError,
    History,
    NonFiniteLossError,
    Replica,
    TrainingSettings,
    fit,
    linear_warmup,
)
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    from pyrovae.scikit import FactorModelTransformer, VAETransformer

__version__ = "0.1.0"

__all__ = [
    "AR1GaussianLikelihood",
    "AR1Normal",
    "AR1Posterior",
    "AmortizedGuide",
    "AnalyticELBO",
    "BernoulliLikelihood",
    "CannotCompileError",
    "CannotTraceError",
    "CategoricalLikelihood",
    "ClosedFormEntropyELBO",
    "ComparisonSettings",
    "ContinuousBernoulliLikelihood",
    "DiagonalPosterior",
    "DoublyReparameterizedELBO",
    "FactorModel",
    "FactorModelTransformer",
    "FlowPosterior",
    "FullCovarianceGaussianLikelihood",
    "FullCovariancePosterior",
    "GaussianLikelihood",
    "GenerativeModel",
    "History",
    "ImportanceWeightedELBO",
    "InputError",
    "IsotropicPosterior",
    "Likelihood",
    "LowRankGaussianLikelihood",
    "LowRankPosterior",
    "MonteCarloELBO",
    "NegativeBinomialLikelihood",
    "NoClosedFormError",
    "NonFiniteLossError",
    "PoissonLikelihood",
    "Posterior",
    "Replica",
    "ShrunkGaussian",
    "StickingTheLandingELBO",
    "TrainingSettings",
    "UnreliableEstimateWarning",
    "VAETransformer",
    "active_directions",
    "audit",
    "collapse_report",
    "compare",
    "conformal_p_values",
    "datasets",
    "distributions",
    "elbo",
    "elbo_estimate",
    "elbo_terms",
    "evaluation",
    "exact",
    "fit",
    "gradient_statistics",
    "impute",
    "inference_gaps",
    "likelihoods",
    "linear_baselines",
    "linear_warmup",
    "load",
    "load_linear",
    "load_preprocessing",
    "log_marginal",
    "nn",
    "plotting",
    "posteriors",
    "recommend",
    "refine",
    "refit",
    "refit_encoder",
    "sandwich",
    "save",
    "start_as_linear",
    "summarize",
    "testing",
    "to_markdown",
    "training",
]


def __getattr__(name: str) -> type:
    """The transformers, once they are asked for: scikit-learn takes a second to import."""
    if name in ("FactorModelTransformer", "VAETransformer"):
        from pyrovae import scikit

        found: type = getattr(scikit, name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
