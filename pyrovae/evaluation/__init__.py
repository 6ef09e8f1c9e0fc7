"""What a trained pair of programs is worth."""

from pyrovae.evaluation.collapse import active_directions
from pyrovae.evaluation.terms import ELBOTerms, elbo_terms

__all__ = ["ELBOTerms", "active_directions", "elbo_terms"]
