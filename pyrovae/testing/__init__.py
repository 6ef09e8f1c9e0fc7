"""Contract tests, for the library's own parts and for yours: each raises an AssertionError that says what fails.

Example:
    >>> import pyrovae as pv
    >>> pv.testing.check_posterior(pv.FullCovariancePosterior)
    >>> pv.testing.check_likelihood(pv.GaussianLikelihood, gaussian=True)
    >>> pv.testing.check_elbo(pv.AnalyticELBO)

The true values are computed in another way: dense float64 algebra, closed forms, finite differences. Where draws are
compared with a moment, the seed is fixed and the tolerance is 5 standard errors: a correct implementation fails with a
probability below 1e-5 per comparison.
"""

from pyrovae.testing._estimator import check_elbo
from pyrovae.testing._heads import dense_kl
from pyrovae.testing._likelihood import check_likelihood
from pyrovae.testing._posterior import check_posterior
from pyrovae.testing._prior import check_prior

__all__ = ["check_elbo", "check_likelihood", "check_posterior", "check_prior", "dense_kl"]
