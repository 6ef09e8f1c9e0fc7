"""Distinguish a row of positions from a row of data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values that are neither missing nor infinite."""
    return values[np.isfinite(values)]


def is_even(values: NDArray[np.float64]) -> bool:
    """Whether values are evenly spaced, as no spectrum is."""
    steps = np.diff(values)
    return len(values) > 2 and bool(np.all(steps != 0) and np.allclose(steps, steps.mean(), rtol=0.01, atol=0))


def is_outside(values: NDArray[np.float64], rest: NDArray[np.float64]) -> bool:
    """Whether all values lie above all others, or below."""
    rest = finite(rest)
    return len(rest) > 0 and bool((values > rest.max()).all() or (values < rest.min()).all())


def stands_out(values: NDArray[np.float64], rest: NDArray[np.float64]) -> str:
    """Whether a row is in order and even as no other row is: ``axis``; ``divided`` where some are; else nothing."""
    if len(values) < 4 or not nearly_in_order(values):
        return ""
    others = [finite(r) for r in rest]
    share = np.mean([nearly_in_order(r) for r in others]) if others else 1.0
    rough = [_roughness(r) for r in others if len(r) > 2]
    if share <= 0.02 and len(others) >= 3 and _roughness(values) < 0.5 * min(rough, default=0.0):
        return "axis"
    if share <= 0.2:
        return "divided"
    centre = np.nanmedian(rest, axis=0)
    if len(centre) != len(values):
        return ""
    spread = 1.5 * np.nanmedian(np.abs(rest - centre), axis=0)
    return "divided" if np.mean(np.abs(values - centre) > 6 * spread) > 0.5 else ""


def in_order(values: NDArray[np.float64]) -> bool:
    """Whether values ascend, or descend."""
    steps = np.diff(values)
    return len(steps) > 0 and bool((steps > 0).all() or (steps < 0).all())


def nearly_in_order(values: NDArray[np.float64]) -> bool:
    """Whether values are in order but for a few, as positions with one that is damaged, missing or there twice."""
    steps = np.diff(finite(values))
    wrong = len(steps) - max(np.count_nonzero(steps > 0), np.count_nonzero(steps < 0))
    return len(steps) > 0 and bool(wrong <= (max(1, len(steps) // 20) if len(steps) > 8 else 0))


def _roughness(values: NDArray[np.float64]) -> float:
    """Mean second difference over mean first difference: 0 of a straight line, about 2 of noise."""
    steps = np.abs(np.diff(values)).mean()
    return float(np.abs(np.diff(values, n=2)).mean() / steps) if steps > 0 else np.inf


def counts_up(values: NDArray[np.float64]) -> bool:
    """Whether values count by one, from 0 or 1."""
    return len(values) > 2 and bool(np.all(np.diff(values) == 1) and values[0] in (0, 1))
