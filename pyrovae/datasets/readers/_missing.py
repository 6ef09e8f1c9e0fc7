"""Markers of missing values."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import number
from pyrovae.datasets.readers.settings import NONE, ReadingSettings

_USUAL = (
    -99.0, -999.0, -9999.0, -99999.0, -999999.0, 9999.0, 99999.0, 999999.0, -32768.0, 65535.0, -1.23e34, 1.23e34,
    1e30, -1e30,
)  # fmt: skip


_ABSURD = 1e6
"""A value that lies so many ranges of the others away is none of theirs, though it occurs once."""


def given_markers(settings: ReadingSettings) -> list[float]:
    """The user's markers of missing values."""
    found = (number(word) for word in settings.missing_value or () if word != NONE)
    return [value for value in found if value is not None]


def without_markers(values: NDArray[np.floating], markers: list[float]) -> NDArray[np.floating]:
    """Values with these replaced by NaN."""
    if not markers:
        return values
    return np.where(np.isin(values, np.array(markers).astype(values.dtype)), np.nan, values).astype(values.dtype)


def marker_of(values: NDArray[np.floating]) -> float | None:
    """A value that seems to mark missing values: the smallest or the largest, far from all others, and repeated.

    It lies farther from the other values than twice their range and occurs at least twice; a usual marker, such as
    −9999, may occur once and nearer, and any value once that is a million times as far.
    """
    if values.size < 3:
        return None
    with np.errstate(invalid="ignore"):
        low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if not np.isfinite(low) or not np.isfinite(high) or low == high:
        return None
    inner = values[(values > low) & (values < high)].astype(np.float64)
    if inner.size == 0:
        return None
    first, last = float(inner.min()), float(inner.max())
    for value, gap in ((float(low), first - float(low)), (float(high), float(high) - last)):
        if last == first or gap <= last - first:
            continue
        usual = any(np.isclose(value, marker, rtol=1e-6, atol=0) for marker in _USUAL)
        repeated = np.count_nonzero(values == value) > 1
        if usual or gap > (2 if repeated else _ABSURD) * (last - first):
            return value
    return None


def spike_of(values: NDArray[np.floating]) -> float | None:
    """A usual marker among values of its size, told by its leaps: 999 amid counts of a few hundred.

    It leaps if it lies above both of its neighbours in the spectrum, or below, by ten times what is usual there.
    By chance, a value of its count must do so in less than one table of a hundred; 0 and −1, which occur by themselves,
    must do so four times in five.

    Args:
        values: shape (samples, channels).
    """
    num, n = values.shape
    candidates = [marker for marker in (*_USUAL, 999.0, 99.0, 0.0, -1.0) if (values == values.dtype.type(marker)).any()]
    if num < 8 or n < 5 or not candidates:
        return None
    some = values[:: -(-num // 200)]
    steps = np.diff(some, axis=1)
    usual = np.array([_median(column) for column in np.abs(np.diff(some, n=2, axis=1)).T]) / 2
    least = 10 * np.maximum(usual, _median(usual))
    with np.errstate(invalid="ignore"):
        leaps = (np.minimum(steps[:, :-1], -steps[:, 1:]) > least) | (np.minimum(-steps[:, :-1], steps[:, 1:]) > least)
    for marker in candidates:
        rows, columns = np.nonzero(values[:, 1:-1] == values.dtype.type(marker))
        if not len(rows):
            continue
        beside = np.stack([values[rows, columns], values[rows, columns + 2]]) - marker
        beside[beside == 0] = np.nan  # two markers side by side
        found = np.count_nonzero((np.fmin.reduce(beside) > least[columns]) | (np.fmax.reduce(beside) < -least[columns]))
        if not found:
            continue
        others = leaps[some[:, 1:-1] != values.dtype.type(marker)]
        expected = (others.sum() + 1) / len(others) * len(rows)
        by_chance = found * math.log(expected) - math.lgamma(found + 1)  # of a Poisson number, in logarithms
        if found >= (max(3.0, 0.8 * len(rows)) if marker in (0, -1) else 1) and by_chance < math.log(0.01):
            return marker
    return None


def _median(values: NDArray[np.floating]) -> float:
    seen = values[np.isfinite(values)]
    return float(np.median(seen)) if len(seen) else 0.0


def cleaned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values without the values that seem to be markers."""
    for _ in range(4):
        marker = marker_of(values)
        if marker is None:
            break
        values = np.where(values == marker, np.nan, values)
    return values
