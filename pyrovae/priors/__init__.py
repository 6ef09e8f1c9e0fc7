"""Priors p(z), one per file; each is a module that returns a distribution."""

from pyrovae.priors.ar1 import AR1Prior
from pyrovae.priors.base import Prior
from pyrovae.priors.mixture import MixturePrior
from pyrovae.priors.standard_normal import StandardNormalPrior
from pyrovae.priors.vamp import VampPrior

__all__ = ["AR1Prior", "MixturePrior", "Prior", "StandardNormalPrior", "VampPrior"]
