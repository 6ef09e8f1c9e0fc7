"""Covariances estimated from few data: a blend of the data's covariance and a simpler one (Ledoit and Wolf 2004)."""

import math

import torch
from torch import Tensor

SHARES = torch.logspace(-7, 0, 57, dtype=torch.float64)
"""Shares a of the target that are tried. Below the least, data that leave a direction empty could have any density."""


def best_shrinkage(covariance: Tensor, target: Tensor, held_out: Tensor) -> tuple[float, float]:
    """The a at which held-out data are likeliest under N(0, (1 − a)S + aT), and their mean log-density in nats.

    With T = CCᵀ, every a has the same eigenvectors, those of C⁻¹SC⁻ᵀ: one decomposition, O(n³), serves all of them.

    Args:
        covariance: S, shape (n, n), float64; it may be singular.
        target: T, shape (n, n), float64, positive definite.
        held_out: shape (num, n), float64, less the mean.
    """
    factor = torch.linalg.cholesky(target)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=False)
    values, axes = torch.linalg.eigh(inverse @ covariance @ inverse.T)
    shares = SHARES.unsqueeze(-1)
    shrunk = (1 - shares) * values.clamp_min(0) + shares  # (shares, n)
    squares = (held_out @ inverse.T @ axes).square().mean(0)
    half_log_det = 0.5 * shrunk.log().sum(-1) + factor.diagonal().log().sum()
    log_prob = -0.5 * (squares / shrunk).sum(-1) - half_log_det - 0.5 * len(values) * math.log(2 * math.pi)
    best = int(log_prob.argmax())
    return SHARES[best].item(), log_prob[best].item()


def shrunk(covariance: Tensor, target: Tensor, share: float) -> Tensor:
    """(1 − a)S + aT."""
    return (1 - share) * covariance + share * target
