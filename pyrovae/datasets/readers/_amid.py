"""Columns amid nameless channels that are no channels: classes and properties between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._labels import Apart, least_difference, some_values, z

_MOST = 4
_AROUND = 5
_UNLINKED = 0.9
_FAR = 5.0
_MOST_DECIMALS = 7


def columns_amid(values: NDArray[np.float64]) -> list[tuple[int, Apart]]:
    """Columns between others, with the evidence that they are no channels: fewer digits, or no link to neighbours."""
    num, n = values.shape
    if num < 8 or n < 8:
        return []
    varies = np.fmin.reduce(values) < np.fmax.reduce(values)
    found: dict[int, str] = {}
    decimals = _decimals(values)
    fewest = np.median(decimals) - 2
    few = np.flatnonzero(varies & (decimals <= fewest))
    rest = np.delete(decimals, few)
    if 0 < len(few) <= min(_MOST, n // 4) and rest.min() >= (decimals[few].max() + 2 if decimals[few].any() else 1):
        for j in few.tolist():
            what = "whole numbers" if decimals[j] == 0 else "numbers of fewer digits"
            found[j] = f"holds {what} ({some_values(values[:, j])}), and no other column does"
    for j in _unlinked(values):
        if varies[j]:
            what = f"does not go with its neighbours ({some_values(values[:, j])}), which go with each other"
            found.setdefault(j, what)
    first, last = (next((k for k, j in enumerate(order) if j not in found), n) for order in (range(n), range(n)[::-1]))
    return [(j, Apart(1, what)) for j, what in sorted(found.items()) if first < j < n - last]


def _decimals(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of digits after the point that each column needs."""
    found = np.full(values.shape[1], _MOST_DECIMALS)
    scale = np.fmax.reduce(np.abs(values), axis=0)
    for digits in range(_MOST_DECIMALS - 1, -1, -1):
        with np.errstate(invalid="ignore"):
            near = np.abs(values - values.round(digits)) <= 1e-9 * scale
        found[(near | np.isnan(values)).all(0)] = digits
    return found


def _unlinked(values: NDArray[np.float64]) -> list[int]:
    """Columns, up to four side by side, that do not go with those around them, which go with each other."""
    n = values.shape[1]
    seen = np.isfinite(values).sum(0)
    filled = np.where(np.isnan(values), np.nansum(values, axis=0) / np.maximum(seen, 1), values)
    deviations = filled - filled.mean(0)
    norms = np.sqrt(np.square(deviations).sum(0))
    units = deviations / np.where(norms > 0, norms, 1.0)
    links = [np.empty(0)] + [(units[:, :-k] * units[:, k:]).sum(0) for k in range(1, _MOST + 2)]  # with the k-th next
    steps = [np.empty(0)] + [np.median(np.abs(filled[:, k:] - filled[:, :-k]), axis=0) for k in range(1, _MOST + 2)]
    least, found, j = least_difference(values), list[int](), 1
    while j < n - 1:
        count = next((k for k in range(1, min(_MOST, n - 1 - j) + 1) if _is_apart(links, steps, j, k, least)), 0)
        found += range(j, j + count)
        j += count + 1
    return found


def _is_apart(
    links: list[NDArray[np.float64]], steps: list[NDArray[np.float64]], j: int, count: int, least: float
) -> bool:
    """Whether columns from the j-th on go with neither of their neighbours."""
    ends = [j - 1, j + count - 1]
    around = [
        i for i in (*range(max(0, j - 1 - _AROUND), j - 1), *range(j + count, j + count + _AROUND)) if i < len(links[1])
    ]
    nearest = max(links[1][ends].max(), 0.0)
    if len(around) < 3 or nearest > _UNLINKED:
        return False
    usual = min(np.sort(links[1][around])[len(around) // 4], links[count + 1][j - 1])  # others may be apart, too
    largest = max(steps[1][around].max(), steps[count + 1][j - 1])
    return z(usual) - z(nearest) > least or bool(steps[1][ends].min() > _FAR * largest > 0)
