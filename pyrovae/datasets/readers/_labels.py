"""Columns at the edge of a table that are not channels: labels, indices and targets among columns without names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FEW = 20
_MOST_TARGETS, _MOST_LIKE = 12, 4


@dataclass(frozen=True)
class EdgeColumn:
    """Evidence that an edge column is not a channel.

    Attributes:
        evidence: in words.
        is_clear: whether there is no evidence against it.
    """

    evidence: str
    is_clear: bool


def edge_column(values: NDArray[np.float64], edge: int) -> EdgeColumn | None:
    """Whether the first (0) or the last (−1) of columns (num, n ≥ 4) is no channel; None if nothing says so."""
    num, n = values.shape
    if num < 4 or n < 4:
        return None
    column, rest = values[:, edge], values[:, 1:] if edge == 0 else values[:, :-1]
    if edge == 0:
        rest = rest[:, ::-1]  # the neighbour comes last
    seen = column[np.isfinite(column)]
    if len(seen) < 4:
        return None
    distinct = len(np.unique(seen))
    whole = _is_whole(seen)
    others = np.array([_is_whole(c[np.isfinite(c)]) for c in rest.T[:: max(1, n // 200)]])
    repeats = distinct <= _FEW and 2 * distinct <= len(seen)
    if whole and not others.any():
        what = f"holds {'few ' if repeats else ''}whole numbers ({_some(seen)}), and no other column does"
        return EdgeColumn(what, distinct > 1)
    if whole and distinct == len(seen) and np.all(np.diff(seen) == 1):
        return EdgeColumn("counts the rows", True)
    if distinct < 2:
        return None
    alike = _neighbours(rest)
    own = abs(_correlation(column, rest[:, -1]))
    if whole and repeats:
        counts = [len(np.unique(c[np.isfinite(c)])) for c in rest.T[:: max(1, n // 50)]]
        if np.median(counts) > 3 * distinct and alike > 0.9 and own < 0.5:
            return EdgeColumn(f"holds few whole numbers ({_some(seen)}) and does not follow its neighbour", True)
        if np.median(counts) > 2 * distinct or (_is_balanced(seen) and not _balanced_share(rest) > 0.1):
            return EdgeColumn(f"holds few whole numbers ({_some(seen)})", False)
    if _jumps(column, rest, own, alike):
        return EdgeColumn(f"does not continue its neighbour (from {_some(rest[:, -1])} to {_some(seen)})", False)
    return None


def edge_block(values: NDArray[np.float64], edge: int) -> int:
    """Number of columns at the left (0) or right (−1) edge that do not go on from their neighbours, as all others do.

    Beside channels that follow each other, targets such as fat and moisture break the chain of correlations.
    """
    num, n = values.shape
    if num < 10 or n < 10:
        return 0
    ordered = values if edge == -1 else values[:, ::-1]
    most = min(_MOST_TARGETS, n // 3)
    links = np.array([_correlation(ordered[:, j], ordered[:, j + 1]) for j in range(n - 2 * most - 2, n - 1)])
    rest = np.array([_correlation(ordered[:, j], ordered[:, j + 1]) for j in range(0, n - 1, max(1, n // 100))])
    levels = np.nanmedian(ordered, axis=0)
    for k in range(most, 0, -1):
        link, inner = (
            links[-k],
            np.concatenate([rest[: max(1, int(len(rest) * (n - 1 - k) / (n - 1)) - 1)], links[:-k]]),
        )
        steps = np.abs(np.diff(levels[: n - k]))
        scatter = float(np.nanmax(ordered[:, : n - k]) - np.nanmin(ordered[:, : n - k]))
        step = abs(float(levels[n - k] - levels[n - k - 1]))
        broken = k <= _MOST_LIKE and _z(float(inner.min())) - _z(max(0.0, link)) > max(0.9, 4 / np.sqrt(num))
        if broken or (step > 10 * max(float(steps.max()), 1e-300) and step > scatter):
            return k
    return 0


def follows(column: NDArray[np.float64], neighbour: NDArray[np.float64], least: float = 0.9) -> bool:
    """Whether a column goes with its neighbour as a channel does: correlated, and at its level."""
    scatter = float(np.nanmax(neighbour) - np.nanmin(neighbour)) if np.isfinite(neighbour).any() else 0.0
    step = abs(float(np.nanmedian(column)) - float(np.nanmedian(neighbour))) if np.isfinite(column).any() else np.inf
    return abs(_correlation(column, neighbour)) > least and step < scatter


def _is_whole(values: NDArray[np.float64]) -> bool:
    return len(values) > 0 and bool((values == np.round(values)).all())


def _is_balanced(values: NDArray[np.float64]) -> bool:
    """Whether values are consecutive whole numbers, each about as often as the others."""
    found, counts = np.unique(values, return_counts=True)
    return (
        len(found) > 1 and bool(np.all(np.diff(found) == 1)) and counts.min() >= 2 and counts.max() <= 5 * counts.min()
    )


def _balanced_share(rest: NDArray[np.float64]) -> float:
    return float(np.mean([_is_balanced(c[np.isfinite(c)]) for c in rest.T[:: max(1, rest.shape[1] // 100)]]))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both] - a[both].mean() if both.any() else a[both], b[both] - b[both].mean() if both.any() else b[both]
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0


def _z(correlation: float) -> float:
    """Fisher's transform, on which estimates scatter alike."""
    return float(np.arctanh(min(correlation, 1 - 1e-9)))


def _neighbours(rest: NDArray[np.float64]) -> float:
    """A low quantile of how neighbouring columns correlate."""
    columns = np.unique(np.linspace(0, rest.shape[1] - 2, 60).astype(int))
    return float(np.quantile([abs(_correlation(rest[:, j], rest[:, j + 1])) for j in columns], 0.1))


def _jumps(column: NDArray[np.float64], rest: NDArray[np.float64], own: float, alike: float) -> bool:
    """Whether an edge column lies far from its neighbour, as no other two neighbours do."""
    levels = np.nanmedian(rest, axis=0)
    steps = np.abs(np.diff(levels))
    own_step = abs(float(np.nanmedian(column)) - float(levels[-1]))
    scatter = float(np.nanmax(rest) - np.nanmin(rest))
    far = own_step > 10 * max(float(steps.max()), 1e-300) and own_step > scatter
    return far or (alike > 0.9 and own < 0.5 and own_step > 3 * float(steps.max()))


def _some(values: NDArray[np.float64]) -> str:
    found = np.unique(values[np.isfinite(values)])
    shown = ", ".join(f"{value:.6g}" for value in found[:4])
    return f"{shown} …" if len(found) > 4 else shown
