"""The report's pictures, each a function from arrays to a matplotlib figure; text is readable on a telephone."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrovae.plotting import COLORS, empty_figure, label

MARKERS = "os^Dvx*P"
"""Markers that go with the colours."""

DASHES = ("-", "--", ":", "-.")
"""Dashes of curves that share a colour."""


def spectrum_with_band(
    axis: NDArray[np.floating],
    x: NDArray[np.floating],
    centre: NDArray[np.floating],
    band: tuple[NDArray[np.floating], NDArray[np.floating]],
    xlabel: str,
    shaded: Iterable[tuple[float, float]] = (),
) -> Figure:
    """A datum above its reconstruction, and what is left of it, within the band where it is expected.

    Args:
        axis: positions of the channels, shape (n,); the picture has them in the file's direction.
        x: the datum, shape (n,), NaN where a value is missing.
        centre: its reconstruction, shape (n,).
        band: lower and upper end of the band, each of shape (n,).
        xlabel: what the axis is.
        shaded: ranges of the axis that fit worst.
    """
    fig = empty_figure(4.6, 3.9)
    above, below = fig.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.fill_between(axis, *band, color=COLORS[5], alpha=0.45, linewidth=0, label="expected (95 %)")
    above.plot(axis, centre, color=COLORS[0], linewidth=1, linestyle="--", label="reconstruction")
    above.plot(axis, x, color=COLORS[6], linewidth=1, label="data")
    below.fill_between(axis, band[0] - centre, band[1] - centre, color=COLORS[5], alpha=0.45, linewidth=0)
    below.axhline(0, color=COLORS[0], linewidth=1, linestyle="--")
    below.plot(axis, x - centre, color=COLORS[6], linewidth=1)
    step = float(np.abs(np.diff(axis)).mean()) if len(axis) > 1 else 1.0
    for ax in (above, below):
        for first, last in shaded:
            low, high = min(first, last) - step / 2, max(first, last) + step / 2
            ax.axvspan(low, high, color=COLORS[4], alpha=0.35, linewidth=0, zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
        if axis[0] != axis[-1]:
            ax.set_xlim(float(axis[0]), float(axis[-1]))
    below.set(xlabel=label(xlabel), ylabel="difference")
    above.set_ylabel("data")
    fig.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return fig


def colored_plane(
    points: NDArray[np.floating],
    values: NDArray[np.floating] | Sequence[int] | None,
    marked: Mapping[str, NDArray[np.floating]],
    labels: tuple[str, str],
    discrete: bool = False,
) -> Figure:
    """Points in the plane, coloured by numbers with a colour bar, or by classes in colours and markers.

    Args:
        points: shape (num, 2).
        values: a number or a class a point, NaN or −1 where it is unknown (grey); None for one colour.
        marked: points to ring, by what stands beside them.
        labels: labels of the two axes.
        discrete: whether the values are classes, counted from 0.
    """
    fig = empty_figure(4.6, 3.9)
    ax = fig.subplots()
    found = np.full(len(points), np.nan) if values is None else np.asarray(values, dtype=float)
    unknown = np.isnan(found) if not discrete else found < 0
    points, size = np.asarray(points, dtype=float), 14.0
    x, y = points[unknown].T
    ax.scatter(x, y, s=size, color=COLORS[0] if values is None else "0.7", linewidths=0, alpha=0.75)
    if discrete:
        for k in np.unique(found[~unknown]).astype(int).tolist():
            color, (x, y) = COLORS[k % len(COLORS)], points[found == k].T
            ax.scatter(x, y, s=size, color=color, marker=MARKERS[k % len(MARKERS)], linewidths=0.8, alpha=0.75)
    elif values is not None:
        x, y = points[~unknown].T
        shown = ax.scatter(x, y, s=size, c=found[~unknown], cmap="viridis", linewidths=0, alpha=0.75)
        fig.colorbar(shown, ax=ax, pad=0.02)
    for name, place in marked.items():
        at = (float(place[0]), float(place[1]))
        ax.scatter(*at, s=70, facecolors="none", edgecolors=COLORS[1], linewidths=1.2)
        ax.annotate(name, at, xytext=(5, 5), textcoords="offset points", fontsize=9, fontweight="bold")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    return fig


def curves_by_epoch(series: Sequence[NDArray[np.floating]], ylabel: str) -> Figure:
    """Curves from epoch 1 on, one for each of the colours and DASHES in turn, on a scale linear below 1.

    Epochs without a value, NaN, are passed over.
    """
    fig = empty_figure(4.6, 3.2)
    ax = fig.subplots()
    for k, curve in enumerate(series):
        style, color = DASHES[k // len(COLORS) % len(DASHES)], COLORS[k % len(COLORS)]
        known = np.isfinite(curve)
        ax.plot(np.flatnonzero(known) + 1, curve[known], color=color, linestyle=style, linewidth=1.3)
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.set_yscale("symlog", linthresh=1.0)
    ax.locator_params(axis="x", integer=True)
    ax.spines[["top", "right"]].set_visible(False)
    return fig
