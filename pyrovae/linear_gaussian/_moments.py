"""Data that stand for larger data: a linear-Gaussian model's likelihood needs their mean and covariance alone."""

import torch
from torch import Tensor

from pyrovae.blocks import blocks, is_mapped


def few_rows(x: Tensor) -> Tensor:
    """Data x (num, n) in float64; for a mapped file at most 2n rows of the same mean and covariance, from one pass.

    With the standard deviations s and the correlation matrix VΛVᵀ, of r eigenvalues λ_i > 0, these are m ± √(r λ_i) s
    v_i. Data with missing values stay as they are, as do those of more channels than half their number.
    """
    if not is_mapped(x) or x.dim() != 2 or 2 * x.shape[1] > len(x):
        return x.double()
    mean, covariance = moments(x)
    if not covariance.isfinite().all():
        return x.double()
    scale = covariance.diagonal().sqrt()
    rounding = torch.finfo(scale.dtype).eps
    scale = torch.where(scale > 4 * rounding * mean.abs(), scale, 0.0)  # a constant channel stays constant
    inverse = torch.where(scale > 0, 1 / scale, 0.0)
    values, axes = torch.linalg.eigh(inverse.unsqueeze(-1) * covariance * inverse)
    found = values > rounding * len(values) * values[-1]
    if not found.any():
        return mean.expand(2, -1)
    away = (axes[:, found] * (found.sum() * values[found]).sqrt()).T * scale
    return torch.cat([mean + away, mean - away])


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (n,) and covariance (n, n) of data (num, n) in float64, a block at a time."""
    n = x.shape[1]
    mean, squares, num = torch.zeros(n).double(), torch.zeros(n, n).double(), 0
    for block in blocks(x):
        rows = block.double()
        of_block = rows.mean(0)
        rows -= of_block
        moved, share = of_block - mean, len(rows) / (num + len(rows))
        squares += rows.T @ rows + num * share * moved.outer(moved)
        mean += share * moved
        num += len(rows)
    return mean, squares / num
