"""ELBO estimators, one per file; each is a :class:`pyro.infer.ELBO` whose value is −ELBO in nats."""

from pyrovae.elbo._computation import Computation, Reason
from pyrovae.elbo.analytic import AnalyticELBO
from pyrovae.elbo.auditing import Audit, SiteAudit, audit
from pyrovae.elbo.base import BetaELBO, NoClosedFormError
from pyrovae.elbo.closed_form_entropy import ClosedFormEntropyELBO
from pyrovae.elbo.doubly_reparameterized import DoublyReparameterizedELBO
from pyrovae.elbo.importance_weighted import ImportanceWeightedELBO
from pyrovae.elbo.monte_carlo import MonteCarloELBO
from pyrovae.elbo.sticking_the_landing import StickingTheLandingELBO

ESTIMATORS: dict[str, type[BetaELBO]] = {
    "monte-carlo": MonteCarloELBO,
    "analytic": AnalyticELBO,
    "closed-form-entropy": ClosedFormEntropyELBO,
    "sticking-the-landing": StickingTheLandingELBO,
    "importance-weighted": ImportanceWeightedELBO,
    "doubly-reparameterized": DoublyReparameterizedELBO,
}
"""The estimators by their names on command lines and in files."""

__all__ = [
    "ESTIMATORS",
    "AnalyticELBO",
    "Audit",
    "BetaELBO",
    "ClosedFormEntropyELBO",
    "Computation",
    "DoublyReparameterizedELBO",
    "ImportanceWeightedELBO",
    "MonteCarloELBO",
    "NoClosedFormError",
    "Reason",
    "SiteAudit",
    "StickingTheLandingELBO",
    "audit",
]
