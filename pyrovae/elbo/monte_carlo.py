"""The estimator that samples everything: Monte Carlo KL."""

from pyro.poutine import Trace
from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo.base import BetaELBO, total
from pyrovae.programs import Program, check_guide, latent_sites


class MonteCarloELBO(BetaELBO):
    """−ELBO with the KL sampled: E_q[log p(x|z)] − β (log q(z|x) − log p(z)) at draws of z.

    This is Pyro's ``Trace_ELBO`` with β. At the exact posterior its value has variance 0, but its gradient varies.
    """

    def differentiable_loss(self, model: Program, guide: Program, *args: object, **kwargs: object) -> Tensor:
        """−ELBO, summed over the plate, in nats; a surrogate with score terms where z has no rsample."""
        losses = []
        for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
            # the scores of both programs at one draw: nothing leaves the device
            loss = -self._bound(model_trace, guide_trace)
            if guide_trace.nonreparam_stochastic_nodes:
                _, surrogate = self._differentiable_loss_particle(model_trace, guide_trace)
                loss = loss.detach() + (surrogate - surrogate.detach())
            losses.append(loss)
        return total(losses) / self.num_particles

    def _bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        check_guide(guide_trace)
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
        latents = latent_sites(guide_trace)
        terms = []
        for name, site in model_trace.nodes.items():
            if site["type"] == "sample" and name not in latents:
                terms.append(self._term(name, Computation.SAMPLED, site["log_prob_sum"], site))
        for name, site in latents.items():
            on_model_side = model_trace.nodes.get(name)  # an auxiliary site is in the guide alone
            value = -site["log_prob_sum"]
            if on_model_side is not None:
                value = value + on_model_side["log_prob_sum"]
            computation = Computation.SAMPLED if site["fn"].has_rsample else Computation.SCORE_FUNCTION
            terms.append(self._term(name, computation, value, on_model_side, site))
        return total(terms)
