"""Pictures that several studies draw."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from pyrovae import plotting


def grouped_intervals(
    labels: Sequence[str],
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    xlabel: str,
    log: bool = False,
) -> Figure:
    """Means with ±2 standard errors: one panel beside the other, one row a label, one colour a series.

    Args:
        labels: labels of the rows.
        panels: by title, series by name: means and standard errors, one per label; NaN is left out.
        xlabel: meaning of the values.
        log: whether the axis is logarithmic.
    """
    height = 1.3 + 0.34 * len(labels)
    fig = plotting.empty_figure(2.0 + 3.1 * len(panels), height)
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    rows = np.arange(len(labels))[::-1]
    for ax, (title, series) in zip(axes, panels.items(), strict=True):
        for k, ((name, (means, stderrs)), color) in enumerate(zip(series.items(), plotting.COLORS, strict=False)):
            offset = 0.22 * ((len(series) - 1) / 2 - k)
            spread = 2 * np.asarray(stderrs, dtype=float)
            if log:  # as far down as up, on the logarithmic axis
                centre = np.asarray(means, dtype=float)
                spread = np.stack([centre - centre / (1 + spread / centre), spread])
            ax.errorbar(
                means,
                rows + offset,
                xerr=spread,
                fmt="osD^v"[k % 5],
                color=color,
                markersize=4,
                capsize=2,
                label=plotting.label(name),
            )
        if log:
            ax.set_xscale("log")
        ax.set_title(plotting.label(title), fontsize=9)
        ax.set_yticks(rows, [plotting.label(name) for name in labels])
        ax.grid(True, axis="x", alpha=0.3)
    if len(next(iter(panels.values()))) > 1:
        handles = axes[0].get_legend_handles_labels()
        fig.legend(*handles, loc="outside upper center", ncols=5, fontsize=8)
    fig.supxlabel(plotting.label(f"{xlabel} (± 2 standard errors)"), fontsize=9)
    return fig


def log_log(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str) -> Figure:
    """Curves on logarithmic axes."""
    fig, axes = plotting.figure(1, size=5.0)
    ax = axes[0, 0]
    for (name, (x, y)), color, marker in zip(series.items(), cycle(plotting.COLORS), cycle("os^Dvx*P"), strict=False):
        ax.loglog(x, y, color=color, marker=marker, markersize=4, label=plotting.label(name))
    ax.set(xlabel=plotting.label(xlabel), ylabel=plotting.label(ylabel))
    ax.grid(True, which="major", alpha=0.3)
    ax.legend(loc="best")
    return fig
