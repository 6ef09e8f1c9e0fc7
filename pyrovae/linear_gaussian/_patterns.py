"""Data with missing values, by the channels that are observed together."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def patterns(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each set of channels that rows of x (num, n) have observed: booleans (n,), and those rows' numbers."""
    observed, index, counts = torch.unique(~x.isnan(), dim=0, return_inverse=True, return_counts=True)
    rows = index.argsort(stable=True).split(counts.tolist())
    yield from zip(observed, rows, strict=True)


def pattern_table(observed: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """A row of each different pattern of booleans (num, n), each row's pattern, and how many rows each pattern has."""
    packed = np.packbits(observed.numpy(), axis=1)
    _, first, index, sizes = np.unique(packed, axis=0, return_index=True, return_inverse=True, return_counts=True)
    return first, index.ravel(), sizes.astype(np.float64)
