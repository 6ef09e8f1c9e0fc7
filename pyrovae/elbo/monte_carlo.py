"""The estimator that samples everything: Monte Carlo KL."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyrovae.elbo.base import BetaELBO


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
            if guide_trace.nonreparam_stochastic_nodes:
                return super().differentiable_loss(model, guide, *args, **kwargs)
            # both programs' scores at one draw: nothing leaves the device
            total = total + guide_trace.log_prob_sum() - model_trace.log_prob_sum()
        return total / self.num_particles
