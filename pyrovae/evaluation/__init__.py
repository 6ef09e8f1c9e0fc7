"""Evaluation of a trained model and guide: log p(x), gaps, collapse, gradients."""

from pyrovae.errors import moved
from pyrovae.evaluation._gradient_sums import PartStatistics
from pyrovae.evaluation.annealing import Annealing
from pyrovae.evaluation.automatic import Automatic
from pyrovae.evaluation.calibration import Calibration, calibration
from pyrovae.evaluation.callables import Callables
from pyrovae.evaluation.collapse import CollapseReport, active_directions, collapse_report
from pyrovae.evaluation.estimate import Bound, Estimate, LogMarginal, Step, UnreliableEstimateWarning
from pyrovae.evaluation.gaps import FamilyGaps, InferenceGaps, inference_gaps
from pyrovae.evaluation.gradients import GradientStatistics, gradient_statistics
from pyrovae.evaluation.importance import Importance, elbo_estimate
from pyrovae.evaluation.imputation import Imputed, impute
from pyrovae.evaluation.inference_data import to_inference_data
from pyrovae.evaluation.marginal import log_marginal
from pyrovae.evaluation.measures import RefinedELBO
from pyrovae.evaluation.outliers import conformal_p_values
from pyrovae.evaluation.per_datum import PerDatumGuide, refit
from pyrovae.evaluation.posterior_draws import PosteriorDraws, posterior_draws
from pyrovae.evaluation.quadrature import Quadrature
from pyrovae.evaluation.refine import Refined, refine
from pyrovae.evaluation.refit_encoder import EncoderStage, RefittedEncoder, refit_encoder
from pyrovae.evaluation.sandwich import Sandwich, sandwich
from pyrovae.evaluation.terms import ELBOTerms, elbo_terms

__all__ = [
    "Annealing",
    "Automatic",
    "Bound",
    "Calibration",
    "Callables",
    "CollapseReport",
    "ELBOTerms",
    "EncoderStage",
    "Estimate",
    "FamilyGaps",
    "GradientStatistics",
    "Importance",
    "Imputed",
    "InferenceGaps",
    "LogMarginal",
    "PartStatistics",
    "PerDatumGuide",
    "PosteriorDraws",
    "Quadrature",
    "Refined",
    "RefinedELBO",
    "RefittedEncoder",
    "Sandwich",
    "Step",
    "UnreliableEstimateWarning",
    "active_directions",
    "calibration",
    "collapse_report",
    "conformal_p_values",
    "elbo_estimate",
    "elbo_terms",
    "gradient_statistics",
    "impute",
    "inference_gaps",
    "log_marginal",
    "posterior_draws",
    "refine",
    "refit",
    "refit_encoder",
    "sandwich",
    "to_inference_data",
]

__getattr__ = moved(
    __name__,
    {
        "Baseline": "pyrovae.linear_gaussian.Baseline",
        "Recommendation": "pyrovae.comparison.Recommendation",
        "THRESHOLD": "pyrovae.comparison.recommendation.THRESHOLD",
        "linear_baselines": "pyrovae.linear_gaussian.linear_baselines",
        "recommend": "pyrovae.comparison.recommend",
    },
)
"""Names that version 0.1 had here."""
