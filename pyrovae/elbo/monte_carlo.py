"""The estimator that samples everything: Monte Carlo KL."""

from collections.abc import Callable
from typing import Any

from pyro.poutine import Trace
from torch import Tensor

from pyrovae.elbo.base import BetaELBO, check_guide, latent_sites


class MonteCarloELBO(BetaELBO):
    """−ELBO with the KL sampled: E_q[log p(x|z)] − β (log q(z|x) − log p(z)) at draws of z.

    Pyro's ``Trace_ELBO`` with β. At the exact posterior its value has variance 0, its gradient has not.
    """

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """−ELBO, summed over the plate, in nats; a surrogate with score terms where z has no rsample."""
        total: Any = 0.0
        for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
            # both programs' scores at one draw: nothing leaves the device
            loss = -self._bound(model_trace, guide_trace)
            if guide_trace.nonreparam_stochastic_nodes:
                _, surrogate = self._differentiable_loss_particle(model_trace, guide_trace)
                loss = loss.detach() + (surrogate - surrogate.detach())
            total = total + loss
        return total / self.num_particles

    def _bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        check_guide(guide_trace)
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
        latents = latent_sites(guide_trace)
        bound: Any = 0.0
        for name, site in model_trace.nodes.items():
            if site["type"] == "sample" and name not in latents:
                bound = bound + self._term(name, "sampled", site["log_prob_sum"], site)
        for name, site in latents.items():
            on_model_side = model_trace.nodes.get(name)  # an auxiliary site is in the guide alone
            value = -site["log_prob_sum"]
            if on_model_side is not None:
                value = value + on_model_side["log_prob_sum"]
            how = "sampled" if site["fn"].has_rsample else "sampled, score-function gradient"
            bound = bound + self._term(name, how, value, on_model_side, site)
        return bound
