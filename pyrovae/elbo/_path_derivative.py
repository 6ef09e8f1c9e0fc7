"""Base of the estimators that keep the guide's parameters fixed inside log q."""

from collections.abc import Callable

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from torch import Tensor

from pyrovae.distributions import fixed_draw
from pyrovae.elbo._reparameterized import ReparameterizedELBO
from pyrovae.elbo.base import Arguments, Keywords, NoClosedFormError
from pyrovae.programs import Program, Site, describe, draws_unchanged, latent_sites
from pyrovae.randomness import random_state, set_random_state


class PathDerivativeELBO(ReparameterizedELBO):
    """Base of estimators that differentiate log q along its draws, with the guide's parameters fixed.

    The derivative of log q(z; φ) with respect to φ at fixed z is subtracted. With one latent site, the same
    distribution scores the draws as constants. With several sites, or a factor, the guide is replayed at the draws,
    since a site's distribution depends on the draws of others. Other random numbers of the guide, such as dropout
    masks, are the same in the replay. Each latent site of the guide's trace then has an entry ``"log_q"``.
    """

    def _traces(self, model: Program, guide: Program, args: Arguments, kwargs: Keywords) -> tuple[Trace, Trace]:
        guide = self._weigh(guide, is_guide=True)
        if isinstance(poutine.unwrap(guide), Messenger):
            raise NoClosedFormError(
                f"{type(self).__name__} runs the guide alone, but this guide is a messenger around the model; use "
                "MonteCarloELBO"
            )
        seen = self._trace_guide(guide, args, kwargs)
        replayed = poutine.replay(self._weigh(model, is_guide=False), trace=seen)
        with draws_unchanged(seen):
            return poutine.trace(replayed).get_trace(*args, **kwargs), seen

    def _trace_guide(self, guide: Program, args: Arguments, kwargs: Keywords) -> Trace:
        """The guide's draws, as the model will see them."""
        before = random_state()
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
        latents = latent_sites(trace)
        if any(not site["fn"].has_rsample for site in latents.values()):
            return trace  # the base refuses it by name
        depends_on_draws = len(latents) > 1 or any(
            site["type"] == "sample" and site["is_observed"] for site in trace.nodes.values()
        )

        def at(draw: Callable[[Site], Tensor]) -> Trace:
            moved = trace.copy()
            for name, site in latents.items():
                moved.nodes[name] = {**site, "value": draw(site)}
            if not depends_on_draws:
                return moved
            after = random_state()
            set_random_state(before)
            with _Redrawn(moved):
                replayed = poutine.trace(guide).get_trace(*args, **kwargs)
            set_random_state(after)
            return replayed

        at_fixed_draws = at(lambda site: fixed_draw(site["value"]))
        seen = self._as_seen_by_the_model(at) or trace
        for name, site in latent_sites(seen).items():
            fixed = at_fixed_draws.nodes[name]
            try:
                score = fixed["fn"].log_prob(fixed["value"])
                site["log_q"] = site["fn"].log_prob(site["value"]) - (score - score.detach())
            except KeyError:  # a transform that inverts only its last output
                raise NoClosedFormError(
                    f"the guide's {describe(site['fn'])} at site {name!r} has no density at a given value: "
                    f"{type(self).__name__} cannot be used; use MonteCarloELBO"
                ) from None
        return seen

    def _as_seen_by_the_model(self, at: Callable[[Callable[[Site], Tensor]], Trace]) -> Trace | None:
        """The guide's trace with other tensors for its draws, if the model should see others."""
        return None


class _Redrawn(ReplayMessenger):
    """Replay a trace, but draw at each site first, so that the random state advances in the same way."""

    def _pyro_sample(self, msg: Site) -> None:
        if not msg["is_observed"] and msg["name"] in self.trace:
            with torch.no_grad():
                msg["fn"](*msg["args"], **msg["kwargs"])
        super()._pyro_sample(msg)
