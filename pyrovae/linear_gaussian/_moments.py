"""Data that stand for larger data: a linear-Gaussian model's likelihood needs their mean and covariance alone."""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from pyrovae.blocks import blocks, is_mapped
from pyrovae.errors import InputError

_MOST_BYTES = 2**31
"""What cannot be condensed is taken into memory, up to so many bytes."""


def _nothing() -> None:
    return None


_known: tuple[Callable[[], Tensor | None], int, Tensor] = _nothing, 0, torch.empty(0)
"""The last data of a file, their version, and the few rows that stand for them: each linear model asks for them."""


def few_rows(x: Tensor) -> Tensor:
    """Data x (num, n) in float64; for a mapped file at most 2n rows of the same mean and covariance, from one pass.

    With the standard deviations s and the correlation matrix VΛVᵀ, of r eigenvalues λ_i > 0, these are m ± √(r λ_i) s
    v_i. Data with missing values stay as they are, as do those of more channels than half their number.

    Raises:
        InputError: they lie in a file and would need more than 2 GiB.
    """
    global _known
    if not is_mapped(x) or x.dim() != 2:
        return x.double()
    same, version, found = _known
    if same() is not x or version != x._version:
        found = _few_rows(x)
        _known = weakref.ref(x), x._version, found
    return found


def _few_rows(x: Tensor) -> Tensor:
    mean, covariance = moments(x) if 2 * x.shape[1] <= len(x) else (x[0], x.new_full((), torch.nan))
    if not covariance.isfinite().all():
        if 8 * x.numel() > _MOST_BYTES:
            raise InputError(
                f"linear models of data that lie in a file need complete data, more than twice as many as channels, "
                f"not {tuple(x.shape)} with missing values or as many channels: give fewer data"
            )
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


def rows_with(covariance: Tensor) -> Tensor:
    """Data of mean 0 that have this covariance, shape (2n, n)."""
    values, axes = torch.linalg.eigh(covariance)
    root = (axes * (len(values) * values.clamp_min(0)).sqrt()).T
    return torch.cat([root, -root])
