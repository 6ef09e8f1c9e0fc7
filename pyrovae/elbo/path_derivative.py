"""What estimators share that hold the guide's parameters fixed inside log q."""

from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.elbo.base import Program, ReparameterizedELBO, latent_sites


class PathDerivativeELBO(ReparameterizedELBO):
    """Base of estimators that differentiate log q along its draws, with the guide's parameters held fixed.

    The derivative of log q(z; φ) with respect to φ at fixed z is subtracted again. With one latent site the
    draws are moved at the same distribution, with several by replaying the guide, since there a site's
    distribution depends on the draws of others. Each latent site of the guide's trace then holds ``"log_q"``.
    """

    def _trace_guide(self, guide: Program, args: tuple, kwargs: dict) -> Trace:
        trace = super()._trace_guide(guide, args, kwargs)
        if any(not site["fn"].has_rsample for site in latent_sites(trace).values()):
            return trace  # refused by the base, by name

        def at(draw: Callable[[dict[str, Any]], Tensor]) -> Trace:
            moved = trace.copy()
            latents = latent_sites(trace)
            for name, site in latents.items():
                moved.nodes[name] = {**site, "value": draw(site)}
            if len(latents) == 1:
                return moved
            return poutine.trace(poutine.replay(self._weigh(guide), trace=moved)).get_trace(*args, **kwargs)

        at_fixed_draws = at(lambda site: site["value"].detach())
        seen = self._as_seen_by_the_model(at) or trace
        for name, site in latent_sites(seen).items():
            score = at_fixed_draws.nodes[name]["fn"].log_prob(at_fixed_draws.nodes[name]["value"])
            site["log_q"] = site["fn"].log_prob(site["value"]) - (score - score.detach())
        return seen

    def _as_seen_by_the_model(self, at: Callable[[Callable[[dict[str, Any]], Tensor]], Trace]) -> Trace | None:
        """The guide's trace at other tensors for its draws, where the model is to see other ones."""
        return None
