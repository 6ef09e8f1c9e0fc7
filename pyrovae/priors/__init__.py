"""Priors p(z), one per file; each is a module that returns a distribution."""

from collections.abc import Callable

from pyrovae.priors.ar1 import AR1Prior
from pyrovae.priors.base import Prior
from pyrovae.priors.mixture import MixturePrior
from pyrovae.priors.standard_normal import StandardNormalPrior
from pyrovae.priors.vamp import VampPrior

PRIORS: dict[str, Callable[[int], Prior]] = {
    "standard-normal": StandardNormalPrior,
    "ar1": AR1Prior,
    "mixture": MixturePrior,
}
"""Priors by name; each takes ``latent_dim``. A VampPrior also needs networks, so it has no name."""

__all__ = ["PRIORS", "AR1Prior", "MixturePrior", "Prior", "StandardNormalPrior", "VampPrior"]
