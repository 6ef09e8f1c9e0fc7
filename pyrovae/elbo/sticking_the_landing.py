"""The estimator whose guide gradient vanishes at the exact posterior."""

from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo._path_derivative import PathDerivativeELBO
from pyrovae.elbo.base import SampleMeanELBO, total
from pyrovae.programs import paired_sites


class StickingTheLandingELBO(PathDerivativeELBO, SampleMeanELBO):
    """−ELBO with log q at detached guide parameters (Roeder et al. 2017): the path derivative alone.

    Its mean is Monte Carlo's; the *guide's* gradient has no variance at the exact posterior, and more than
    Monte Carlo's where q is much too narrow.
    """

    def _bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        terms = []
        for name, site, guide_site in paired_sites(model_trace, guide_trace):
            if guide_site is None:
                terms.append(self._term(name, Computation.SAMPLED, site["log_prob_sum"], site))
            else:
                log_q = scale_and_mask(guide_site["log_q"], guide_site["scale"], guide_site["mask"]).sum()
                value = site["log_prob_sum"] - log_q
                terms.append(self._term(name, Computation.PATH_DERIVATIVE, value, site, guide_site))
        return total(terms)
