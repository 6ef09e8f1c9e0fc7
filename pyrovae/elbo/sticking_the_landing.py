"""The estimator whose guide gradient vanishes at the exact posterior."""

from typing import Any

from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.elbo.base import SampleMeanELBO
from pyrovae.elbo.path_derivative import PathDerivativeELBO


class StickingTheLandingELBO(PathDerivativeELBO, SampleMeanELBO):
    """−ELBO with log q at detached guide parameters (Roeder et al. 2017): the path derivative alone.

    Its mean is Monte Carlo's; the *guide's* gradient has no variance at the exact posterior, and more than
    Monte Carlo's where q is much too narrow.
    """

    def _bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        bound: Any = 0.0
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample":
                continue
            value, guide_site = site["log_prob_sum"], None
            if not site["is_observed"]:
                guide_site = guide_trace.nodes[name]
                value = value - scale_and_mask(guide_site["log_q"], guide_site["scale"], guide_site["mask"]).sum()
            how = "sampled" if guide_site is None else "sampled, path derivative"
            bound = bound + self._term(name, how, value, site, guide_site)
        return bound
