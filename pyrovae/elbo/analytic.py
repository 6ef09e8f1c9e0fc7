"""The estimator with the KL in closed form."""

import warnings

from pyro.infer import TraceMeanField_ELBO
from pyro.infer.util import is_validation_enabled
from torch import Tensor

from pyrovae.elbo._computation import Computation, Reason
from pyrovae.elbo._reparameterized import SampleMeanELBO
from pyrovae.elbo.base import NoClosedFormError
from pyrovae.programs import PairedSite, Site, closed_form_kl, describe


class AnalyticELBO(SampleMeanELBO, TraceMeanField_ELBO):
    """−ELBO with the KL in closed form: E_q[log p(x|z)] sampled, β KL(q(z|x) ‖ p(z)) exact.

    This is a strict version of Pyro's ``TraceMeanField_ELBO``. If a pair of distributions has no registered KL, Pyro's
    version samples without a warning; this one raises an error. It never evaluates log q where the KL is exact.

    The sum of several sites' KLs is the KL only if no site's model distribution depends on a draw that the guide makes
    later. If the guide draws in another order, or scales or masks a site differently from the model, the site's part is
    log p − log q at the draw, with a warning if Pyro's validation is on.

    Raises:
        NoClosedFormError: a site's KL is not registered; the message names the site and both distributions.
    """

    _computation = Computation.CLOSED_FORM

    def _is_scored(self, site: Site) -> bool:
        return bool(site["is_observed"])

    def _departure(self, site: PairedSite) -> Reason | None:
        if site.drawn_later:
            if is_validation_enabled():
                warnings.warn(
                    f"the guide draws site {site.name!r} before {', '.join(map(repr, site.drawn_later))}, the model "
                    "after it, so its KL is not part of the KL, and log p − log q is sampled instead; order them alike",
                    stacklevel=2,
                )
            return Reason.ANOTHER_ORDER
        what = site.differing()
        if what is not None and is_validation_enabled():
            warnings.warn(
                f"site {site.name!r} has another {what} in the guide than in the model, so its terms are not "
                f"a multiple of KL(q ‖ p), and are sampled instead; set the {what} on both sides",
                stacklevel=2,
            )
        return None if what is None else Reason.ANOTHER_SCALE

    def _latent_part(self, site: PairedSite) -> Tensor:
        """−β KL(q ‖ p) of a latent site, with the guide's scale and mask."""
        p, q = site.both()
        kl = closed_form_kl(q, p)
        if kl is None:
            raise NoClosedFormError(
                f"no closed form for KL({describe(q['fn'])} ‖ {describe(p['fn'])}) at site {site.name!r}; "
                "use MonteCarloELBO, or register one with torch.distributions.register_kl"
            )
        return -kl.sum()
