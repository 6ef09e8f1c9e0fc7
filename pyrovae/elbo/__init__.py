"""ELBO estimators, one a file; each is a :class:`pyro.infer.ELBO` whose value is −ELBO in nats."""

from pyrovae.elbo.analytic import AnalyticELBO, NoClosedFormError
from pyrovae.elbo.base import BetaELBO
from pyrovae.elbo.monte_carlo import MonteCarloELBO

ESTIMATORS: dict[str, type[BetaELBO]] = {
    "monte-carlo": MonteCarloELBO,
    "analytic": AnalyticELBO,
}
"""The estimators by their names on command lines and in files."""

__all__ = ["ESTIMATORS", "AnalyticELBO", "BetaELBO", "MonteCarloELBO", "NoClosedFormError"]
