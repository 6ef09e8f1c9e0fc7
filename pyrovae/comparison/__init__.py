"""Comparing posterior families, estimators and likelihoods on one set of data: many runs, one table."""

from pyrovae.comparison._runs import RunStatus
from pyrovae.comparison.compare import compare

__all__ = ["RunStatus", "compare"]
