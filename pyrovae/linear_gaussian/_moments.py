"""Data that stand for larger data: a linear-Gaussian model's likelihood needs their mean and covariance alone."""

import torch
from torch import Tensor

from pyrovae.blocks import blocks, is_large


def few_rows(x: Tensor) -> Tensor:
    """Data x (num, n) in float64; if they are large, at most 2n rows of the same mean and covariance, from one pass.

    With S = VΛVᵀ and r eigenvalues λ_i > 0 these are m ± √(r λ_i) v_i. Data with missing values stay as they are, as do
    those of more channels than half their number.
    """
    if not is_large(x) or x.dim() != 2 or 2 * x.shape[1] > len(x):
        return x.double()
    mean, covariance = moments(x)
    if not covariance.isfinite().all():
        return x.double()
    values, axes = torch.linalg.eigh(covariance)
    found = values > torch.finfo(values.dtype).eps * len(values) * values[-1]
    axes = (axes[:, found] * (found.sum() * values[found]).sqrt()).T
    return torch.cat([mean + axes, mean - axes])


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (n,) and covariance (n, n) of data (num, n) in float64, a block at a time."""
    centre = x[: min(len(x), 1000)].double().mean(0)  # sums of what is near 0 lose no digits
    total, products = torch.zeros_like(centre), centre.new_zeros(len(centre), len(centre))
    for block in blocks(x):
        rows = block.double() - centre
        total += rows.sum(0)
        products += rows.T @ rows
    off = total / len(x)
    return centre + off, products / len(x) - off.outer(off)
