"""The info variant's estimator: the ELBO less the maximum mean discrepancy of the aggregate posterior to the prior."""

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.programs import TracedPair


def squared_mmd(z: Tensor) -> Tensor:
    """Unbiased estimate of MMD²(q(z) ‖ N(0, I)) from draws z (num, d), num ≥ 2.

    The kernel is k(z, z') = exp(−‖z − z'‖² / 2d): two draws of the prior are 2d apart in squared distance, on
    average. What concerns the prior is in closed form: E k(z, z') = (d/(d+1))^(d/2) exp(−‖z‖² / 2(d+1)) over one
    draw z', and (d/(d+2))^(d/2) over two; Gretton et al. 2012.
    """
    num, d = z.shape
    squares = z.square().sum(-1)
    distances = squares.unsqueeze(-1) + squares - 2 * z @ z.mT
    apart = 1 - torch.eye(num, dtype=z.dtype, device=z.device)
    between_draws = ((-distances.clamp_min(0) / (2 * d)).exp() * apart).sum() / (num * (num - 1))
    across = (d / (d + 1)) ** (d / 2) * (-squares / (2 * (d + 1))).exp().mean()
    return between_draws - 2 * across + (d / (d + 2)) ** (d / 2)


class InfoELBO(pv.AnalyticELBO):
    """E_q[log p(x|z)] − (1 − α) KL(q(z|x) ‖ p(z)) − (α + λ − 1) MMD²(q(z) ‖ p(z)), of InfoVAE (Zhao et al. 2019).

    The aggregate q(z) is the batch's, the prior N(0, I). With α = 0, λ = 1 this is the ELBO; else it bounds nothing,
    and what is reported is the ELBO.

    Args:
        alpha: α ≤ 1.
        weight: λ.
    """

    def __init__(self, alpha: float = 0.0, weight: float = 1000.0) -> None:
        super().__init__(beta=1 - alpha)
        self.alpha, self.weight = alpha, weight

    def _bound(self, pair: TracedPair) -> Tensor:
        z = pair.guide.nodes["z"]["value"]
        bound = super()._bound(pair)
        if len(z) < 2:  # a last batch of one datum: no two draws to compare
            return bound
        return bound - (self.alpha + self.weight - 1) * len(z) * squared_mmd(z)
