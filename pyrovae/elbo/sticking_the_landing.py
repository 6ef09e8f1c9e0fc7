"""The estimator whose guide gradient vanishes at the exact posterior."""

from torch import Tensor

from pyrovae.elbo._computation import Computation
from pyrovae.elbo._path_derivative import PathDerivativeELBO
from pyrovae.elbo._reparameterized import SampleMeanELBO
from pyrovae.programs import PairedSite


class StickingTheLandingELBO(PathDerivativeELBO, SampleMeanELBO):
    """−ELBO with log q at detached guide parameters (Roeder et al. 2017): the path derivative alone.

    Its mean is that of ``MonteCarloELBO``. The *guide's* gradient has no variance at the exact posterior. Where q is
    too narrow in a direction, its noise is larger than Monte Carlo's by up to the ratio of the posterior's standard
    deviation to that of q: with a sharp likelihood, start q at the posterior's scale
    (:func:`~pyrovae.start_as_linear`).
    """

    _computation = Computation.PATH_DERIVATIVE

    def _latent_part(self, site: PairedSite) -> Tensor:
        model, guide = site.both()
        log_p: Tensor = model["log_prob_sum"]
        return log_p - site.log_q(guide["log_q"]).sum()

    def _auxiliary_part(self, site: PairedSite) -> Tensor:
        return -site.log_q(site.site["log_q"]).sum()
