"""The estimator with the KL in closed form."""

from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.elbo.base import BetaELBO


class NoClosedFormError(NotImplementedError):
    """A latent site's KL(q ‖ p) has no closed form."""


class AnalyticELBO(BetaELBO, TraceMeanField_ELBO):
    """−ELBO with the KL in closed form: E_q[log p(x|z)] sampled, β KL(q(z|x) ‖ p(z)) exact.

    Pyro's ``TraceMeanField_ELBO`` made strict: where a pair of distributions has no registered KL the
    stock one samples without a word, this one raises, and it never evaluates log q.

    Raises:
        NoClosedFormError: a site's KL is registered nowhere; names the site and both distributions.
    """

    def _get_trace(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        guide_trace = poutine.trace(self._weigh(guide)).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(self._weigh(model), trace=guide_trace)).get_trace(*args, **kwargs)
        if is_validation_enabled():
            check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        guide_trace = prune_subsample_sites(guide_trace)
        model_trace = prune_subsample_sites(model_trace)
        model_trace.compute_log_prob(lambda name, site: site["is_observed"])
        if is_validation_enabled():
            for site in model_trace.nodes.values():
                if site["type"] == "sample" and site["is_observed"]:
                    check_site_shape(site, self.max_plate_nesting)
        return model_trace, guide_trace

    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        elbo: Any = 0.0
        for name, site in model_trace.nodes.items():
            if site["type"] == "sample":
                if site["is_observed"]:
                    elbo = elbo + site["log_prob_sum"]
                else:
                    elbo = elbo - self._site_kl(name, guide_trace.nodes.get(name), site).sum()
        for name, site in guide_trace.nodes.items():
            if site["type"] == "sample" and name not in model_trace:
                raise NoClosedFormError(
                    f"site {name!r} is in the guide alone, so it has no KL in closed form; use MonteCarloELBO"
                )
        return -elbo.detach(), -elbo

    @staticmethod
    def _site_kl(name: str, guide_site: dict[str, Any] | None, model_site: dict[str, Any]) -> Tensor:
        """β KL(q ‖ p) of a latent site, shape (*batch), with the guide's scale and mask."""
        if guide_site is None:
            raise NoClosedFormError(f"latent site {name!r} of the model is missing in the guide")
        q, p = guide_site["fn"], model_site["fn"]
        if not q.has_rsample:
            raise NoClosedFormError(
                f"the guide's {_describe(q)} at site {name!r} is not reparameterised, so the gradient of "
                "E_q[log p(x|z)] would be wrong; use MonteCarloELBO"
            )
        try:
            kl = kl_divergence(q, p)
        except NotImplementedError:
            raise NoClosedFormError(
                f"no closed form for KL({_describe(q)} ‖ {_describe(p)}) at site {name!r}; "
                "use MonteCarloELBO, or register one with torch.distributions.register_kl"
            ) from None
        kl = kl.expand(q.batch_shape)
        return scale_and_mask(kl, guide_site["scale"], guide_site["mask"])

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """−ELBO, summed over the plate, in nats."""
        total: Any = 0.0
        for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
            total = total + self._differentiable_loss_particle(model_trace, guide_trace)[1]
        return total / self.num_particles


def _describe(distribution: Any) -> str:
    """Class name, with what an Independent or a transformed distribution wraps."""
    base = getattr(distribution, "base_dist", None)
    name = type(distribution).__name__
    return name if base is None else f"{name}({_describe(base)})"
