"""The estimator that samples everything: Monte Carlo KL."""

from pyro.distributions.util import is_identically_zero
from pyro.infer.util import is_validation_enabled
from pyro.util import check_if_enumerated
from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo.base import BetaELBO, total
from pyrovae.programs import Program, Role, TracedPair


class MonteCarloELBO(BetaELBO):
    """−ELBO with the KL sampled: E_q[log p(x|z)] − β (log q(z|x) − log p(z)) at draws of z.

    This is Pyro's ``Trace_ELBO`` with β, and takes the same arguments. At the exact posterior its value has no
    variance, but its gradient does.
    """

    def differentiable_loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """−ELBO, summed over the plate, in nats; a surrogate with score terms if z has no rsample."""
        losses = []
        for pair in self._get_traces(model, guide, args, kwargs):
            # log-densities of both programs at one draw; nothing leaves the device
            loss = -self._bound(pair)
            scores = (site.guide["score_parts"].score_function for site in pair.sites if site.guide is not None)
            if not all(is_identically_zero(score) for score in scores):
                _, surrogate = self._differentiable_loss_particle(*pair)
                loss = loss.detach() + (surrogate - surrogate.detach())
            losses.append(loss)
        return total(losses) / self.num_particles

    def _score(self, pair: TracedPair) -> None:
        if is_validation_enabled():
            check_if_enumerated(pair.guide)
        pair.model.compute_log_prob()
        pair.guide.compute_score_parts()

    def _bound(self, pair: TracedPair) -> Tensor:
        terms = []
        for site in pair.sites:
            if site.role is Role.OBSERVED:
                terms.append(self._term(site, Computation.SAMPLED, site.site["log_prob_sum"]))
                continue
            value = -site.site["log_prob_sum"]
            if site.model is not None:
                value = value + site.model["log_prob_sum"]
            is_differentiable = is_identically_zero(site.site["score_parts"].score_function)
            computation = Computation.SAMPLED if is_differentiable else Computation.SCORE_FUNCTION
            terms.append(self._term(site, computation, value))
        return total(terms)
