"""Markers of missing values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._names import number
from pyrovae.datasets.readers.settings import ReadingSettings

_USUAL = (
    -99.0, -999.0, -9999.0, -99999.0, -999999.0, 9999.0, 99999.0, 999999.0, -32768.0, 65535.0, -1.23e34, 1.23e34,
    1e30, -1e30,
)  # fmt: skip


_DOUBTFUL = (
    0.0, -1.0, 9.99, 99.9, 99.99, 999.9, 999.99, 9999.9, 9999.99, -9.99, -99.9, -99.99, -999.9, -999.99,
)  # fmt: skip
"""Values that mark missing ones, and that occur by themselves."""
_FEWEST, _STEEPER = 3, 2.0
_MANY, _MOST = 0.2, 0.4
_ABSURD = 1e6
"""A value that lies so many ranges of the others away is none of theirs, though it occurs once."""


def given_markers(settings: ReadingSettings) -> list[float]:
    """The user's markers of missing values."""
    found = map(number, settings.missing_words)
    return [value for value in found if value is not None]


def without_markers(values: NDArray[np.floating], markers: list[float]) -> NDArray[np.floating]:
    """Values with these replaced by NaN, where they agree in single precision."""
    if not markers:
        return values
    with np.errstate(over="ignore"):
        is_marker = np.isin(values.astype(np.float32), np.array(markers, np.float32))
    return np.where(is_marker, np.nan, values).astype(values.dtype)


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


def usual_marker_of(values: NDArray[np.floating]) -> float | None:
    """A usual marker, such as −9999, that lies farther from all other values, two at least, than their range.

    Unlike :func:`marker_of` it takes no other value for a marker, as doses such as 0, 1, 10, 10, 1000, 1000 have no
    density.
    """
    seen = values[np.isfinite(values)].astype(np.float64)
    for marker in _USUAL:
        is_marker = np.isclose(seen, marker, rtol=1e-6, atol=0)
        others = seen[~is_marker]
        if is_marker.any() and len(others) > 1 and np.abs(others - marker).min() > np.ptp(others):
            return marker
    return None


def extremes(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """What :func:`marker_of` needs of some values: the ends, twice if they are repeated, and the next ones."""
    seen: NDArray[np.floating] = values[~np.isnan(values)]
    if not seen.size:
        return seen
    low, high = seen.min(), seen.max()
    inner = seen[(seen > low) & (seen < high)]
    next_ones = inner[[inner.argmin(), inner.argmax()]] if inner.size else inner
    found: NDArray[np.floating] = np.concatenate([seen[seen == low][:2], seen[seen == high][:2], next_ones])
    return found


@dataclass(frozen=True)
class Spike:
    """A value that may mark missing values, as it leaps from its neighbours.

    Attributes:
        value: which it is.
        count: how often it occurs.
        place: its first sample and channel.
        is_marker: whether it occurs often enough to be refused.
    """

    value: float
    count: int
    place: tuple[int, int]
    is_marker: bool


def spikes_of(values: NDArray[np.floating]) -> list[Spike]:
    """Usual markers among values of their size, told by their leaps: 999 amid counts of a few hundred.

    A run of one value leaps if it lies above its neighbours at both ends, or below, by ten times what is usual there.
    At an edge of the spectrum there is one neighbour. By chance, a value of its count must do so in less than one table
    of a hundred. Values such as 0, −1 and 99.99, which occur by themselves, must do so by twice the step beside,
    as a clipped value does not; and four times in five, three at least, to be taken for markers. What is there very
    often, as 0 is below a threshold, is none.

    Args:
        values: shape (samples, channels).
    """
    num, n = values.shape
    candidates = [m for m in (*_USUAL, 999.0, 99.0, *_DOUBTFUL) if (values == values.dtype.type(m)).any()]
    if num < 8 or n < 5 or not candidates:
        return []
    some = values[:: -(-num // 200)]
    steps = np.diff(some, axis=1)
    usual = np.array([_median(column) for column in np.abs(np.diff(some, n=2, axis=1)).T]) / 2
    levels = np.unique(some[np.isfinite(some)])
    unit = float(np.diff(levels).min()) if len(levels) > 1 else 0.0  # in which values are rounded
    least = np.pad(np.maximum(10 * np.maximum(usual, _median(usual)), 3 * unit), 1, mode="edge")
    with np.errstate(invalid="ignore"):
        up, down = np.minimum(steps[:, :-1], -steps[:, 1:]), np.minimum(-steps[:, :-1], steps[:, 1:])
        leaps = (up > least[1:-1]) | (down > least[1:-1])
    spikes = []
    for marker in candidates:
        places = values == values.dtype.type(marker)
        found, runs = _leaping_runs(values, places, marker, least)
        others = leaps[~places[:: -(-num // 200), 1:-1]]
        expected = (others.sum() + 1) / (len(others) + 1) * runs
        if not found or found * math.log(expected) - math.lgamma(found + 1) >= math.log(0.01):  # of a Poisson number
            continue
        share = float(places.mean())
        if marker not in _DOUBTFUL or share < _MOST:
            first = tuple(int(i) for i in np.argwhere(places)[0])
            is_marker = marker not in _DOUBTFUL or (found >= max(_FEWEST, 0.8 * runs) and share < _MANY)
            spikes.append(Spike(marker, int(places.sum()), (first[0], first[1]), is_marker))
    return spikes


def _leaping_runs(
    values: NDArray[np.floating], places: NDArray[np.bool_], marker: float, least: NDArray[np.float64]
) -> tuple[int, int]:
    """How many runs of a value, side by side in a spectrum, leap from their neighbours, and how many there are."""
    edges = np.diff(np.pad(places.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    (rows, starts), (_, ends) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    padded = np.pad(np.where(places, np.nan, values).astype(np.float64), ((0, 0), (2, 2)), constant_values=np.nan)
    sides = []
    for near, beyond, at in ((starts + 1, starts, starts), (ends + 2, ends + 3, ends - 1)):
        step, slope = padded[rows, near] - marker, np.abs(padded[rows, beyond] - padded[rows, near])
        leap = np.abs(step) > np.fmax(least[at], _STEEPER * slope * (marker in _DOUBTFUL))
        sides.append(np.where(np.isnan(step), np.nan, np.where(leap, np.sign(step), 0.0)))
    first, last = sides
    both = np.where(np.isnan(first), last, np.where(np.isnan(last), first, np.where(first == last, first, 0.0)))
    return int(np.count_nonzero(np.nan_to_num(both))), len(rows)


def _median(values: NDArray[np.floating]) -> float:
    found = values[np.isfinite(values)]
    return float(np.median(found)) if len(found) else 0.0


def cleaned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values without the values that seem to be markers."""
    for _ in range(4):
        marker = marker_of(values)
        if marker is None:
            break
        values = np.where(values == marker, np.nan, values)
    return values
