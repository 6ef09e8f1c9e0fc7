"""Posterior families q(z|x), one a file; each maps features to a distribution."""

from collections.abc import Callable

from pyrovae.posteriors.ar1 import AR1Posterior
from pyrovae.posteriors.base import Posterior
from pyrovae.posteriors.diagonal import DiagonalPosterior
from pyrovae.posteriors.full_covariance import FullCovariancePosterior
from pyrovae.posteriors.isotropic import IsotropicPosterior

POSTERIORS: dict[str, Callable[[int, int], Posterior]] = {
    "isotropic": IsotropicPosterior,
    "diagonal": DiagonalPosterior,
    "ar1": AR1Posterior,
    "full-covariance": FullCovariancePosterior,
}
"""The families by their names on command lines and in files."""

__all__ = [
    "POSTERIORS",
    "AR1Posterior",
    "DiagonalPosterior",
    "FullCovariancePosterior",
    "IsotropicPosterior",
    "Posterior",
]
