"""ELBO estimators, one a file; each is a :class:`pyro.infer.ELBO` whose value is −ELBO in nats."""

from pyrovae.elbo.analytic import AnalyticELBO
from pyrovae.elbo.base import BetaELBO, NoClosedFormError
from pyrovae.elbo.closed_form_entropy import ClosedFormEntropyELBO
from pyrovae.elbo.monte_carlo import MonteCarloELBO
from pyrovae.elbo.sticking_the_landing import StickingTheLandingELBO

ESTIMATORS: dict[str, type[BetaELBO]] = {
    "monte-carlo": MonteCarloELBO,
    "analytic": AnalyticELBO,
    "closed-form-entropy": ClosedFormEntropyELBO,
    "sticking-the-landing": StickingTheLandingELBO,
}
"""The estimators by their names on command lines and in files."""

__all__ = [
    "ESTIMATORS",
    "AnalyticELBO",
    "BetaELBO",
    "ClosedFormEntropyELBO",
    "MonteCarloELBO",
    "NoClosedFormError",
    "StickingTheLandingELBO",
]
