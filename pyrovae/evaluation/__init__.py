"""What a trained pair of programs is worth."""

from pyrovae.evaluation.collapse import active_directions
from pyrovae.evaluation.gradients import GradientStatistics, PartStatistics, gradient_statistics
from pyrovae.evaluation.marginal import LogMarginal, log_marginal
from pyrovae.evaluation.terms import ELBOTerms, elbo_terms

__all__ = [
    "ELBOTerms",
    "GradientStatistics",
    "LogMarginal",
    "PartStatistics",
    "active_directions",
    "elbo_terms",
    "gradient_statistics",
    "log_marginal",
]
