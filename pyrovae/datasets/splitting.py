"""Split data into parts: at random, by whole groups, or in contiguous blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrovae.datasets._copies import columns_of_samples, copies, joined
from pyrovae.datasets.spectra import Spectra
from pyrovae.errors import InputError
from pyrovae.frames import Data, tensor_of

DEFAULT_SHARES = (0.7, 0.15, 0.15)
"""Training, validation and test."""


class SplitMethod(StrEnum):
    """How :func:`split_spectra` chose the parts."""

    RANDOM = "random"
    """At random; copies stay in one part."""
    GROUPS = "groups"
    """By whole groups, in random order."""
    DAYS = "days"
    """In blocks of whole days, in the order of time."""


@dataclass(frozen=True, eq=False)
class SpectraSplit:
    """Spectra to train on, to validate on and to test on, and how they were chosen.

    Attributes:
        train: the first part.
        validation: the second.
        test: the third.
        method: how they were chosen.
        column: column of the targets with the groups or the times; None if split at random.
        num_groups: number of groups or days in all, None if split at random.
        num_test_groups: number of groups or days in the test part, None if split at random.
        num_copies: number of spectra that equal an earlier one; 0 if split by days.
        num_near: number of further spectra that are near copies of an earlier one; 0 if split by days.
        allow_replicates: whether copies were allowed to be in different parts.
        test_groups: label of each test spectrum; spectra with one label are not independent. None if all are.
        proposed: columns of the targets that look like names of samples measured several times, if split at random.
    """

    train: Spectra
    validation: Spectra
    test: Spectra
    method: SplitMethod
    column: str | None = None
    num_groups: int | None = None
    num_test_groups: int | None = None
    num_copies: int = 0
    num_near: int = 0
    allow_replicates: bool = False
    test_groups: NDArray[np.int64] | None = None
    proposed: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Spectra, Spectra, Spectra]:
        """Training, validation and test part."""
        return self.train, self.validation, self.test

    @property
    def num_independent(self) -> int:
        """Number of independent test data: of groups, if they are in groups."""
        return len(self.test) if self.test_groups is None else len(set(self.test_groups.tolist()))

    def num_enough(self, least: int) -> int:
        """About how many spectra, of the same kind and split in the same way, give ``least`` independent test data."""
        return math.ceil(math.ceil(least / DEFAULT_SHARES[-1]) * len(self.test) / self.num_independent)

    def describe(self) -> str:
        """How the spectra were split, in words that follow "split"."""
        if self.method is SplitMethod.GROUPS:
            return f"by {self.column} ({self.num_groups} groups, none in two parts)"
        if self.method is SplitMethod.DAYS:
            return f"in blocks of whole days by {self.column} ({self.num_groups} days, none in two parts)"
        return "at random"

    def notes(self) -> list[str]:
        """Notes for reading results on the test part, one clause each."""
        found = [say_copies(self.num_copies, self.num_near, allowed=self.allow_replicates)]
        found += [say_proposed(self.proposed), say_groups(self.method, self.num_test_groups)]
        return [note for note in found if note]


def say_copies(num_copies: int, num_near: int, *, allowed: bool) -> str:
    """What is to know of equal and near copies, in a clause; empty where there are none."""
    kinds = [f"{num_copies} spectra are copies of others"] if num_copies else []
    kinds += [f"{num_near} spectra are near copies of others, as of a sample measured again"] if num_near else []
    if not kinds:
        return ""
    what = ", and may be in different parts, so results are too good" if allowed else ""
    return " and ".join(kinds) + (what or ", and are in the same part")


def say_proposed(columns: Sequence[str]) -> str:
    """That columns may name samples, in a clause; empty of none."""
    if not columns:
        return ""
    return (
        f"{' or '.join(columns)} may name samples that were measured several times; if so, keep them together with "
        f"--group {columns[0]}"
    )


def say_groups(method: SplitMethod, num_test_groups: int | None) -> str:
    """How many groups or days the test part has, in a clause; empty where there are none."""
    if method is SplitMethod.DAYS:
        return f"the test spectra are from {num_test_groups} day(s), and errors do not cover differences between days"
    if method is SplitMethod.GROUPS:
        return f"the test spectra are from {num_test_groups} group(s), and each group counts as one"
    return ""


def split_spectra(
    spectra: Spectra,
    time_column: str = "datetime",
    *,
    group: str | None = None,
    allow_replicates: bool = False,
    seed: int = 0,
) -> SpectraSplit:
    """Split spectra into 70 % training, 15 % validation and 15 % test data, without leaks between the parts.

    The split is by the groups in a column, if one is given; otherwise in blocks of whole days, if there is a column of
    times; otherwise at random. Except in splits by days, copies stay together: spectra that are equal in every channel,
    and near copies, such as repeated measurements of one sample.

    Args:
        spectra: the spectra to split.
        time_column: column of ``spectra.targets``; it need not exist.
        group: column of ``spectra.targets`` whose equal values stay in one part, such as the sample of several
            measurements; it takes precedence over the times.
        allow_replicates: let copies be in different parts.
        seed: seed of the random split.

    Raises:
        InputError: there is no such column, or it has too few values or missing ones.
    """
    if group is None and time_column in spectra.targets:
        spectra = spectra.sorted_by(time_column, dates=True)
        days = spectra.groups(time_column, by_day=True)
        indices = split_into_blocks(len(spectra), groups=days)
        num_test = len(set(days[indices[-1].numpy()]))
        train, validation, test = map(spectra.take, indices)
        return SpectraSplit(train, validation, test, SplitMethod.DAYS, time_column, len(set(days)), num_test)
    labels = np.arange(len(spectra)) if group is None else _codes(spectra.groups(group))
    num_groups, (equal, near) = len(set(labels.tolist())), copies(spectra.x)
    if not allow_replicates:
        labels = joined(labels, near)
    alone = len(set(labels.tolist())) == len(spectra)
    indices = split_randomly(len(spectra), seed=seed) if alone else split_by_group(labels, seed=seed)
    train, validation, test = map(spectra.take, indices)
    in_test = indices[-1].numpy()
    num_equal = int(equal.max()) + 1
    return SpectraSplit(
        train,
        validation,
        test,
        SplitMethod.RANDOM if group is None else SplitMethod.GROUPS,
        group,
        None if group is None else num_groups,
        None if group is None else len(set(spectra.groups(group)[in_test])),
        num_copies=len(spectra) - num_equal,
        num_near=num_equal - int(near.max()) - 1,
        allow_replicates=allow_replicates,
        test_groups=None if alone else labels[in_test],
        proposed=columns_of_samples(spectra.targets) if group is None else (),
    )


def find_copies(x: Data) -> NDArray[np.int64]:
    """Label each row of data x (num, n), from 0: rows that are equal, or near copies, have the same label.

    Near copies are sets of up to ten rows that are much closer to each other than to any other row, like measurements
    of one sample: chance gives one such set in 5,000. They are distinguished from chance neighbours if at least one row
    in twenty is a near copy.

    Example:
        >>> x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> again = x + 1e-3 * torch.randn(100, 5, generator=torch.Generator().manual_seed(1))
        >>> labels = find_copies(torch.cat([x, again]))
        >>> bool((labels[:100] == labels[100:]).all())
        True
    """
    return copies(tensor_of("x", x))[1]


def split_randomly(num: int, shares: Sequence[float] = DEFAULT_SHARES, *, seed: int = 0) -> list[Tensor]:
    """Indices of each part of ``num`` data, shuffled.

    Use it for data that are independent of each other. Repeated measurements of one sample belong in one part
    (:func:`split_by_group`), and neighbours in time are nearly copies (:func:`split_into_blocks`).

    Args:
        num: number of data.
        shares: shares of the parts, summing to 1.
        seed: seed of the shuffling.

    Raises:
        InputError: shares that do not sum to 1, or a part that would be empty.

    Example:
        >>> [len(part) for part in split_randomly(100)]
        [70, 15, 15]
    """
    order = np.random.default_rng(seed).permutation(num)
    return [torch.as_tensor(part) for part in np.split(order, _bounds(num, shares, "data"))]


def split_by_group(groups: ArrayLike, shares: Sequence[float] = DEFAULT_SHARES, *, seed: int = 0) -> list[Tensor]:
    """Indices of each part, with no group in two parts; the groups are in random order.

    Args:
        groups: label of each datum, shape (num,).
        shares: shares of the parts, summing to 1; whole groups come as near to them as they can.
        seed: seed of the groups' order.

    Raises:
        InputError: fewer groups than parts, a label that is missing, or shares that do not sum to 1.
    """
    codes = _codes(groups)
    order = np.random.default_rng(seed).permutation(codes.max() + 1)
    return _whole(np.argsort(order)[codes], shares)  # a group's place in this order


def split_into_blocks(
    num: int, shares: Sequence[float] = DEFAULT_SHARES, *, groups: ArrayLike | None = None
) -> list[Tensor]:
    """Indices of contiguous parts in the data's order, as needed for a time series.

    Args:
        num: number of data.
        shares: shares of the parts, summing to 1.
        groups: label of each datum, such as its day, shape (num,): no boundary cuts a run of equal labels.

    Raises:
        InputError: a part that would be empty, a label that returns after another, or shares that do not sum to 1.

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


def _codes(groups: ArrayLike) -> NDArray[np.int64]:
    """Labels as integers, in the order in which they appear."""
    import pandas as pd

    codes, _ = pd.factorize(np.asarray(groups, dtype=object))
    if len(codes) == 0:
        raise InputError("there are no data to split")
    if (codes < 0).any():
        raise InputError(f"datum {int(np.argmin(codes))} (counted from 0) has no group label")
    return codes.astype(np.int64)


def _bounds(num: int, shares: Sequence[float], what: str) -> NDArray[np.int64]:
    if len(shares) < 2 or any(not share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise InputError(f"shares must be two or more positive numbers that sum to 1, not {tuple(shares)}")
    bounds: NDArray[np.int64] = np.rint(np.cumsum(shares)[:-1] * num).astype(np.int64)
    if ((np.diff([0, *bounds, num]) < 1).any() and what == "data") or num < len(shares):
        raise InputError(f"{num} {what} are too few for parts of {', '.join(f'{share:g}' for share in shares)}")
    return bounds
