"""Comparing posterior families, estimators and likelihoods on one set of data: many runs, one table."""

from pyrovae.comparison.compare import compare

__all__ = ["compare"]
