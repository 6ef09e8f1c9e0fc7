"""Splits of data into parts: at random, by whole groups, or by contiguous blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrovae.errors import InputError

DEFAULT_SHARES = (0.7, 0.15, 0.15)
"""Training, validation and test."""


def split_randomly(num: int, shares: Sequence[float] = DEFAULT_SHARES, *, seed: int = 0) -> list[Tensor]:
    """Indices of each part of ``num`` data, shuffled.

    For data that are independent of each other; repeated measurements of one sample belong in one part, and
    neighbours in time are nearly copies: :func:`split_by_group`, :func:`split_into_blocks`.

    Args:
        num: number of data.
        shares: of the parts, summing to 1.
        seed: of the shuffling.

    Raises:
        InputError: shares that do not sum to 1, or a part that would be empty.

    Example:
        >>> [len(part) for part in split_randomly(100)]
        [70, 15, 15]
    """
    order = np.random.default_rng(seed).permutation(num)
    return [torch.as_tensor(part) for part in np.split(order, _bounds(num, shares, "data"))]


def split_by_group(groups: ArrayLike, shares: Sequence[float] = DEFAULT_SHARES, *, seed: int = 0) -> list[Tensor]:
    """Indices of each part, no group in two of them: groups in random order, to the parts' shares of the data.

    Args:
        groups: label of each datum, shape (num,).
        shares: of the parts, summing to 1; met as nearly as whole groups allow.
        seed: of the groups' order.

    Raises:
        InputError: fewer groups than parts, a label that is missing, or shares that do not sum to 1.
    """
    codes = _codes(groups)
    order = np.random.default_rng(seed).permutation(codes.max() + 1)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return _whole(rank[codes], shares)


def split_into_blocks(
    num: int, shares: Sequence[float] = DEFAULT_SHARES, *, groups: ArrayLike | None = None
) -> list[Tensor]:
    """Indices of contiguous parts in the data's order, as a series in time needs: the first part first.

    Args:
        num: number of data.
        shares: of the parts, summing to 1.
        groups: label of each datum, such as its day, shape (num,): no boundary then cuts a run of equal labels.

    Raises:
        InputError: a part that would be empty, a label that comes back after another, or shares that do not sum to 1.

    Example:
        >>> [part.tolist() for part in split_into_blocks(6, (0.5, 0.5), groups=list("aaaabb"))]
        [[0, 1, 2, 3], [4, 5]]
    """
    if groups is None:
        return [torch.as_tensor(part) for part in np.split(np.arange(num), _bounds(num, shares, "data"))]
    codes = _codes(groups)
    if len(codes) != num:
        raise InputError(f"there are {len(codes)} group labels for {num} data")
    run = np.concatenate([[0], np.cumsum(codes[1:] != codes[:-1])])
    if run[-1] > codes.max():
        raise InputError("a group comes back after another, so contiguous parts would share it; sort the data by it")
    return _whole(run, shares)


def _whole(codes: NDArray[np.int64], shares: Sequence[float]) -> list[Tensor]:
    """Parts of whole groups, taken in the order of their codes: a boundary goes to the nearest end of a group."""
    ends = np.cumsum(np.bincount(codes))
    _bounds(len(ends), shares, "groups")
    cuts: list[int] = []
    for i, wanted in enumerate(np.cumsum(shares)[:-1] * ends[-1]):
        first = cuts[-1] + 1 if cuts else 0
        last = len(ends) - (len(shares) - 1 - i)  # leaves a group for each part to come
        cuts.append(first + int(np.argmin(np.abs(ends[first:last] - wanted))))
    part = np.searchsorted(np.array(cuts), codes)
    return [torch.as_tensor(np.flatnonzero(part == i)) for i in range(len(shares))]


def _codes(groups: Any) -> NDArray[np.int64]:
    """Labels as integers, in the order in which they appear."""
    codes, _ = pd.factorize(np.asarray(groups, dtype=object))
    if len(codes) == 0:
        raise InputError("there are no data to split")
    if (codes < 0).any():
        raise InputError(f"datum {int(np.argmin(codes))} (counted from 0) has no group label")
    return codes.astype(np.int64)


def _bounds(num: int, shares: Sequence[float], what: str) -> NDArray[np.int64]:
    if len(shares) < 2 or any(not share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise InputError(f"shares must be two or more positive numbers that sum to 1, not {tuple(shares)}")
    bounds = np.rint(np.cumsum(shares)[:-1] * num).astype(np.int64)
    if ((np.diff([0, *bounds, num]) < 1).any() and what == "data") or num < len(shares):
        raise InputError(f"{num} {what} are too few for parts of {', '.join(f'{share:g}' for share in shares)}")
    return bounds
