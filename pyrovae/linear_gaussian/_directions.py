"""The directions along which data vary most: all of them, or the first if there are many."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyrovae.linear_gaussian._moments import few_rows

DENSE = 1000
"""Channels or data, whichever are fewer, up to which every direction is computed."""
FIRST = 64
"""How many are, of more."""


@dataclass(frozen=True)
class Directions:
    """The mean of data, and the largest eigenvalues and eigenvectors of their covariance S.

    Attributes:
        mean: shape (n,).
        values: eigenvalues of S, the largest first, shape (k,).
        axes: their eigenvectors, shape (n, k).
        trace: trace of S.
    """

    mean: Tensor
    values: Tensor
    axes: Tensor
    trace: float

    @property
    def n(self) -> int:
        """Number of channels."""
        return len(self.mean)

    def noise_variances(self) -> Tensor:
        """The mean of the n − d smallest eigenvalues for d = 1 … k, shape (k,); d = n has none, and counts as 0."""
        left = self.n - torch.arange(1, len(self.values) + 1)
        return (self.trace - self.values.cumsum(0)).clamp_min(0) / left.clamp_min(1)


def principal_directions(x: Tensor, first: int = FIRST, dense: int = DENSE) -> Directions:
    """Those of data x (num, n), from the smaller of the (n, n) covariance and the (num, num) inner products.

    Up to ``dense`` of these all are found, by a dense decomposition; of more the ``first``, by Lanczos (ARPACK).
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    x = few_rows(x)
    mean = x.mean(0)
    rows = (x - mean) / len(x) ** 0.5
    trace, (num, n) = rows.square().sum().item(), rows.shape
    if min(num, n) <= dense:
        values, axes = torch.linalg.eigh(rows.T @ rows if n <= num else rows @ rows.T)
        values, axes = values.flip(0).clamp_min(0), axes.flip(1)
        if n > num:
            values, axes = values[:-1], axes[:, :-1]  # a centred datum is a sum of the others
            axes = rows.T @ axes / values.sqrt().clamp_min(torch.finfo(values.dtype).tiny)
        return Directions(mean, values, axes, trace)
    matrix = rows.numpy()
    once = LinearOperator((n, n), matvec=lambda v: matrix.T @ (matrix @ v), dtype=np.float64)
    found, vectors = eigsh((matrix.T @ matrix) if n <= num else once, first, v0=np.ones(n), tol=1e-10)
    return Directions(mean, torch.from_numpy(found[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy()), trace)
