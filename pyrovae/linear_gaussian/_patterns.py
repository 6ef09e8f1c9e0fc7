"""Data with missing values, by the channels that are observed together."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pyrovae.blocks import blocks


def patterns(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each set of channels that rows of x (num, n) have observed: booleans (n,), and those rows' numbers."""
    observed, index, counts = torch.unique(~x.isnan(), dim=0, return_inverse=True, return_counts=True)
    rows = index.argsort(stable=True).split(counts.tolist())
    yield from zip(observed, rows, strict=True)


def has_gaps(x: Tensor) -> bool:
    """Whether data hold missing values."""
    return any(bool(rows.isnan().any()) for rows in blocks(x))
