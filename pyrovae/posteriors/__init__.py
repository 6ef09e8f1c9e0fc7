"""Posterior families q(z|x), one per file; each maps features to a distribution."""

from collections.abc import Callable
from functools import partial

from pyrovae.posteriors.ar1 import AR1Posterior
from pyrovae.posteriors.base import Posterior
from pyrovae.posteriors.diagonal import DiagonalPosterior
from pyrovae.posteriors.flow import FlowPosterior
from pyrovae.posteriors.full_covariance import FullCovariancePosterior
from pyrovae.posteriors.isotropic import IsotropicPosterior
from pyrovae.posteriors.low_rank import LowRankPosterior
from pyrovae.posteriors.markov import MarkovPosterior

POSTERIORS: dict[str, Callable[[int, int], Posterior]] = {
    "isotropic": IsotropicPosterior,
    "diagonal": DiagonalPosterior,
    "ar1": AR1Posterior,
    "ar1-per-dimension": partial(AR1Posterior, scale="per-dimension"),
    "ar1-per-step": partial(AR1Posterior, scale="per-dimension", correlation="per-step"),
    "low-rank": LowRankPosterior,
    "full-covariance": FullCovariancePosterior,
    "flow": FlowPosterior,
}
"""The families by their names on command lines and in files."""

__all__ = [
    "POSTERIORS",
    "AR1Posterior",
    "DiagonalPosterior",
    "FlowPosterior",
    "FullCovariancePosterior",
    "IsotropicPosterior",
    "LowRankPosterior",
    "MarkovPosterior",
    "Posterior",
]
