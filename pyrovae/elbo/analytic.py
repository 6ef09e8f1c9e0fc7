"""The estimator with the KL in closed form."""

from pyro.distributions.util import scale_and_mask
from pyro.infer import TraceMeanField_ELBO
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.elbo._computation import Computation
from pyrovae.elbo.base import NoClosedFormError, SampleMeanELBO
from pyrovae.errors import InputError
from pyrovae.programs import Site, describe, latent_sites, same_scale


class AnalyticELBO(SampleMeanELBO, TraceMeanField_ELBO):
    """−ELBO with the KL in closed form: E_q[log p(x|z)] sampled, β KL(q(z|x) ‖ p(z)) exact.

    This is Pyro's ``TraceMeanField_ELBO`` made strict. Where a pair of distributions has no registered KL, the
    stock one samples without a word; this one raises. It never evaluates log q. With several latent sites the
    guide must draw them in the model's order: a sum of the sites' KLs is the KL only where a site's model
    distribution does not depend on a draw that the guide makes later.

    Raises:
        NoClosedFormError: a site's KL is registered nowhere; the message names the site and both distributions.
            Or the guide draws its sites in another order than the model.
    """

    _computation = Computation.CLOSED_FORM

    def _is_scored(self, site: Site) -> bool:
        return site["is_observed"]

    def _bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        in_guide = list(latent_sites(guide_trace))
        in_model = [name for name in model_trace.nodes if name in in_guide]
        if in_guide != in_model:
            raise NoClosedFormError(
                f"the guide draws its sites in the order {', '.join(in_guide)}, the model in the order "
                f"{', '.join(in_model)}, so the sites' KLs need not add up to the KL; order them alike, or use "
                "MonteCarloELBO"
            )
        return super()._bound(model_trace, guide_trace)

    def _latent_part(self, name: str, site: Site, guide_site: Site) -> Tensor:
        """−β KL(q ‖ p) of a latent site, with the guide's scale and mask."""
        q, p = guide_site["fn"], site["fn"]
        for what in ("scale", "mask"):
            if not same_scale(guide_site[what], site[what]):
                raise InputError(
                    f"site {name!r} has another {what} in the guide than in the model, so its terms do not make up "
                    f"a multiple of KL(q ‖ p); set the {what} on both sides, or use MonteCarloELBO"
                )
        try:
            kl = kl_divergence(q, p)
        except NotImplementedError:
            raise NoClosedFormError(
                f"no closed form for KL({describe(q)} ‖ {describe(p)}) at site {name!r}; "
                "use MonteCarloELBO, or register one with torch.distributions.register_kl"
            ) from None
        return -scale_and_mask(kl.expand(q.batch_shape), guide_site["scale"], guide_site["mask"]).sum()
