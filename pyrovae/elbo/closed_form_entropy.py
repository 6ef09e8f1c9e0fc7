"""The estimator with the guide's entropy in closed form."""

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo._reparameterized import SampleMeanELBO
from pyrovae.elbo.base import NoClosedFormError
from pyrovae.programs import PairedSite, Site, describe, is_delta, without_mask


class ClosedFormEntropyELBO(SampleMeanELBO):
    """−ELBO as E_q[log p(x|z) + β log p(z)] sampled, plus β times q's entropy in closed form.

    For a location–scale q its gradient equals ``MonteCarloELBO``'s sample by sample; only the value differs.

    Raises:
        NoClosedFormError: a site's distribution has no closed-form entropy.
    """

    _computation = Computation.ENTROPY

    def _latent_part(self, site: PairedSite) -> Tensor:
        if is_delta(site.site["fn"]):  # a point's part of log q is constant
            return -site.log_ratio().sum()
        model, guide = site.both()
        log_p: Tensor = model["log_prob_sum"]
        return log_p + _entropy(site.name, guide)

    def _auxiliary_part(self, site: PairedSite) -> Tensor:
        if is_delta(site.site["fn"]):
            return super()._auxiliary_part(site)
        return _entropy(site.name, site.site)


def _entropy(name: str, site: Site) -> Tensor:
    """The entropy of a guide's site with its scale and mask, summed over the plate."""
    q, masks = without_mask(site["fn"])
    try:
        entropy = q.entropy()
    except NotImplementedError:
        raise NoClosedFormError(
            f"no closed form for the entropy of {describe(site['fn'])} at site {name!r}; use MonteCarloELBO"
        ) from None
    for mask in masks:
        entropy = scale_and_mask(entropy, 1.0, torch.as_tensor(mask, device=entropy.device))
    scaled: Tensor = scale_and_mask(entropy, site["scale"], site["mask"])
    return scaled.sum()
