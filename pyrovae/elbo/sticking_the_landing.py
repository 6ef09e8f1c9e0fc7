"""The estimator whose guide gradient vanishes at the exact posterior."""

from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo._path_derivative import PathDerivativeELBO
from pyrovae.elbo.base import SampleMeanELBO
from pyrovae.programs import Site


class StickingTheLandingELBO(PathDerivativeELBO, SampleMeanELBO):
    """−ELBO with log q at detached guide parameters (Roeder et al. 2017): the path derivative alone.

    Its mean is Monte Carlo's; the *guide's* gradient has no variance at the exact posterior, and more than
    Monte Carlo's where q is much too narrow.
    """

    _computation = Computation.PATH_DERIVATIVE

    def _latent_part(self, name: str, site: Site, guide_site: Site) -> Tensor:
        return site["log_prob_sum"] - scale_and_mask(guide_site["log_q"], guide_site["scale"], guide_site["mask"]).sum()
