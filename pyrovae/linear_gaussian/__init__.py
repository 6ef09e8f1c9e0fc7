"""Linear-Gaussian models: exact truths, maximum likelihood, baselines, and where networks start."""

from pyrovae.linear_gaussian.baselines import Baseline, linear_baselines
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.linear_gaussian.warm_start import start_as_linear

__all__ = ["Baseline", "FactorModel", "LinearGaussianVAE", "linear_baselines", "start_as_linear"]
