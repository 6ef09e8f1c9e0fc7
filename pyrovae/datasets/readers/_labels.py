"""Columns at the edge of a table that are not channels: labels, indices and targets among columns without names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._order import finite, in_order

_FEW = 20
_MOST_TARGETS, _MOST_LIKE = 12, 4
_NEAR = 10


@dataclass(frozen=True)
class Apart:
    """Columns at an edge that are no channels, perhaps.

    Attributes:
        count: how many.
        evidence: in words.
        is_clear: whether there is no evidence against it.
    """

    count: int
    evidence: str
    is_clear: bool = False


def edge_columns(values: NDArray[np.float64], edge: int) -> Apart | None:
    """The columns at the left (0) or right (−1) edge of a table that are no channels; None if nothing says so."""
    ordered = values if edge == -1 else values[:, ::-1]
    if min(ordered.shape) < 4:
        return None
    return _label(ordered) or _targets(ordered)


def _label(values: NDArray[np.float64]) -> Apart | None:
    """Whether the last column is a label or an index."""
    rest, seen = values[:, :-1], finite(values[:, -1])
    if len(seen) < 4:
        return None
    distinct = len(np.unique(seen))
    some = [finite(column) for column in rest.T[:: max(1, rest.shape[1] // 200)]]
    whole = _digits(seen)[0] == 0
    if distinct > 1 and all(_is_coarser(seen, other) for other in some):
        what = f"{'few ' if distinct <= _FEW else ''}whole numbers" if whole else "numbers of fewer digits"
        return Apart(1, f"holds {what} ({some_values(seen)}), and no other column does", whole)
    if not whole or distinct < 2:
        return None
    if distinct == len(seen) and (np.diff(seen) == 1).all():
        return Apart(1, "counts the rows", True)
    if distinct == len(seen) > 9 and np.ptp(seen) == distinct - 1:
        return Apart(1, "numbers the rows, in another order", True)
    if distinct <= _FEW and 2 * distinct <= len(seen):
        usual = np.median([len(np.unique(other)) for other in some])
        if usual > 3 * distinct and _breaks(values):
            return Apart(1, f"holds few whole numbers ({some_values(seen)}) and does not follow its neighbour", True)
        if usual > 2 * distinct or (_is_balanced(seen) and np.mean([_is_balanced(other) for other in some]) <= 0.1):
            return Apart(1, f"holds few whole numbers ({some_values(seen)})")
    return None


def _targets(values: NDArray[np.float64]) -> Apart | None:
    """How many of the last columns do not go on from their neighbours, as all others do."""
    if in_order(values[:, -1]) and not in_order(values[:, -2]) and len(values) > 9:
        return Apart(1, "is in order, and its neighbour is not")
    for count in range(min(_MOST_TARGETS, values.shape[1] // 3), 0, -1):
        near = values[:, : values.shape[1] - count + 1]
        if _breaks(near, strict=count > _MOST_LIKE):
            what = "do not continue their" if count > 1 else "does not continue its"
            return Apart(count, f"{what} neighbour (from {some_values(near[:, -2])} to {some_values(near[:, -1])})")
    return None


def _breaks(values: NDArray[np.float64], *, strict: bool = False) -> bool:
    """Whether the last column does not go on from its neighbour as those before do: at another level, or unrelated."""
    near = values[:, -_NEAR - 2 :]
    steps = np.array([np.median(finite(np.abs(column))) for column in np.diff(near).T])
    if steps[-1] > (10 if strict else 3) * max(steps[:-1].max(), 1e-300):
        return True
    *links, last = _links(near)
    return not strict and z(min(links)) - z(max(0.0, last)) > least_difference(values)


def may_be_either(values: NDArray[np.float64], edge: int) -> bool:
    """Whether nothing can tell a channel at an edge from a property, as the columns there do not follow each other."""
    near = values[:, -_NEAR - 2 :] if edge == -1 else values[:, _NEAR + 1 :: -1]
    if min(near.shape) < 4 or not np.fmin.reduce(near[:, -1]) < np.fmax.reduce(near[:, -1]):
        return False
    *links, last = _links(near)
    return z(min(links)) <= least_difference(values) and last < 0.9


def _links(values: NDArray[np.float64]) -> list[float]:
    """The correlation of each column with the next."""
    return [_correlation(a, b) for a, b in zip(values.T, values.T[1:], strict=False)]


def least_difference(values: NDArray[np.float64]) -> float:
    """The least difference of two correlations, as Fisher's transforms, that is not by chance."""
    return max(0.9, 4 / math.sqrt(len(values)))


def follows(column: NDArray[np.float64], neighbour: NDArray[np.float64], least: float = 0.9) -> bool:
    """Whether a column goes with its neighbour as a channel does: correlated, and at its level."""
    own, near = finite(column), finite(neighbour)
    is_at_level = len(own) and len(near) and abs(np.median(own) - np.median(near)) < np.ptp(near)
    return bool(is_at_level and abs(_correlation(column, neighbour)) > least)


def _digits(values: NDArray[np.float64]) -> tuple[int, int]:
    """The most digits after the point, and the most in all, of some of the values."""
    if (values == np.round(values)).all():
        return 0, 0
    texts = [np.format_float_positional(abs(v), 12, fractional=False, trim="-") for v in values[:60].tolist()]
    parts = [text.partition(".") for text in texts]
    return max(len(part) for _, _, part in parts), max(len((whole + part).lstrip("0")) for whole, _, part in parts)


def _is_coarser(values: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether values are rounded to fewer digits than others, by two at least, or to whole numbers."""
    (after, in_all), (most_after, most) = _digits(values), _digits(other)
    return after == 0 < most_after or (after + 2 <= most_after and in_all < most)


def _is_balanced(values: NDArray[np.float64]) -> bool:
    """Whether values are consecutive whole numbers, each about as often as the others."""
    found, counts = np.unique(values, return_counts=True)
    return (
        len(found) > 1 and bool(np.all(np.diff(found) == 1)) and counts.min() >= 2 and counts.max() <= 5 * counts.min()
    )


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both] - a[both].mean() if both.any() else a[both], b[both] - b[both].mean() if both.any() else b[both]
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0


def z(correlation: float) -> float:
    """Fisher's transform, on which estimates scatter alike."""
    return float(np.arctanh(min(correlation, 1 - 1e-9)))


def some_values(values: NDArray[np.float64]) -> str:
    """The first of the values, in order, for a message."""
    found = np.unique(finite(values))
    shown = ", ".join(f"{value:.6g}" for value in found[:4])
    return f"{shown} …" if len(found) > 4 else shown
