"""The estimator with the KL in closed form."""

from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.elbo.base import NoClosedFormError, ReparameterizedELBO, describe


class AnalyticELBO(ReparameterizedELBO, TraceMeanField_ELBO):
    """−ELBO with the KL in closed form: E_q[log p(x|z)] sampled, β KL(q(z|x) ‖ p(z)) exact.

    Pyro's ``TraceMeanField_ELBO`` made strict: where a pair of distributions has no registered KL the
    stock one samples without a word, this one raises, and it never evaluates log q.

    Raises:
        NoClosedFormError: a site's KL is registered nowhere; names the site and both distributions.
    """

    def _scored(self, name: str, site: dict[str, Any]) -> bool:
        return site["is_observed"]

    def _bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        bound: Any = 0.0
        for name, site in model_trace.nodes.items():
            if site["type"] == "sample":
                if site["is_observed"]:
                    bound = bound + site["log_prob_sum"]
                else:
                    bound = bound - self._site_kl(name, guide_trace.nodes[name], site).sum()
        return bound

    @staticmethod
    def _site_kl(name: str, guide_site: dict[str, Any], model_site: dict[str, Any]) -> Tensor:
        """β KL(q ‖ p) of a latent site, shape (*batch), with the guide's scale and mask."""
        q, p = guide_site["fn"], model_site["fn"]
        for what in ("scale", "mask"):
            if not _same(guide_site[what], model_site[what]):
                raise ValueError(
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
        return scale_and_mask(kl.expand(q.batch_shape), guide_site["scale"], guide_site["mask"])


def _same(left: Any, right: Any) -> bool:
    """Whether two scales or masks, numbers, tensors or None, are equal."""
    if left is right:
        return True
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        # a comparison of values waits for the device: only where Pyro validates
        return not is_validation_enabled() or torch.equal(left, right)
    return not isinstance(left, Tensor) and not isinstance(right, Tensor) and left == right
