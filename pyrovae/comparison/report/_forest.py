"""The forest plot: every candidate's gain over the simplest with its interval, in text and places."""

import math
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from pyrovae.comparison._words import nats
from pyrovae.comparison.recommendation import Recommendation
from pyrovae.comparison.report._answer import interval, value
from pyrovae.comparison.report._candidates import Candidate


@dataclass(frozen=True)
class ForestRow:
    """A candidate in the forest plot; places are in per cent of its width.

    Attributes:
        candidate: the candidate.
        is_choice: whether it is recommended.
        is_simplest: whether the others are compared with it.
        text: its gain and interval.
        at: place of its gain; None if it failed, or lies to the left of the plot.
        ends: places of its interval's ends; None if it has none.
    """

    candidate: Candidate
    is_choice: bool
    is_simplest: bool
    text: str
    at: float | None
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class Forest:
    """A forest plot.

    Attributes:
        rows: the best candidate first.
        ticks: places and labels along the axis.
        zero: place of no gain.
        is_cut: whether some candidates lie to the left of the plot.
    """

    rows: list[ForestRow]
    ticks: list[tuple[float, str]]
    zero: float
    is_cut: bool


def forest_of(advice: Recommendation, candidates: list[Candidate]) -> Forest:
    """Every candidate's gain over the simplest, with its interval; what is much worse than most lies to the left."""
    ends = [end for one in candidates for end in _ends(one)] + [0.0]
    gains = sorted(one.gain.gain for one in candidates if one.gain is not None)
    high = max(ends)
    least = min(0.0, high - 5 * (high - min(0.0, gains[len(gains) // 2])))
    low = max(min(ends), least) if high > least else min(ends)
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def place(x: float) -> float:
        return round(100 * (min(max(x, low), high) - low) / (high - low), 2)

    rows = []
    for one in sorted(candidates, key=lambda one: -math.inf if one.gain is None else one.gain.gain, reverse=True):
        simplest, at, bar, text = one.key == advice.simplest, None, None, "failed"
        if one.gain is not None:
            text = "0, by definition" if simplest else f"{'+' if one.gain.gain > 0 else ''}{value(one.gain)}"
            if not simplest and one.gain.low == one.gain.low:
                text += f" ({interval(one.gain, advice.level).split('interval ')[1]})"
                bar = (place(one.gain.low), place(one.gain.high)) if one.gain.high > low else None
            at = place(one.gain.gain) if one.gain.gain >= low else None
        rows.append(ForestRow(one, one.key == advice.choice, simplest, text, at, bar))
    ticks = [(place(x), nats(x, 0.1 if x % 1 else 2)) for x in MaxNLocator(4).tick_values(low, high) if low < x < high]
    return Forest(rows, ticks, place(0.0), any(row.at is None and row.candidate.gain is not None for row in rows))


def _ends(one: Candidate) -> list[float]:
    if one.gain is None:
        return []
    return [end for end in (one.gain.low, one.gain.gain, one.gain.high) if math.isfinite(end)]
