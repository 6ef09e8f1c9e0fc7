"""Which latent directions a guide uses."""

import torch
from torch import Tensor

from pyrovae.distributions import mean_of
from pyrovae.registration import mode
from pyrovae.vae import AmortizedGuide


@torch.no_grad()
def active_directions(guide: AmortizedGuide, x: Tensor, threshold: float = 0.01) -> int:
    """Number of latent directions along which the posterior mean moves with x.

    Counts the eigenvalues of Cov_x(E_q[z|x]) above the threshold (Burda et al. 2016 count coordinates,
    which means nothing for a posterior that may be rotated).
    """
    if len(x) < 2:
        raise ValueError("the spread of posterior means needs at least two data")
    with torch.random.fork_rng(devices=[]), mode(guide, guide, training=False):
        means = torch.cat([mean_of(guide.posterior(chunk)) for chunk in x.split(4096)])
    return int((torch.linalg.eigvalsh(torch.cov(means.T.double()).reshape(means.shape[-1], -1)) > threshold).sum())
