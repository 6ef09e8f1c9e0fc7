"""The estimator whose guide gradient vanishes at the exact posterior."""

from typing import Any

import pyro.poutine as poutine
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.elbo.base import Program, ReparameterizedELBO, site_log_prob


class PathDerivativeELBO(ReparameterizedELBO):
    """Base of estimators that hold the guide's parameters fixed inside log q and differentiate along its draws.

    The derivative of log q(z; φ) with respect to φ at fixed z is subtracted again: with one latent site at
    the same distribution, with several by replaying the guide at fixed draws, since there a site's
    distribution depends on the draws of others.
    """

    def _get_trace(self, model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
        model_trace, guide_trace = super()._get_trace(model, guide, args, kwargs)
        latents = {name: site for name, site in guide_trace.nodes.items() if site["type"] == "sample"}
        if len(latents) == 1:
            fixed = latents
        else:
            detached = guide_trace.copy()
            for name, site in latents.items():
                detached.nodes[name] = {**site, "value": site["value"].detach()}
            replayed = poutine.trace(poutine.replay(self._weigh(guide), trace=detached)).get_trace(*args, **kwargs)
            fixed = prune_subsample_sites(replayed).nodes
        for name, site in latents.items():
            score = site_log_prob(fixed[name], site["value"].detach())
            site["path_log_prob"] = site_log_prob(site) - (score - score.detach())
        return model_trace, guide_trace


class StickingTheLandingELBO(PathDerivativeELBO):
    """−ELBO with log q at detached guide parameters (Roeder et al. 2017): the path derivative alone.

    Its mean is Monte Carlo's; the *guide's* gradient has no variance at the exact posterior, and more than
    Monte Carlo's where q is much too narrow.
    """

    def _bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        bound: Any = model_trace.log_prob_sum()
        for site in guide_trace.nodes.values():
            if site["type"] == "sample":
                bound = bound - site["path_log_prob"].sum()
        return bound
