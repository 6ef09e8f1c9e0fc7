"""The estimator with the guide's entropy in closed form."""

from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo.base import NoClosedFormError, SampleMeanELBO
from pyrovae.programs import Site, describe


class ClosedFormEntropyELBO(SampleMeanELBO):
    """−ELBO as E_q[log p(x|z) + β log p(z)] sampled, plus β times q's entropy in closed form.

    For a location–scale q its gradient equals ``MonteCarloELBO``'s sample by sample; only the value differs.

    Raises:
        NoClosedFormError: a site's distribution has no closed-form entropy.
    """

    _computation = Computation.ENTROPY

    def _latent_part(self, name: str, site: Site, guide_site: Site) -> Tensor:
        q = guide_site["fn"]
        try:
            entropy = q.entropy()
        except NotImplementedError:
            raise NoClosedFormError(
                f"no closed form for the entropy of {describe(q)} at site {name!r}; use MonteCarloELBO"
            ) from None
        return site["log_prob_sum"] + scale_and_mask(entropy, guide_site["scale"], guide_site["mask"]).sum()
